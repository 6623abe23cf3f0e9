"""One container of a pod: a process that is started, probed, restarted and ended by the rules of its manifest."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import psutil

from hone import services
from hone.k8s.autoscaler.hpa.calculator import Sample

Object = dict[str, Any]
PROBES = ("startup", "readiness", "liveness")
LOOK_S = 0.2
TETHER = Path(services.__file__).with_name("tether.py")
"""So that no pod outlives a test run that was killed."""
USAGE_S = 5.0
"""What a container uses is told of so many seconds, as metrics-server tells it of 15 and more."""


class Probe:
    """A probe of a manifest, asked at its own pace.

    Args:
        spec: `httpGet` with a path, and times.
        port: of the container.
    """

    def __init__(self, spec: Object, port: int) -> None:
        self._path, self._port = spec["httpGet"]["path"], port
        self._period_s, self._timeout_s = spec["periodSeconds"], spec["timeoutSeconds"]
        self._threshold = spec["failureThreshold"]
        self._misses = 0
        self._next = 0.0

    def ask(self) -> bool | None:
        """Return what it says: True at once, False after as many misses as the manifest allows; None: nothing new."""
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + self._period_s
        connection = HTTPConnection("127.0.0.1", self._port, timeout=self._timeout_s)
        try:
            connection.request("GET", self._path)
            good = 200 <= connection.getresponse().status < 400
        except (OSError, HTTPException):
            good = False
        finally:
            connection.close()
        self._misses = 0 if good else self._misses + 1
        return True if good else False if self._misses >= self._threshold else None


class Container:
    """A container from its start to its end, in a thread of its own.

    Args:
        spec: of the pod.
        command, environment, root: what is run and where.
        port: that it listens on.
        report: called when its state has changed.

    Attributes:
        ready, restarts: its state.
        ended: (exit status, whether it had to be killed) once it was told to go and has.
    """

    def __init__(
        self, spec: Object, command: list[str], environment: dict[str, str], root: Path, port: int,
        log: Path, report: Callable[[], None],
    ) -> None:  # fmt: skip
        (self._spec,) = spec["containers"]
        self._grace_s = spec["terminationGracePeriodSeconds"]
        tether = [sys.executable, "-I", "-S", str(TETHER), str(os.getpid())]
        self._command, self._environment, self._root, self._log = [*tether, *command], environment, root, log
        self._report = report
        self._going = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._family: list[psutil.Process] = []
        self._used: deque[tuple[float, float]] = deque(maxlen=64)
        self.port = port
        self.ready = False
        self.restarts = 0
        self.started_at = time.time()
        self.ended: tuple[int, bool] | None = None
        self._process = self._run()
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def go(self) -> None:
        """Begin its end: preStop, SIGTERM, and SIGKILL when its grace is over."""
        self._going.set()

    def kill(self) -> None:
        """Kill all of its processes, as the kernel does when memory is short."""
        # Workers have sessions of their own, and those of a server that is gone are nobody's children.
        family = {*self._family, *self._relatives()}
        for process in family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(list(family), timeout=10)

    def finish(self) -> None:
        """End it without any grace."""
        self._grace_s = 0
        self.go()
        self.kill()
        self._thread.join()

    def usage(self) -> Sample | None:
        """Return thousandths of a core that it used lately; None where that isn't known yet."""
        recent = [entry for entry in list(self._used) if entry[0] >= time.time() - 2 * USAGE_S]
        if len(recent) < 2 or recent[-1][0] - recent[0][0] < USAGE_S / 2:
            return None
        window_s = recent[-1][0] - recent[0][0]
        used = max(0.0, recent[-1][1] - recent[0][1])
        return Sample(round(1000 * used / window_s), recent[-1][0], window_s)

    def _run(self) -> subprocess.Popen[bytes]:
        self._used.clear()
        self._family.clear()
        with self._log.open("ab") as stream:
            return subprocess.Popen(
                self._command, cwd=self._root, env=self._environment, stdin=subprocess.DEVNULL,
                stdout=stream, stderr=stream, start_new_session=True,
            )  # fmt: skip

    def _live(self) -> None:
        while not self._going.is_set():
            probes = {kind: Probe(self._spec[f"{kind}Probe"], self.port) for kind in PROBES}
            self._watch(probes)
            if not self._going.is_set():
                self.kill()
                self._process.wait()
                self.restarts += 1
                self._process = self._run()
                self._say(False, always=True)
        self._end()

    def _watch(self, probes: dict[str, Probe]) -> None:
        """Ask the probes until the container has ended, or has to."""
        up = False
        while not self._going.wait(LOOK_S) and self.running:
            self._measure()
            if not up:
                answer = probes["startup"].ask()
                if answer is False:
                    return
                up = bool(answer)
                continue
            if (answer := probes["readiness"].ask()) is not None:
                self._say(answer)
            if probes["liveness"].ask() is False:
                return

    def _say(self, ready: bool, always: bool = False) -> None:
        if always or ready != self.ready:
            self.ready = ready
            self._report()

    def _measure(self) -> None:
        now = time.time()
        if self._used and now - self._used[-1][0] < 2.0:
            return
        with contextlib.suppress(psutil.Error):
            if not self.ready or not self._family:  # looking for children looks at every process of the machine
                self._family = self._relatives()
            times = [process.cpu_times() for process in self._family]
            self._used.append((now, sum(entry.user + entry.system for entry in times)))

    def _relatives(self) -> list[psutil.Process]:
        """Return its first process and those that come from it, of those that are there."""
        if self._process.returncode is not None:
            return []  # its number may be another's
        try:
            server = psutil.Process(self._process.pid)
            return [server, *server.children(recursive=True)]
        except psutil.Error:
            return []

    def _end(self) -> None:
        deadline = time.monotonic() + self._grace_s
        hook = self._spec.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command")
        if hook and self._grace_s and self.running:
            subprocess.run(hook, check=False, timeout=self._grace_s)
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        killed = False
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            killed = True
        self.kill()  # what it left behind
        self.ended = (self._process.wait(), killed)
