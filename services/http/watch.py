"""One look at all connections of a worker, twice a second: who waits for too long, who is idle, who was refused."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakSet

from ..settings import Settings

logger = logging.getLogger("hone.serving")

LOOK_S = 0.5
IDLE_S = 1.0
"""A connection may be closed for another when nothing was asked on it for so long."""

COMPLAIN_S = 10.0
"""Refusals are counted and logged at most so often: whoever makes them must not fill the log."""

UVICORNS_KEEP_ALIVE_S = 5
MAX_LINGERING = 32
"""Connections over the limit that get an answer; more are closed without."""

SLOW_S = 2.0
LEAST_BYTES_PER_S = 50_000
"""Whom a worker has waited for so long while fewer bytes moved loses the connection when another one needs room."""

SPARE = 64
"""Files that a worker may still open: models, logs, metrics, other servers."""


@dataclass(frozen=True)
class ConnectionLimits:
    """Of one worker.

    Attributes:
        head_bytes: of the request line and the headers together.
        head_s: from a connection's beginning, or a request's first byte, to the end of the head; also the longest
            pause in a body, or in the reading of an answer.
        body_s: from the head's end to the body's, and from an answer's beginning until it is read.
        connections: open at once.
        idle_s: between a request's answer and the next request.
        answer_s: left to the callers when the worker stops.
    """

    head_bytes: int = 32_000
    head_s: float = 10.0
    body_s: float = 60.0
    connections: int = 1000
    idle_s: float = 75.0
    answer_s: float = 15.0

    @classmethod
    def of(cls, settings: Settings) -> ConnectionLimits:
        return cls(
            int(settings.max_header_kb * 1e3),
            settings.header_timeout_s,
            settings.body_timeout_s,
            settings.max_connections,
            settings.keep_alive_s,
            settings.answer_s,
        )

    def kept_s(self, given: float) -> float:
        """Return how long an idle connection is kept, by what uvicorn was told; its default is not a choice.

        Proxies keep connections for a minute. A request that meets one being closed fails: nobody may send it twice.
        """
        return self.idle_s if given == UVICORNS_KEEP_ALIVE_S else given


class Wait:
    """What a worker waits for on one connection, and since when; one of them serves the connection for its life.

    Attributes:
        seconds: of waiting for the same.
        still_s: since the caller last moved a byte.
        slow: it is the caller who is waited for, and who hardly moves.
    """

    def __init__(self) -> None:
        self.seconds = self.still_s = 0.0
        self.slow = False
        self._awaited: tuple[str, object] = ("", None)
        self._began = self._moved = 0.0
        self._first = self._mark = 0

    def note(self, what: str, request: object, mark: int, now: float) -> None:
        """Note what is waited for now.

        Args:
            what: "head", "body" or "reader" of the caller; others are no fault of theirs.
            request: of which.
            mark: bytes that tell whether the caller moves.
            now: seconds of the loop's clock.
        """
        if (what, request) != self._awaited:
            self._awaited, self._began, self._moved, self._first = (what, request), now, now, mark
        if mark != self._mark:
            self._mark, self._moved = mark, now
        self.seconds, self.still_s = now - self._began, now - self._moved
        moved = abs(mark - self._first)
        waits = what in ("head", "body", "reader") and self.seconds >= SLOW_S
        self.slow = waits and moved < self.seconds * LEAST_BYTES_PER_S


class Watched(Protocol):
    """A connection, as the watch sees it.

    Attributes:
        transport: what it runs on; None before it has begun.
        wait: as of the last look.
        idle: no request is being read to its end or answered.
    """

    transport: Any
    wait: Wait

    @property
    def idle(self) -> bool: ...

    def part(self) -> None:
        """Let the answer that is under way be the last one."""

    def look(self, now: float) -> None:
        """Note what is waited for, and end a wait that has become too long."""


class Watch:
    """Looks at a server's connections twice a second.

    Args:
        connections: of the server, which adds and removes them.
        loop: of the server.
        wanted: connections that the settings allow at once.

    Attributes:
        most: connections open at once.
        parting: each connection ends with its next answer.
    """

    def __init__(self, connections: set[Watched], loop: asyncio.AbstractEventLoop, wanted: int) -> None:
        self.most = connections_that_fit(wanted, MAX_LINGERING)
        self.parting = False
        self._connections = connections
        self._loop = loop
        self._idle: list[Watched] = []
        self._slow: list[Watched] = []
        self._refusals: dict[str, int] = {}
        self._complained = loop.time()
        loop.call_later(LOOK_S, self._look)
        _watches.add(self)

    def count(self, kind: str) -> None:
        """Count a refusal for the log."""
        self._refusals[kind] = self._refusals.get(kind, 0) + 1

    def make_room(self) -> bool:
        """Close the connection that has been idle for longest, and for a second at least, or the slow caller who has
        been waited for longest; return whether there was one. Callers who hold connections without asking, or ask
        without end, must not keep the others out."""
        while self._idle:
            connection = self._idle.pop()
            if connection.idle and connection in self._connections:
                return self._drop(connection, "idle connections, to make room")
        while self._slow:
            connection = self._slow.pop()
            if connection.wait.slow and connection in self._connections and not connection.transport.is_closing():
                return self._drop(connection, "slow callers, to make room")
        return False

    def _drop(self, connection: Watched, kind: str) -> bool:
        connection.transport.abort()
        self.count(kind)
        return True

    def part(self) -> None:
        """Send the callers elsewhere, each with an answer: one who asks on a connection that is closed unannounced
        can't know whether the request was heard."""
        self.parting = True
        for connection in list(self._connections):
            connection.part()

    def abort_all(self) -> None:
        left = [connection for connection in self._connections if connection.transport is not None]
        if left:
            logger.warning("%d connections are closed before their end: the time for stopping is over", len(left))
        for connection in left:
            connection.transport.abort()

    def _look(self) -> None:
        now = self._loop.time()
        waits: list[tuple[float, Watched]] = []
        slow: list[tuple[float, Watched]] = []
        try:
            for connection in list(self._connections):
                connection.look(now)
                wait = connection.wait
                if wait.seconds >= IDLE_S and connection.idle:
                    waits.append((wait.seconds, connection))
                elif wait.slow:
                    slow.append((wait.seconds, connection))
            for entries in (waits, slow):
                entries.sort(key=lambda entry: entry[0])
            self._idle = [connection for _, connection in waits]
            self._slow = [connection for _, connection in slow]
            self._complain(now)
        except Exception:
            logger.exception("looking at the connections failed")
        finally:
            self._loop.call_later(LOOK_S, self._look)

    def _complain(self, now: float) -> None:
        if self._refusals and now - self._complained >= COMPLAIN_S:
            self._complained = now
            said = ", ".join(f"{count} {kind}" for kind, count in self._refusals.items())
            self._refusals.clear()
            logger.warning("refused or closed: %s", said)


