"""A budget of bytes: who wants some waits in order, and who holds some for a slow caller loses it to others."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from .failures import OverloadedError

WAIT_S = 5.0
"""For the budget; then the caller is told to try again."""

LOOK_S = 0.25
GRACE_S = 1.0
LEAST_BYTES_PER_S = 100_000
"""Who moves fewer bytes, and has held some of the budget for GRACE_S, may lose them when others wait."""


class Pace:
    """How fast the bytes of one caller move.

    Attributes:
        moved: bytes, so far.
    """

    def __init__(self, timer: asyncio.Timeout, began: float) -> None:
        self.moved = 0
        self._timer = timer
        self._began = began

    def rate(self, now: float) -> float:
        """Return bytes a second; infinity for who has just begun, or has been ended."""
        held = now - self._began
        return self.moved / held if held >= GRACE_S and self._timer.when() is None else float("inf")

    def end(self, now: float) -> None:
        self._timer.reschedule(now)


class Budget:
    """Bytes of one kind that a worker holds at once.

    Args:
        budget: of them.
        wait_s: for others to give some back.
        what: they are held for, in the message to who waited in vain.
        setting: of the budget.
    """

    def __init__(
        self, budget: int, wait_s: float = WAIT_S, what: str = "large bodies", setting: str = "HONE_BODIES_MB"
    ) -> None:
        self._left = self._budget = budget
        self._wait_s = wait_s
        self._what, self._setting = what, setting
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._paces: set[Pace] = set()
        self._looking = False

    async def take(self, size: int) -> int:
        """Take bytes from the budget, in the order of asking.

        Returns:
            how many: who asks for more than there are gets all.

        Raises:
            OverloadedError: others kept theirs for too long.
        """
        size = min(size, self._budget)
        if not self._waiting and size <= self._left:
            self._left -= size
            return size
        loop = asyncio.get_running_loop()
        given: asyncio.Future[None] = loop.create_future()
        entry = (size, given)
        self._waiting.append(entry)
        if not self._looking:
            self._looking = True
            self._look(loop)
        try:
            async with asyncio.timeout(self._wait_s):
                await given
        except BaseException as error:
            if given.done() and not given.cancelled():
                self.give(size)  # it came in the moment of giving up
            else:
                with suppress(ValueError):  # others, served in that moment, have passed it over
                    self._waiting.remove(entry)
                self._serve()
            if isinstance(error, TimeoutError):
                raise OverloadedError(
                    f"the service holds as many {self._what} as it may; send fewer at once, or raise {self._setting}"
                ) from None
            raise
        return size

    def give(self, size: int) -> None:
        """Give bytes back."""
        self._left += min(size, self._budget)
        self._serve()

    def _serve(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._left:
            size, given = self._waiting.popleft()
            if not given.done():
                self._left -= size
                given.set_result(None)

    @asynccontextmanager
    async def paced(self) -> AsyncIterator[Pace]:
        """Give a pace to tell what has moved of what is held; leaving it early when it is the slowest and others wait.

        Raises:
            TimeoutError: it was ended.
        """
        async with asyncio.timeout(None) as timer:
            pace = Pace(timer, asyncio.get_running_loop().time())
            self._paces.add(pace)
            try:
                yield pace
            finally:
                self._paces.discard(pace)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the slowest caller that bytes are held for, again and again while others wait for some."""
        self._looking = bool(self._waiting)
        if not self._looking:
            return
        now = loop.time()
        slowest = min(self._paces, key=lambda pace: pace.rate(now), default=None)
        if slowest is not None and slowest.rate(now) < LEAST_BYTES_PER_S:
            slowest.end(now)
        loop.call_later(LOOK_S, self._look, loop)
