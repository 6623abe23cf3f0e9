"""Sends what a plan says and notes when: a process of its own, with little between a moment and its request.

`python -m hone.benchmarks.load.sending.sender` says `up` on its standard output. On its standard input it is told
`plan FOLDER`, and says `ready`; then `start MOMENT` (of `time.monotonic`), `users N`, `stop`. The input's end is a
stop, so that no sender outlives who started it.

Open loop: requests go out at their times whatever the service answers, each on a connection that is free, or a new one.
Latency counts from the time that was meant (no coordinated omission). Closed loop: a connection a caller, who sends
again when there is an answer.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import sys
import time
from collections import deque
from pathlib import Path

from hone.errors import HoneError, one_line

from ..wire import WIRES, Expected
from .commands import Commands
from .connection import READ, WRITE, BadAnswerError, Connection, Endpoint
from .plan import GRACE_S, INTERRUPTED, NOT_SENT, PAUSE_S, REMEMBERED, TICK_S, TIMEOUT_S, Log, Plan
from .poller import new_poller

BURST = 16
"""Requests that go out before answers are looked at."""
OPENED = 32
"""Connections that are open before an open loop begins; more are opened when they are needed."""

SLACK = Path("/proc/self/timerslack_ns")
"""By so much Linux may wake this process late, to wake several at once: 50,000 ns unless it is told otherwise."""

_clock = time.monotonic


class Sender:
    """One plan from start to end."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self._plan = plan
        self._log = Log(folder, plan.number)
        self._endpoint = Endpoint.of(plan.url, plan.access)
        self._poller = new_poller()
        self._connections: dict[int, Connection] = {}
        self._idle: list[Connection] = []
        self._pausing: deque[float] = deque()
        self._flying = 0
        self._users, self._wanted = 0, plan.users
        self._sent = 0
        self._due: list[float] = [] if plan.arrivals is None else plan.arrivals.tolist()
        self._order: list[int] = plan.order.tolist()
        self._rows: list[int] = plan.rows.tolist()
        self._good: dict[int, bytes] = {}
        self._wire = WIRES.get(plan.wire)
        self._next_kept = 0.0 if plan.keep_every_s else float("inf")
        self._zero = float("inf")
        self._until = float("inf")
        self._begun = self._spent = self._next_tick = 0.0
        self._unreachable = ""

    def run(self) -> None:
        """Send until the plan is done or the command comes; leave the records in any case.

        Raises:
            OSError: they can't be written.
        """
        stdin = sys.stdin.fileno()
        commands = Commands(stdin)
        self._poller.add(stdin, READ)
        if self._plan.arrivals is not None:
            self._idle = [found for _ in range(min(OPENED, len(self._due))) if (found := self._open())]
        print("ready", flush=True)  # noqa: T201 - to who started this
        # A collection of the generator's own objects would show as latency of the service.
        gc.freeze()
        gc.disable()
        while not self._done():
            now = _clock()
            if now >= self._next_tick:
                self._next_tick = now + TICK_S
                self._tick(now)
            for fd, mask in self._poller.wait(self._send_due() if self._due else self._next_tick - now):
                connection = self._connections.get(fd)
                if connection is not None:
                    self._step(connection, mask)
                elif fd == stdin:
                    self._obey(commands)
                    if commands.ended:
                        self._poller.remove(stdin)
        self._finish()

    def _done(self) -> bool:
        now = _clock()
        if now >= self._until:
            return not self._flying or now >= self._until + GRACE_S
        if self._plan.arrivals is not None:
            return self._sent >= len(self._due) and not self._flying and self._zero < float("inf")
        end = self._zero + self._plan.duration_s
        return bool(self._plan.duration_s) and now >= end and not self._flying

    def _finish(self) -> None:
        spent, wall = time.process_time() - self._spent, _clock() - self._begun
        now = _clock()
        for connection in list(self._connections.values()):
            if connection.busy:
                self._note(connection, now, INTERRUPTED)
            connection.close()
        share = spent / wall if self._begun and wall > 0 else 0.0
        self._log.close(cpu_share=round(share, 4), wall_s=round(wall if self._begun else 0.0, 3))

    def _obey(self, commands: Commands) -> None:
        for word, value in commands.read():
            self._next_tick = 0.0
            if word == "start":
                self._zero = self._next_tick = float(value)
                self._begun, self._spent = max(_clock(), self._zero), time.process_time()
            elif word == "users":
                self._wanted = int(value)
            elif word == "stop":
                self._until = min(self._until, _clock())

    def _tick(self, now: float) -> None:
        """What needs no haste: write records, give up on answers, let callers in and out."""
        self._log.flush()
        for connection in list(self._connections.values()):
            if connection.busy and now - self._zero - connection.started > TIMEOUT_S:
                self._broken(connection, "no answer: TimeoutError")
        while self._pausing and self._pausing[0] <= now:
            self._pausing.popleft()
            self._users -= 1
        while self._plan.arrivals is None and self._users < self._wanted and self._may_begin(now):
            self._users += 1
            self._begin(now - self._zero)

    def _may_begin(self, now: float) -> bool:
        end = self._zero + self._plan.duration_s if self._plan.duration_s else float("inf")
        return self._zero <= now < min(end, self._until)

    def _send_due(self) -> float:
        """Send what is due in an open loop; return the seconds until the next."""
        due, zero = self._due, self._zero
        if _clock() >= self._until:
            return TICK_S
        for _ in range(BURST):
            if self._sent >= len(due):
                return TICK_S
            wait = zero + due[self._sent] - _clock()
            if wait > 0:
                return min(wait, TICK_S)
            intended = due[self._sent]
            if self._flying >= self._plan.in_flight:
                self._log.add(intended, intended, intended, self._order[self._sent % len(self._order)], NOT_SENT, 0)
                self._sent += 1
            else:
                self._begin(intended)
        return 0.0

    def _begin(self, intended: float) -> None:
        """Send the next request on a connection that is free, or on a new one."""
        call = self._order[self._sent % len(self._order)]
        self._sent += 1
        started = _clock() - self._zero
        while self._idle and self._idle[-1].ended(started):
            self._drop(self._idle[-1])
        connection = self._idle.pop() if self._idle else self._open()
        if connection is None:
            self._log.add(intended, started, _clock() - self._zero, call, self._unreachable, 0)
            self._no_connection()
            return
        connection.call, connection.intended, connection.started = call, intended, started
        connection.busy = True
        self._flying += 1
        try:
            self._watch(connection, connection.send(self._plan.requests[call]))
        except OSError as error:
            self._broken(connection, f"no answer: {type(error).__name__}")

    def _open(self) -> Connection | None:
        try:
            connection = Connection(self._endpoint)
        except OSError as error:
            self._unreachable = f"no answer: {type(error).__name__}"
            return None
        self._connections[connection.fd] = connection
        connection.mask = WRITE
        self._poller.add(connection.fd, WRITE)
        return connection

    def _watch(self, connection: Connection, mask: int) -> None:
        if mask != connection.mask:
            connection.mask = mask
            self._poller.modify(connection.fd, mask)

    def _step(self, connection: Connection, mask: int) -> None:
        try:
            if connection.unsent or connection.opening:
                self._watch(connection, connection.go_on())
                return
            if not connection.receive():
                return
        except (OSError, BadAnswerError) as error:
            name = "not HTTP" if isinstance(error, BadAnswerError) else f"no answer: {type(error).__name__}"
            self._broken(connection, name)
            return
        if connection.busy:
            self._answered(connection)

    def _answered(self, connection: Connection) -> None:
        ended = _clock()
        call, body = connection.call, connection.body
        error = ""
        if connection.head[9:12] != b"200" or (self._wire is not None and self._good.get(call) != body):
            error = self._check(connection)
        if ended >= self._next_kept and not error:
            self._log.keep(call, connection.head, body)
            self._next_kept = ended + self._plan.keep_every_s
        self._note(connection, ended, error, len(body))
        if connection.closing:
            self._drop(connection)
        else:
            self._idle.append(connection)
        if self._plan.arrivals is None:
            self._again(ended)

    def _again(self, now: float) -> None:
        """Let the caller that has its answer send the next request, or leave."""
        if self._users <= self._wanted and self._may_begin(now):
            self._begin(now - self._zero)
        else:
            self._users -= 1

    def _check(self, connection: Connection) -> str:
        status = connection.head[9:12]
        if self._wire is None:
            return "" if status == b"200" else f"status {status.decode('latin-1')}"
        call, rows = connection.call, self._rows[connection.call]
        expected = Expected(rows or None, self._plan.tag or None, self._plan.outputs)
        code = int(status) if status.isdigit() else 0
        error = self._wire.fault(code, connection.body, connection.fields(), expected)
        if not error and len(connection.body) <= REMEMBERED:
            self._good[call] = connection.body
        return error

    def _note(self, connection: Connection, ended: float, error: str, size: int = 0) -> None:
        connection.busy = False
        self._flying -= 1
        self._log.add(connection.intended, connection.started, ended - self._zero, connection.call, error, size)

    def _broken(self, connection: Connection, error: str) -> None:
        busy = connection.busy
        self._drop(connection)
        if busy:
            self._note(connection, _clock(), error)
            self._no_connection()

    def _drop(self, connection: Connection) -> None:
        if self._connections.pop(connection.fd, None) is None:
            return
        self._poller.remove(connection.fd)
        connection.close()
        if not connection.busy and connection in self._idle:
            self._idle.remove(connection)

    def _no_connection(self) -> None:
        if self._plan.arrivals is None:
            self._pausing.append(_clock() + PAUSE_S)


def main() -> None:
    """Run the plan that standard input names."""
    # Ctrl-C reaches the whole group: who started this decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or soft < hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65536) if hard > 0 else 65536, hard))
    with contextlib.suppress(OSError):
        SLACK.write_text("1")
    print("up", flush=True)  # noqa: T201 - to who started this
    word, _, folder = os.read(sys.stdin.fileno(), 4096).decode().strip().partition(" ")
    if word != "plan":
        return
    plan = Plan.read(Path(folder))
    if plan.url.startswith("grpc"):
        from .grpc_sender import GrpcSender

        GrpcSender(plan, Path(folder)).run()
    else:
        Sender(plan, Path(folder)).run()


if __name__ == "__main__":
    try:
        main()
    except HoneError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {error.filename or 'records'}: {error.strerror or one_line(error)}")