_watches: WeakSet[Watch] = WeakSet()
_reserved = 0
"""Files kept for connections that are counted elsewhere."""


def reserve(wanted: int) -> int:
    """Keep files for as many connections of another server of this process as there are of HTTP; return how many.

    Args:
        wanted: connections that the settings allow each of the two.
    """
    global _reserved
    _reserved = connections_that_fit(2 * wanted, MAX_LINGERING) // 2
    return _reserved


def part_all() -> None:
    """End every connection of this process with its next answer, which says so."""
    for watch in _watches:
        watch.part()


def abort_all() -> None:
    """Close every connection of this process, whatever is still to be read or written on it."""
    for watch in _watches:
        watch.abort_all()


def count_files() -> int:
    """Return how many files this process has opened."""
    return sum(1 for _ in Path("/dev/fd").iterdir())


def connections_that_fit(wanted: int, beyond: int) -> int:
    """Return the most connections to hold, raising the process's own limit of open files as far as it may.

    Without files left the system resets callers before anybody could tell them or the log why.

    Args:
        wanted: connections that the settings allow.
        beyond: more of them that are open for a moment to be refused.
    """
    try:
        import resource
    except ImportError:  # Windows counts otherwise
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    used = count_files() + _reserved
    needed = used + SPARE + wanted + beyond
    if soft < needed:
        most = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        soft = most
    # Where files are few, a part of what is left goes to connections, whatever else would want them.
    fit = max(soft - used - SPARE - beyond, (soft - used) // 2, 1)
    if fit < wanted:
        logger.warning(
            "at most %d connections at once: this process may open %d files (ulimit -n) and has opened %d; "
            "HONE_MAX_CONNECTIONS asks for %d", fit, soft, used, wanted,
        )  # fmt: skip
    return min(fit, wanted)
