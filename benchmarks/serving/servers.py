"""Servers that are up, and stopped until their turn comes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from hone.errors import HoneError
from hone.processes import why_failed
from hone.services.launch import free_port, running

from ..peers.description import Peer, Server
from ..peers.environment import start
from .workloads import Workload

START_TIMEOUT_S = 90.0
STOP_TIMEOUT_S = 8.0
Opened = contextlib.AbstractContextManager[str]
"""A server that runs while it is open; gives its address."""


@contextlib.contextmanager
def hone_server(workload: Workload) -> Iterator[str]:
    """Run Hone as it is served by default, and yield its address when it is ready."""
    with running(workload.reference) as url:
        yield url


@contextlib.contextmanager
def peer_server(peer: Peer[Server], python: Path, model: Path, threads: int, folder: Path) -> Iterator[str]:
    """Run a peer and yield its address when it is ready.

    Args:
        python: of the peer's environment.
        model: an ONNX file.
        threads: of ONNX Runtime.
        folder: for its log and what else it writes.

    Raises:
        HoneError: it doesn't become ready; the message is the line of its log that tells why.
    """
    port = free_port()
    process = start(peer, python, model, port, threads, folder)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(url + peer.about.ready_path):
            if process.poll() is not None or time.monotonic() > deadline:
                log = (folder / f"{peer.name}.log").read_text(errors="replace")
                # Some servers log a whole traceback as one quoted line.
                raise HoneError(why_failed(log.replace("\\n", "\n")))
            time.sleep(0.2)
        yield url
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(Exception):
                process.wait(STOP_TIMEOUT_S)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


@dataclass(frozen=True)
class Standing:
    """A server that is up, and stopped until its turn comes.

    Attributes:
        name: in reports.
        url: where it listens.
        root: its first process.
    """

    name: str
    url: str
    root: psutil.Process

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Let it run within a block."""
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.signal(signal.SIGSTOP)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's whole tree of processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [self.root, *self.root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


@contextlib.contextmanager
def standing(name: str, server: Opened) -> Iterator[Standing]:
    """Start a server and yield it, stopped.

    Raises:
        HoneError: it doesn't start.
    """
    this = psutil.Process()
    before = {child.pid for child in this.children()}
    with server as url:
        root = next(child for child in this.children() if child.pid not in before)
        found = Standing(name, url, root)
        found.signal(signal.SIGSTOP)
        try:
            yield found
        finally:
            found.signal(signal.SIGCONT)  # what is stopped can't end
