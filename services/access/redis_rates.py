"""Rate limits over replicas: the allowances are in Redis, and each worker takes a few requests' worth at a time.

So most requests wait for nothing. A worker that doesn't use what it took within a second gives nothing back: the limit
is never exceeded by more than a second's worth. While Redis is dead or slow the limit of the server itself counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..cache.redis_client import PREFIX, Breaker, connect, error_name

LEASE_S = 0.05
"""A worker takes what so many seconds bring, at least one request."""

LEASE_VALID_S = 1.0
TIMEOUT_S = 0.05
ASKED = -1.0
MAX_REMEMBERED = 10_000

# rates.py explains it. Times are Redis's own, in microseconds, so that the replicas' clocks don't matter.
SCRIPT = """
local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local step, depth, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local whole = tonumber(redis.call('GET', KEYS[1]) or now)
whole = math.min(math.max(whole, now), now + depth)
local given = math.min(wanted, math.floor((now + depth - whole) / step + 0.001))
if given > 0 then
  whole = whole + given * step
  redis.call('SET', KEYS[1], string.format('%.0f', whole), 'PX', math.ceil((whole - now) / 1000) + 1000)
end
return {given, math.ceil(whole + step - now - depth)}
"""


@dataclass
class _Lease:
    """What this worker holds of a caller's allowance.

    Attributes:
        requests: that may pass without asking.
        until: they count.
        refused_until: Redis has nothing before.
        asking: a question that is on its way.
    """

    requests: int = 0
    until: float = 0.0
    refused_until: float = 0.0
    asking: asyncio.Task[None] | None = None


class SharedRates:
    """Allowances in Redis.

    Args:
        url: redis:// or rediss://.
        timeout_s: of one question.
        clock: seconds, of this worker.
    """

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = connect(url, timeout_s)
        self._script: Any = self._client.register_script(SCRIPT)
        self._timeout_s = timeout_s
        self._clock = clock
        self._breaker = Breaker(what="the Redis of the rate limits")
        self._leases: OrderedDict[str, _Lease] = OrderedDict()

    def take(self, identity: str, rate: float) -> float | None:
        """Count a request of a caller when that needs no waiting.

        Returns:
            Seconds to wait, 0 when the request may pass; `ASKED` when Redis's answer is on its way; None while Redis
            doesn't answer.
        """
        lease, now = self._lease(identity), self._clock()
        if lease.requests > 0 and now < lease.until:
            lease.requests -= 1
            if lease.requests == 0 and _lease_size(rate) > 1:
                self._ask(identity, rate, lease)  # so that the next one needn't wait
            return 0.0
        if now < lease.refused_until:
            return lease.refused_until - now
        lease.requests = 0
        failing = self._breaker.open
        self._ask(identity, rate, lease)
        return None if failing or lease.asking is None else ASKED

    async def wait_and_take(self, identity: str, rate: float) -> float | None:
        """Count a request of a caller, after asking Redis where that is needed; returns what `take` does."""
        while True:
            taken = self.take(identity, rate)
            if taken != ASKED:
                return taken
            task = self._lease(identity).asking
            if task is not None:
                await asyncio.shield(task)

    def _lease(self, identity: str) -> _Lease:
        lease = self._leases.get(identity)
        if lease is None:
            lease = self._leases[identity] = _Lease()
            if len(self._leases) > MAX_REMEMBERED:
                self._leases.popitem(last=False)
        return lease

    def _ask(self, identity: str, rate: float, lease: _Lease) -> None:
        if lease.asking is None and self._breaker.allows():
            lease.asking = asyncio.get_running_loop().create_task(self._fetch(identity, rate, lease))

    async def _fetch(self, identity: str, rate: float, lease: _Lease) -> None:
        step = 1e6 / rate
        arguments = [step, max(1.0, rate) * step, _lease_size(rate)]
        key = PREFIX + b"rate:" + hashlib.blake2b(identity.encode(), digest_size=16).hexdigest().encode()
        try:
            given, wait_us = await asyncio.wait_for(self._script(keys=[key], args=arguments), self._timeout_s)
        except Exception as error:  # noqa: BLE001 - whatever fails in Redis, the server's own limit counts
            self._breaker.failed(error_name(error))
        else:
            self._breaker.succeeded()
            now = self._clock()
            lease.requests, lease.until = lease.requests + int(given), now + LEASE_VALID_S
            # A caller over its limit doesn't make a worker ask for each request that it brings.
            wait_s = max(int(wait_us), (_lease_size(rate) - 1) * step) / 1e6
            lease.refused_until = 0.0 if given else now + wait_s
        finally:
            lease.asking = None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _lease_size(rate: float) -> int:
    return max(1, int(rate * LEASE_S))
