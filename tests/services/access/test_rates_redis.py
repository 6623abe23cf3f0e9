"""Rate limits over replicas with a real Redis: shared, killed, stopped, and back again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time

import pytest

from hone.services.access.callers import Caller, RateLimitedError
from hone.services.access.rates import RateLimiter, RateTable
from hone.services.access.redis_rates import SharedRates
from hone.services.launch import free_port
from tests.servers import redis

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


def replica(port: int, timeout_s: float = 1.0) -> RateLimiter:
    return RateLimiter(RateTable(), None, SharedRates(f"redis://:secret@127.0.0.1:{port}/0", timeout_s))


async def passes(limiter: RateLimiter, caller: Caller) -> bool:
    try:
        if not limiter.take_now(caller):
            await limiter.take(caller)
    except RateLimitedError:
        return False
    return True


async def count(limiters: list[RateLimiter], caller: Caller, seconds: float) -> int:
    """Return how many requests pass while all replicas are asked as fast as they answer."""
    deadline, passed = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        passed += sum(await asyncio.gather(*(passes(limiter, caller) for limiter in limiters)))
        await asyncio.sleep(0)
    return passed


def test_replicas_share_an_allowance_and_seldom_wait() -> None:
    port = free_port()
    caller = Caller("ann", frozenset(), 200.0)

    async def main() -> tuple[int, float, int]:
        limiters = [replica(port) for _ in range(3)]
        started = time.monotonic()
        passed = await count(limiters, caller, 2.0)
        seconds = time.monotonic() - started
        asked = int((await limiters[0]._shared._client.info("commandstats"))["cmdstat_evalsha"]["calls"])  # type: ignore[union-attr]
        for limiter in limiters:
            await limiter.close()
        return passed, seconds, asked

    with redis(port, "--requirepass", "secret"):
        passed, seconds, asked = asyncio.run(main())
    # An allowance at once, then the rate; what was leased and lost may be missing.
    assert 0.6 * 200 * (1 + seconds) < passed <= 200 * (1 + seconds) + 3
    assert asked < passed


def test_low_limits_are_exact_over_replicas() -> None:
    port = free_port()
    caller = Caller("ann", frozenset(), 0.5)

    async def main() -> list[bool]:
        limiters = [replica(port) for _ in range(4)]
        return [await passes(limiter, caller) for limiter in limiters]

    with redis(port, "--requirepass", "secret"):
        assert asyncio.run(main()) == [True, False, False, False]


def test_dead_redis_leaves_the_servers_own_limit(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    caller = Caller("ann", frozenset(), 5.0)

    async def main() -> None:
        limiter = replica(port)
        with redis(port, "--requirepass", "secret") as process:
            assert await count([limiter], caller, 0.3) >= 5
            process.kill()
            process.wait()
            await asyncio.sleep(1.1)  # what was leased has run out
            assert 5 <= await count([limiter], caller, 1.0) <= 12
        with redis(port, "--requirepass", "secret"):
            other = replica(port)
            for _ in range(100):
                await passes(limiter, caller)
                await asyncio.sleep(0.1)
                if "answers again" in caplog.text:
                    break
            assert await count([limiter, other], caller, 2.0) <= 16

    with caplog.at_level("INFO"):
        asyncio.run(main())
    assert caplog.text.count("the Redis of the rate limits is left alone for now") == 1
    assert "the Redis of the rate limits answers again" in caplog.text
    assert "secret" not in caplog.text


def test_stopped_redis_holds_requests_up_a_few_times_only() -> None:
    port = free_port()
    caller = Caller("ann", frozenset(), 1000.0)

    async def main(process_id: int) -> tuple[int, float]:
        limiter = replica(port, timeout_s=0.2)
        assert await passes(limiter, caller)
        os.kill(process_id, signal.SIGSTOP)
        await asyncio.sleep(1.1)
        started = time.monotonic()
        passed = sum([await passes(limiter, caller) for _ in range(500)])
        return passed, time.monotonic() - started

    with redis(port, "--requirepass", "secret") as process:
        passed, seconds = asyncio.run(main(process.pid))
    assert passed == 500
    assert seconds < 5  # three questions of 0.2 s; each of 500 requests would make 100
