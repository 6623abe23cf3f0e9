"""The budget of large bodies: order, waiting, giving up, and how each kind of body is read."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from hone.services.http.bodies import Bodies, LargeBody
from hone.services.http.failures import BodyTooLargeError, OverloadedError, SlowBodyError

LIMIT = 1_000_000


def receiver(*pieces: bytes) -> Callable[[], Awaitable[dict[str, Any]]]:
    messages = [
        {"type": "http.request", "body": piece, "more_body": index + 1 < len(pieces)}
        for index, piece in enumerate(pieces)
    ]

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    return receive


def test_budget_is_given_in_the_order_of_asking() -> None:
    async def run() -> list[int]:
        bodies, order = Bodies(100), []

        async def one(number: int, size: int) -> None:
            await bodies.take(size)
            order.append(number)
            await asyncio.sleep(0)
            bodies.give(size)

        await asyncio.gather(one(0, 60), one(1, 90), one(2, 10), one(3, 100), one(4, 500))
        return order

    assert asyncio.run(run()) == [0, 1, 2, 3, 4]


def test_waiting_ends_and_the_others_get_what_was_asked_for() -> None:
    async def run() -> None:
        bodies = Bodies(100, wait_s=0.05)
        await bodies.take(50)
        with pytest.raises(OverloadedError, match="HONE_BODIES_MB") as caught:
            await bodies.take(60)
        assert caught.value.headers[0][0] == "retry-after"
        blocked = asyncio.create_task(bodies.take(60))
        behind = asyncio.create_task(bodies.take(50))
        await asyncio.sleep(0)
        blocked.cancel()
        await behind
        bodies.give(100)
        await bodies.take(100)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("head", "pieces", "in_thread"),
    [
        ({}, (b"x" * 10, b"y" * 10), False),
        ({}, (b"x" * 60_000, b"y" * 60_000), True),
        ({b"content-length": b"500000"}, (b"x" * 500_000,), True),
        ({b"content-encoding": b"gzip"}, (gzip.compress(b"x" * 1000),), False),
        ({b"content-encoding": b"gzip"}, (gzip.compress(b"x" * 900_000),), True),
        ({b"content-encoding": b"identity"}, (b"x" * 100,), False),
    ],
)
def test_large_bodies_are_decoded_in_a_thread_within_the_budget(
    head: dict[bytes, bytes], pieces: tuple[bytes, ...], in_thread: bool
) -> None:
    async def run() -> None:
        bodies = Bodies(2 * LIMIT)
        large = LargeBody(head, receiver(*pieces), LIMIT, bodies)
        size, thread = await large.decode(lambda body: (len(body), threading.current_thread().name), 65_536)
        whole = b"".join(pieces)
        assert size == len(gzip.decompress(whole) if head.get(b"content-encoding") == b"gzip" else whole)
        assert thread.startswith("decode") is in_thread
        assert (bodies._left < 2 * LIMIT) is in_thread
        large.release()
        assert bodies._left == 2 * LIMIT

    asyncio.run(run())


@pytest.mark.parametrize(
    ("head", "pieces"),
    [
        ({}, (b"x" * 600_000, b"y" * 600_000)),
        ({b"content-length": b"1000001"}, (b"",)),
        ({b"content-encoding": b"gzip"}, (gzip.compress(b"x" * 1_000_001),)),
    ],
)
def test_body_over_the_limit_is_refused_and_gives_its_bytes_back(
    head: dict[bytes, bytes], pieces: tuple[bytes, ...]
) -> None:
    async def run() -> None:
        bodies = Bodies(2 * LIMIT)
        with pytest.raises(BodyTooLargeError):
            large = LargeBody(head, receiver(*pieces), LIMIT, bodies)
            try:
                await large.decode(len, 65_536)
            finally:
                large.release()
        assert bodies._left == 2 * LIMIT

    asyncio.run(run())


def test_waiter_who_leaves_in_the_moment_of_a_gift_leaves_no_trace() -> None:
    async def run() -> None:
        bodies = Bodies(100)
        await bodies.take(100)
        waiter = asyncio.create_task(bodies.take(60))
        await asyncio.sleep(0)
        waiter.cancel()
        bodies.give(100)  # in the same turn of the loop
        with pytest.raises(asyncio.CancelledError):
            await waiter
        await bodies.take(100)

    asyncio.run(run())


def test_declared_body_holds_nothing_before_any_of_it_has_come() -> None:
    async def run() -> None:
        bodies = Bodies(LIMIT)
        never = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await never.wait()
            return {}

        head = {b"content-length": b"900000", b"content-encoding": b"gzip"}
        waiting = asyncio.create_task(LargeBody(head, receive, LIMIT, bodies).decode(len, 65_536))
        await asyncio.sleep(0.01)
        assert bodies._left == LIMIT
        waiting.cancel()

    asyncio.run(run())


def test_slowest_body_is_ended_when_another_waits_and_a_quick_one_is_not() -> None:
    async def run() -> None:
        bodies, first = Bodies(LIMIT), {"type": "http.request", "body": b"x" * 70_000, "more_body": True}

        def sender(pause_s: float, size: int) -> Callable[[], Awaitable[dict[str, Any]]]:
            messages = [first]

            async def receive() -> dict[str, Any]:
                if messages:
                    return messages.pop()
                await asyncio.sleep(pause_s)
                return {"type": "http.request", "body": b"y" * size, "more_body": True}

            return receive

        head = {b"content-length": b"500000"}
        slow = LargeBody(head, sender(0.1, 1), LIMIT, bodies)
        quick = LargeBody(head, sender(0.2, 60_000), LIMIT, bodies)
        reading = [asyncio.create_task(body.decode(len, 65_536)) for body in (slow, quick)]
        await asyncio.sleep(0.1)
        asked = asyncio.create_task(bodies.take(400_000))
        with pytest.raises(SlowBodyError) as caught:
            await reading[0]
        assert (caught.value.status, reading[1].done()) == (408, False)
        slow.release()
        await asked
        reading[1].cancel()

    asyncio.run(run())
