"""gRPC's connections: who is silent, and closing those when there is no room for others.

gRPC's server accepts connections on its own and shows nobody which are open. But their sockets are this process's
files: what is read here are those. A connection is only ever shut down, never closed: gRPC sees the end of it, as if
its caller had gone.
"""

from __future__ import annotations

import asyncio
import ipaddress
import math
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ..http.watch import count_files, logger

LOOK_S = 0.5
COMPLAIN_S = 10.0
IDLE_S = 1.0
"""A connection is closed to make room only when nothing came on it for so long and no call runs on it."""

LAST_RECEIVED = slice(52, 56)
"""Milliseconds since the last data came, in Linux's TCP_INFO."""


@dataclass(frozen=True, slots=True)
class _Open:
    """A connection that was found: its file, its other end, and how long it has been silent, in seconds."""

    handle: int
    address: str
    port: int
    silent_s: float


class Connections:
    """Those of a gRPC server.

    Args:
        most: open at once; gRPC refuses more by itself.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.port = 0
        self.busy: Counter[str] = Counter()
        self._known: set[str] = set()
        self._base = count_files()
        self._dropped = 0
        self._complained = -math.inf
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, port: int) -> None:
        """Make room from now on among the connections to a port."""
        self.port = port
        self._base = count_files()
        self._later(asyncio.get_running_loop())

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    @contextmanager
    def call(self, peer: str) -> Iterator[None]:
        """Keep a connection while a call of somebody who may runs on it; later it is one of the last to be closed."""
        self.busy[peer] += 1
        self._known.add(peer)
        try:
            yield
        finally:
            self.busy[peer] -= 1
            if not self.busy[peer]:
                del self.busy[peer]

    def silent_s(self, peers: set[str]) -> dict[str, float]:
        """Return for how long nothing has come from each of these, in seconds; gone ones are left out."""
        wanted = {_end_of(peer): peer for peer in peers}
        found = {(one.address, one.port): one.silent_s for one in self._open()}
        return {peer: found[end] for end, peer in wanted.items() if end in found}

    def _later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(LOOK_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            if len(self._known) > 4 * self.most:
                self._known = set(self.busy)
            # Files are counted first: it is cheap, and while they are few, so are the connections.
            if count_files() - self._base >= self.most * 3 // 4:
                self._make_room()
            if self._dropped and loop.time() - self._complained >= COMPLAIN_S:
                self._complained = loop.time()
                logger.warning("closed %d idle gRPC connections to make room", self._dropped)
                self._dropped = 0
        except Exception:  # noqa: BLE001 - logged, and the next look goes on
            logger.exception("looking at the gRPC connections failed")
        finally:
            self._later(loop)

    def _make_room(self) -> None:
        """Leave a quarter free: close connections without a call, of the addresses with the most.

        Those that never made a call they may make go first, then those that have been silent for longest.
        """
        found = list(self._open())
        over = len(found) - self.most * 3 // 4
        if over <= 0:
            return
        busy, known = ({_end_of(peer) for peer in peers} for peers in (self.busy, self._known))
        held = Counter(one.address for one in found)
        idle = [one for one in found if one.silent_s >= IDLE_S and (one.address, one.port) not in busy]
        idle.sort(key=lambda one: ((one.address, one.port) in known, -one.silent_s))
        for _ in range(over):
            if not idle:
                return
            one = max(idle, key=lambda entry: held[entry.address])
            idle.remove(one)
            held[one.address] -= 1
            self._dropped += _shut(one)

    def _open(self) -> Iterator[_Open]:
        for file in Path("/dev/fd").iterdir():
            found = _look_at(int(file.name), self.port)
            if found is not None:
                yield found


@contextmanager
def _borrowed(handle: int) -> Iterator[socket.socket]:
    """Yield the socket of a file that belongs to somebody else, and leave it open."""
    borrowed = socket.socket(fileno=handle)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _look_at(handle: int, port: int) -> _Open | None:
    try:
        with _borrowed(handle) as connection:
            if connection.family not in (socket.AF_INET, socket.AF_INET6) or connection.getsockname()[1] != port:
                return None
            address, other = connection.getpeername()[:2]
            return _Open(handle, _plain(address), other, _silent_s(connection))
    except OSError:  # no socket, none that is connected, or gone by now
        return None


def _silent_s(connection: socket.socket) -> float:
    if not hasattr(socket, "TCP_INFO"):
        return math.inf
    state = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, LAST_RECEIVED.stop)
    return int.from_bytes(state[LAST_RECEIVED], "little") / 1e3


def _shut(one: _Open) -> bool:
    """Shut a connection down, where its file is still the one that was looked at."""
    try:
        with _borrowed(one.handle) as connection:
            address, port = connection.getpeername()[:2]
            if (_plain(address), port) != (one.address, one.port):
                return False
            connection.shutdown(socket.SHUT_RDWR)
    except (OSError, ValueError, TypeError):
        return False
    return True


def address_of(peer: str) -> str:
    """Return the address in gRPC's name of a connection's other end."""
    return _end_of(peer)[0]


def _end_of(peer: str) -> tuple[str, int]:
    """Return address and port in gRPC's name of a connection's other end, such as ipv6:%5B::1%5D:3500."""
    host, _, port = unquote(peer).partition(":")[2].rpartition(":")
    return _plain(host.strip("[]")), int(port) if port.isdigit() else 0


def _plain(address: str) -> str:
    """Return an address as IPv4 where it is one that is written as IPv6."""
    if not address.startswith("::ffff:"):
        return address
    mapped = ipaddress.IPv6Address(address.partition("%")[0]).ipv4_mapped
    return str(mapped or address)
