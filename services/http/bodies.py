"""Larger bodies: how many bytes of them a worker holds at once, and decoding them beside the event loop.

A body of a few kilobytes is read and decoded where it arrives. A larger one would hold up every other caller while it
is decoded, and forty of them at once would take forty times the memory. So its bytes are taken from a budget before
they are read and given back when it has been computed; who finds the budget spent waits a little, unread.

A caller who sends nothing holds nothing: the first kilobytes come before the rest is asked for. One who then sends
slowly is ended when others wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from .budget import WAIT_S, Budget, Pace
from .failures import BodyTooLargeError, SlowBodyError
from .reading import check_length, opener_of, read_rest, too_large
from .responses import OFFLOAD_BYTES, Body, ClientGoneError, Head, Receive

T = TypeVar("T")

DECODERS = 2
"""Decoded at once. Nested lists take many times the bytes of their text while they are read."""


class Bodies(Budget):
    """The larger bodies of a worker.

    Args:
        budget: bytes held at once.
        wait_s: for others to give some back.
    """

    def __init__(self, budget: int, wait_s: float = WAIT_S) -> None:
        super().__init__(budget, wait_s)
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decode")

    async def beside(self, work: Callable[[], T]) -> T:
        """Run work in one of the threads that decode bodies and encode answers."""
        return await asyncio.get_running_loop().run_in_executor(self._decoders, work)

    def close(self) -> None:
        """Let the threads end."""
        self._decoders.shutdown(wait=False)


class LargeBody:
    """A body that may be large: of more than some kilobytes, of unknown length, or compressed.

    Args:
        head: of its request.
        receive: gives it.
        limit: of its bytes, packed or not.
        bodies: of the worker.
    """

    def __init__(self, head: Head, receive: Receive, limit: int, bodies: Bodies) -> None:
        self._encoding = head.get(b"content-encoding", b"identity").strip().lower()
        self._declared = check_length(head, limit)
        self._receive = receive
        self._limit = limit
        self._bodies = bodies
        self._held = 0

    async def decode(self, decoder: Callable[[Body], T], quick_bytes: int) -> T:
        """Return what a decoder makes of the body.

        Args:
            decoder: may run in a thread.
            quick_bytes: a body up to this size is decoded at once where it is.

        Raises:
            as read_body, and what the decoder raises.
            OverloadedError: the worker holds enough large bodies.
        """
        opener = opener_of(self._encoding)
        body, complete = await self._begin()
        if complete and len(body) <= OFFLOAD_BYTES:
            if opener is None:
                return decoder(body)
            try:
                opened = opener(body, min(OFFLOAD_BYTES, self._limit))
            except BodyTooLargeError:
                pass  # it isn't small once it is open
            else:
                return decoder(opened)
        await self._hold(len(body) if complete else self._declared or self._limit, opener is not None)
        if not complete:
            body = await self._rest(body)
        if opener is None:
            return decoder(body) if len(body) <= quick_bytes else await self._bodies.beside(lambda: decoder(body))
        return await self._bodies.beside(lambda: decoder(opener(body, self._limit)))

    async def _begin(self) -> tuple[Body, bool]:
        """Return the body and True, or of a larger one what has come and False."""
        gathered = bytearray()
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            gathered += message.get("body", b"")
            if len(gathered) > self._limit:
                raise too_large(self._limit)
            if not message.get("more_body"):
                return gathered, True
            if len(gathered) > OFFLOAD_BYTES:
                return gathered, False

    async def _rest(self, first: Body) -> Body:
        """Return the whole body; raises SlowBodyError when it comes slowly and others wait."""
        try:
            async with self._bodies.paced() as pace:
                return await read_rest(first, partial(self._counted, pace), self._limit)
        except TimeoutError:
            raise SlowBodyError from None

    async def _counted(self, pace: Pace) -> MutableMapping[str, Any]:
        message = await self._receive()
        pace.moved += len(message.get("body", b""))
        return message

    async def _hold(self, size: int, packed: bool) -> None:
        """Take at once what the body, and what it unpacks to, may need: parts of it could be waited for in a circle."""
        size += self._limit if packed else 0
        await self._bodies.take(size)
        self._held = size

    def release(self) -> None:
        """Give the bytes back; to be called when the request has been computed, or failed."""
        if self._held:
            self._bodies.give(self._held)
            self._held = 0
