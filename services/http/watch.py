"""One look at all connections of a worker, twice a second: who waits for too long, who is idle, who was refused."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

if TYPE_CHECKING:
    from .connections import Connection

logger = logging.getLogger("hone.serving")

LOOK_S = 0.5
COMPLAIN_S = 10.0
"""Refusals are counted and logged at most so often: whoever makes them must not fill the log."""

MAX_LINGERING = 32
"""Connections over the limit that get an answer; more are closed without."""

SLOW_S = 2.0
LEAST_BYTES_PER_S = 50_000
"""Whom a worker has waited for so long while fewer bytes moved loses the connection when another one needs room."""

SPARE = 64
"""Files that a worker may still open: models, logs, metrics, other servers."""


class Watch:
    """Looks at a server's connections twice a second.

    Attributes:
        most: connections open at once.
    """

    def __init__(self, connections: set[Any], loop: asyncio.AbstractEventLoop, wanted: int) -> None:
        self.most = connections_that_fit(wanted, MAX_LINGERING)
        self._connections = connections
        self._loop = loop
        self._idle: list[Connection] = []
        self._slow: list[Connection] = []
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
            if connection.slow and connection in self._connections and not connection.transport.is_closing():
                return self._drop(connection, "slow callers, to make room")
        return False

    def _drop(self, connection: Connection, kind: str) -> bool:
        connection.transport.abort()
        self.count(kind)
        return True

    def abort_all(self) -> None:
        left = [connection for connection in self._connections if connection.transport is not None]
        if left:
            logger.warning("%d connections are closed before their end: the time for stopping is over", len(left))
        for connection in left:
            connection.transport.abort()

    def _look(self) -> None:
        now = self._loop.time()
        waits: list[tuple[float, Connection]] = []
        slow: list[tuple[float, Connection]] = []
        try:
            for connection in list(self._connections):
                waited = connection.look(now)
                if waited >= 1.0 and connection.idle:
                    waits.append((waited, connection))
                elif connection.slow:
                    slow.append((waited, connection))
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
