"""The life of one replica: started, asked whether it is ready, started again when it ends, and stopped.

A thread of its own goes through it; the others read what it says of itself.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hone.processes import signal_group, why_failed
from hone.services import tether
from hone.services.launch import end
from hone.services.status.asking import Access, get

from .state import Life, Replica, State

MOST_LOG_BYTES = 20_000_000
"""Of a replica's log; with more it is put aside at the next start, in place of the one before."""
TELLING_LINES = 40
STAMP = re.compile(r"^(\S+ \[\w+\] (\[[^\]]*\] )?|(\S+ )?error: )")
"""What a line of a log begins with, before what it says."""


@dataclass(frozen=True)
class Patience:
    """What a replica is allowed.

    Attributes:
        poll_s: between two questions whether it is ready.
        start_s: that it may take to become ready.
        refusals: answers that it isn't ready after which one that never was won't be.
        mute_s: that one which was ready may give no answer at all.
        first_s, most_s: before it is started again: twice as long after each failure.
        failures: in a row after which it is given up.
        sound_s: of being ready after which failures are forgotten.
    """

    poll_s: float = 0.5
    start_s: float = 180.0
    refusals: int = 3
    mute_s: float = 30.0
    first_s: float = 1.0
    most_s: float = 30.0
    failures: int = 5
    sound_s: float = 60.0

    def before(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row."""
        return float(min(self.most_s, self.first_s * 2 ** max(0, failures - 1)))


class Living:
    """One replica's process, as often as it is started.

    Args:
        replica: that is to run.
        command: that serves it until it is stopped.
        log: file of what it prints.
        patience: with it.
        changed: called when its state has changed; from another thread.
    """

    def __init__(
        self, replica: Replica, command: list[str], log: Path, patience: Patience, changed: Callable[[], object]
    ) -> None:
        self.replica = replica
        self.now = Life(id=replica.id, version=replica.version, port=replica.port, since=time.time())
        self._command = command
        self._log = log
        self._patience = patience
        self._changed = changed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._live, name=replica.id, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; `ended` says when it has."""
        if not self._stop.is_set():
            self._become("stopping")
            self._stop.set()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _live(self) -> None:
        while not self._stop.is_set():
            process = self._start()
            try:
                why = self._watch(process)
            finally:
                end_group(process)
            if self._stop.is_set():
                return
            failures = self.now.failures + 1
            if failures >= self._patience.failures:
                self._become("given up", pid=0, failures=failures, why=why)
                self._stop.wait()
                return
            self._become("waiting", pid=0, failures=failures, why=why)
            self._stop.wait(self._patience.before(failures))
            self.now = self.now.model_copy(update={"restarts": self.now.restarts + 1})

    def _start(self) -> subprocess.Popen[bytes]:
        if self._log.exists() and self._log.stat().st_size > MOST_LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        process = tethered(self._command, self._log)
        self._become("starting", pid=process.pid)
        return process

    def _watch(self, process: subprocess.Popen[bytes]) -> str:
        """Wait until the process ends, or has to; return why."""
        begun = heard = time.monotonic()
        refused = 0
        while not self._stop.wait(self._patience.poll_s):
            if process.poll() is not None:
                return f"ended with status {process.returncode}: {last_words(self._log)}"
            health, now = self._health(), time.monotonic()
            heard = heard if health == "mute" else now
            if health == "ready":
                refused = 0
                self._is_ready()
            elif self.now.state in ("ready", "unready"):
                if self.now.state == "ready":
                    self._become("unready")
                if now - heard > self._patience.mute_s:
                    return f"no answer for {self._patience.mute_s:g} s"
            else:
                # It answers, so it has loaded what it could.
                refused += health == "refused"
                if refused >= self._patience.refusals:
                    return f"not ready: {last_words(self._log)}"
                if now - begun > self._patience.start_s:
                    return f"not ready after {self._patience.start_s:g} s: {last_words(self._log)}"
        return "stopped"

    def _is_ready(self) -> None:
        if self.now.state != "ready":
            self._become("ready", why="")
        elif self.now.failures and time.time() - self.now.since > self._patience.sound_s:
            self.now = self.now.model_copy(update={"failures": 0})

    def _health(self) -> Literal["ready", "refused", "loading", "mute"]:
        """Ask it whether it is ready; a service that has loaded its models, and serves none of them, says so itself."""
        try:
            status, body = get(f"http://127.0.0.1:{self.replica.port}", "/v2/health/ready", Access())
        except OSError:
            return "mute"
        if status == 200:
            return "ready"
        return "refused" if b'"ready"' in body else "loading"

    def _become(self, state: State, **more: object) -> None:
        if self._stop.is_set() and state != "stopping":
            return
        self.now = self.now.model_copy(update={"state": state, "since": time.time(), **more})
        self._changed()


def tethered(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a program that ends with this process, whatever ends this one; a Ctrl-C reaches this one only."""
    log.parent.mkdir(parents=True, exist_ok=True)
    wrapped = [sys.executable, "-I", "-S", str(Path(tether.__file__).resolve()), str(os.getpid()), *command]
    with log.open("ab") as stream:
        return subprocess.Popen(
            wrapped, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True, cwd=Path.cwd()
        )


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a replica as Ctrl-C does; what is left of it after that is killed."""
    if process.poll() is None:
        end(process)
    signal_group(process.pid, signal.SIGKILL)


def last_words(log: Path) -> str:
    """Return the line of a log that tells why its program failed."""
    try:
        with log.open(errors="replace") as stream:
            return STAMP.sub("", why_failed("".join(deque(stream, TELLING_LINES))))
    except OSError:
        return "it printed nothing"
