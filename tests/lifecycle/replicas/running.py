"""Replicas that start at once behind a real nginx: the supervisor in a thread of this process, and a caller."""

from __future__ import annotations

import http.client
import json
import shutil
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hone.lifecycle.replicas import balancer, fleet, supervise
from hone.lifecycle.replicas.fleet import Fleet, Place, first_wanted
from hone.lifecycle.replicas.life import Patience
from hone.lifecycle.replicas.state import Replica, Wanted, keeping
from hone.lifecycle.replicas.supervise import Supervisor
from hone.services.launch import free_port
from tests.aside import Aside

needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed: apt install nginx"
)
QUICK = Patience(poll_s=0.05, first_s=0.1, most_s=0.2, failures=3, sound_s=0.2, refusals=2)


def standin(replica: Replica, wanted: Wanted) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name("standin.py")), replica.version, str(replica.port)]


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let replicas be stand-ins, and nothing wait for long."""
    monkeypatch.setattr(supervise, "serve_command", standin)
    monkeypatch.setattr(supervise, "TURN_S", 0.02)
    monkeypatch.setattr(fleet, "POLL_S", 0.02)
    monkeypatch.setattr(balancer, "PARTING_S", 0.2)


@dataclass
class Up:
    """Replicas that run.

    Attributes:
        said: lines of the supervisor.
        port: of nginx.
    """

    fleet: Fleet
    port: int
    said: list[str] = field(default_factory=list)

    def wait(self, what: str, holds: Callable[[], object], timeout_s: float = 60.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, f"{what}: {self.said}"
            time.sleep(0.02)

    def states(self) -> dict[str, str]:
        return {life.id: life.state for life in self.fleet.seen.lives}


@contextmanager
def up(reference: str, count: int | None = 2, tls: tuple[Path, Path] | None = None) -> Iterator[Up]:
    """Keep replicas of a stored model running."""
    port, stopping = free_port(), threading.Event()
    name = reference.partition(":")[0]
    certificate, key = map(str, tls) if tls else (None, None)
    with keeping(name):
        first_wanted(reference, count, Place(port=port, certificate=certificate, key=key), ())
        found = Up(Fleet(name), port)
        supervisor = Supervisor(name, found.said.append, QUICK)
        thread = threading.Thread(target=supervisor.run, args=(stopping,))
        thread.start()
        try:
            found.wait("all are ready", lambda: _all_ready(found))
            yield found
        finally:
            stopping.set()
            thread.join()


def _all_ready(found: Up) -> bool:
    try:
        seen = found.fleet.seen
    except fleet.DownError:
        return False
    return bool(seen.lives) and all(life.state == "ready" for life in seen.lives) and bool(seen.in_force)


class Caller(Aside):
    """Asks nginx on and on over connections that it keeps; counts answers by status and version, and broken ones."""

    def __init__(self, port: int, callers: int = 2, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.answers: Counter[tuple[int, str]] = Counter()
        self.broken: list[str] = []
        self._port = port
        super().__init__(*[self._call] * callers)

    def _call(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        if self._tls is not None:
            connection = http.client.HTTPSConnection("localhost", self._port, timeout=30, context=self._tls)
        while not self._stop.is_set():
            try:
                connection.request("POST", "/predict", body=b"{}", headers={"content-type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
                version = json.loads(content)["version"] if answer.status in (200, 500) else ""
                self.answers[answer.status, version] += 1
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.broken.append(repr(error))
                connection.close()
            time.sleep(0.001)
        connection.close()
