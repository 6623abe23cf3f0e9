"""Reading gRPC messages: how many at once, in whose turn, and who makes room when others wait.

gRPC tells nobody how large a message is before it has it in memory, and nothing of how much has come. So few are read
at once, each of which may be of the largest size. A small one has come with its call and takes its place for a moment.
Places go round the callers, and round the connections of each; nobody gets all of them; and who doesn't send while
others wait is ended soon.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..http.bodies import Bodies
from ..http.failures import OverloadedError, RequestError
from ..http.responses import OFFLOAD_BYTES

READ_S = 30.0
"""So long a call may take to send its message while nobody waits for its place."""

PATIENCE_S = 5.0
"""So long it may take while others wait, and so long these wait."""

SILENCE_S = 1.0
"""So long while others wait when nothing comes on its connection."""

COPIES = 2
"""Of a message in memory while it is read: as it came in pieces, and in one."""

LOOK_S = 0.25
MAX_WAITING = 512
"""Calls that wait for a place; of more, the newest of the caller with the most is refused."""


@dataclass(eq=False, slots=True)
class _Turn:
    """A call that waits for its place (given), or has it and reads (limit)."""

    caller: str | bytes
    peer: str
    since: float
    given: asyncio.Future[None] | None = None
    limit: asyncio.Timeout | None = None


class Messages:
    """The messages that a worker reads.

    Args:
        bodies: the worker's larger bodies; a message counts as one once its size is known.
        largest: bytes of a message.
        budget: bytes of all that are read at once.
        silent_s: gives how long nothing came on a connection (gRPC's name of its other end); infinity where unknown.
    """

    def __init__(self, bodies: Bodies, largest: int, budget: int, silent_s: Callable[[set[str]], dict[str, float]]):
        self._bodies = bodies
        self._silent_s = silent_s
        self._places = max(4, budget // (COPIES * largest))
        self._each_caller = self._places * 3 // 4
        self._each_peer = max(2, self._places // 2)
        self._reading: set[_Turn] = set()
        self._held: Counter[str | bytes] = Counter()
        self._held_by_peer: Counter[str] = Counter()
        self._waiting: dict[str | bytes, dict[str, deque[_Turn]]] = {}
        self._asked: Counter[str | bytes] = Counter()
        self._looking = False

    async def read(self, context: Any, caller: str | bytes, peer: str) -> bytes:
        """Return a call's message. It must be given to `release` when the call is done.

        Args:
            context: of the call.
            caller: who shares places: a credential, or an address.
            peer: gRPC's name of the connection's other end.

        Raises:
            RequestError: none came, or not in time.
            OverloadedError: too many wait, or enough large messages are held.
        """
        turn = await self._take(caller, peer)
        try:
            raw = await _read(context, turn)
            if len(raw) > OFFLOAD_BYTES:
                await self._bodies.take(len(raw))
        finally:
            self._give(turn)
        return raw

    def release(self, size: int) -> None:
        """Give a message's bytes back."""
        if size > OFFLOAD_BYTES:
            self._bodies.give(size)

    async def _take(self, caller: str | bytes, peer: str) -> _Turn:
        loop = asyncio.get_running_loop()
        turn = _Turn(caller, peer, loop.time())
        if len(self._reading) < self._places and self._may(caller, peer) and peer not in self._waiting.get(caller, ()):
            self._begin(turn)
            return turn
        turn.given = loop.create_future()
        self._waiting.setdefault(caller, {}).setdefault(peer, deque()).append(turn)
        self._asked[caller] += 1
        if self._asked.total() > MAX_WAITING:
            self._refuse_newest()
        if not self._looking:
            self._looking = True
            loop.call_later(LOOK_S, self._look, loop)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await turn.given
        except BaseException as error:
            if turn in self._reading:
                self._give(turn)  # it came in the moment of giving up
            else:
                self._forget(turn)
            if isinstance(error, TimeoutError):
                raise OverloadedError("too many calls send their messages; try again") from None
            raise
        return turn

    def _may(self, caller: str | bytes, peer: str) -> bool:
        return self._held[caller] < self._each_caller and self._held_by_peer[peer] < self._each_peer

    def _begin(self, turn: _Turn) -> None:
        self._reading.add(turn)
        self._held[turn.caller] += 1
        self._held_by_peer[turn.peer] += 1

    def _give(self, turn: _Turn) -> None:
        self._reading.discard(turn)
        self._held[turn.caller] -= 1
        if not self._held[turn.caller]:
            del self._held[turn.caller]
        self._held_by_peer[turn.peer] -= 1
        if not self._held_by_peer[turn.peer]:
            del self._held_by_peer[turn.peer]
        while self._waiting and len(self._reading) < self._places:
            following = self._next()
            if following is None:
                return
            self._forget(following)
            if following.given is not None and not following.given.done():
                following.since = asyncio.get_running_loop().time()
                self._begin(following)
                following.given.set_result(None)

    def _next(self) -> _Turn | None:
        """Return whose turn it is; its caller, and of this one the connection, go to the end of their rows."""
        for caller, peers in self._waiting.items():
            if self._held[caller] >= self._each_caller:
                continue
            for peer, turns in peers.items():
                if self._held_by_peer[peer] < self._each_peer:
                    peers[peer] = peers.pop(peer)
                    self._waiting[caller] = self._waiting.pop(caller)
                    return turns[0]
        return None

    def _forget(self, turn: _Turn) -> None:
        """Take one that waits out of its rows, where it still is in them."""
        peers = self._waiting.get(turn.caller, {})
        turns = peers.get(turn.peer)
        if turns is None or turn not in turns:
            return
        turns.remove(turn)
        self._asked[turn.caller] -= 1
        if not turns:
            del peers[turn.peer]
        if not peers:
            del self._waiting[turn.caller], self._asked[turn.caller]

    def _refuse_newest(self) -> None:
        peers = self._waiting[max(self._asked, key=self._asked.__getitem__)]
        turn = max(peers.values(), key=len)[-1]
        self._forget(turn)
        if turn.given is not None and not turn.given.done():
            turn.given.set_exception(OverloadedError("too many calls at once; send fewer, or try again"))

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the calls that keep places from others who wait."""
        self._looking = bool(self._waiting)
        if not self._looking:
            return
        loop.call_later(LOOK_S, self._look, loop)
        now = loop.time()
        full = len(self._reading) >= self._places
        slow = [
            (now - turn.since, turn.peer, turn.limit)
            for turn in self._reading
            if turn.limit is not None and now - turn.since >= SILENCE_S and (full or turn.caller in self._waiting)
        ]
        if not slow:
            return
        silent = self._silent_s({peer for _, peer, _ in slow})
        slow.sort(key=lambda entry: -entry[0])
        for waited, peer, limit in slow[: self._asked.total()]:
            if waited >= PATIENCE_S or silent.get(peer, 0.0) >= SILENCE_S:
                limit.reschedule(now)


async def _read(context: Any, turn: _Turn) -> bytes:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(READ_S) as turn.limit:
            raw = await context.read()
    except TimeoutError:
        waited = loop.time() - turn.since
        raise RequestError(f"the message did not come in time: {waited:.0f} s passed") from None
    finally:
        turn.limit = None
    if isinstance(raw, bytes):
        return raw
    if context.done():
        raise asyncio.CancelledError  # gRPC has answered: the message is over its limit, or the caller has gone
    raise RequestError("the call came without a message")
