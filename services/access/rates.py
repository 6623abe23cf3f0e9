"""Rate limits: so many requests a second for each caller, over all workers of a server and, with Redis, over replicas.

The generic cell rate algorithm (ITU-T I.371): all that is kept of a caller is the time at which its allowance would be
whole again. The workers of a server keep it in a mapped file, 16 bytes a caller, under record locks of the kernel: a
worker that is killed leaves no lock behind, and one that is stopped while it holds one delays nobody, because after a
few tries a decision is made without it, which can let one request too many through.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import struct
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from hone.errors import HoneError

from .callers import Caller, RateLimitedError
from .redis_rates import SharedRates

SLOTS = 8
BUCKETS = 1024
BUCKET = struct.Struct("<" + "Qd" * SLOTS)
SLOT = struct.Struct("<Qd")
TRIES = 20
TOLERANCE_S = 1e-6
MAX_REMEMBERED = 10_000


def allowance(whole_at: float, now: float, rate: float) -> tuple[float, float]:
    """Count a request against a caller's allowance, of `rate` requests at once, and at least one.

    Args:
        whole_at: when the allowance would be whole again, seconds. A time that can't be, after a clock went backwards,
            counts as an allowance that was just used up.
        now: seconds, of the same clock.
        rate: requests a second.

    Returns:
        (the new time at which it is whole, seconds to wait; 0 when the request may pass).
    """
    step = 1.0 / rate
    depth = max(1.0, rate) * step
    whole_at = min(max(whole_at, now), now + depth)
    wait = whole_at + step - now - depth
    if wait > TOLERANCE_S:
        return whole_at, wait
    return whole_at + step, 0.0


class RateTable:
    """The allowances of up to `BUCKETS * SLOTS` callers; of more, those that have most left are forgotten first.

    Args:
        file: shared by all workers of a server; None: of this process alone.

    Raises:
        HoneError: the file can't be made.
    """

    def __init__(self, file: Path | None = None) -> None:
        size = BUCKETS * BUCKET.size
        if file is None:
            self._handle = -1
            self._map = mmap.mmap(-1, size)
            return
        try:
            self._handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_EX)
            if os.fstat(self._handle).st_size < size:
                # Written, not only sized: a write to a hole of a mapped file on a full disk kills the process.
                os.pwrite(self._handle, bytes(size), 0)
            fcntl.flock(self._handle, fcntl.LOCK_UN)
            self._map = mmap.mmap(self._handle, size)
        except (OSError, ValueError) as error:
            raise HoneError(f"{file}: rate limits can't be kept there: {error}") from None

    def take(self, key: int, rate: float, now: float) -> float:
        """Count a request of a caller; return the seconds to wait, 0 when it may pass.

        Args:
            key: of `caller_key`.
            rate: requests a second.
            now: seconds of a clock that all workers share.
        """
        bucket = key % BUCKETS
        locked = self._lock(bucket)
        try:
            offset = bucket * BUCKET.size
            slots = BUCKET.unpack_from(self._map, offset)
            keys = slots[::2]
            place = keys.index(key) if key in keys else min(range(SLOTS), key=lambda slot: slots[2 * slot + 1])
            whole_at, wait = allowance(slots[2 * place + 1] if keys[place] == key else now, now, rate)
            SLOT.pack_into(self._map, offset + place * SLOT.size, key, whole_at)
            return wait
        finally:
            if locked:
                fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, bucket)

    def _lock(self, bucket: int) -> bool:
        if self._handle < 0:
            return False
        for _ in range(TRIES):
            try:
                fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, bucket)
                return True
            except OSError:
                continue
        return False


@lru_cache(MAX_REMEMBERED)
def caller_key(identity: str) -> int:
    """Return a number that stands for a caller; never 0, which stands for nobody."""
    return int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "little") | 1


class RateLimiter:
    """Decides whether a caller may pass.

    Args:
        table: of the server.
        default_per_s: for callers without a limit of their own; None: no limit.
        shared: of the replicas, or None.
        clock: seconds, the same in all workers.
    """

    def __init__(
        self,
        table: RateTable,
        default_per_s: float | None = None,
        shared: SharedRates | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._table = table
        self._default = default_per_s
        self._shared = shared
        self._clock = clock

    def take_now(self, caller: Caller) -> bool:
        """Count a request when that needs no waiting; False: ask `take`.

        Raises:
            RateLimitedError: the caller has used its rate up.
        """
        rate = caller.rate_per_s or self._default
        if rate is None:
            return True
        wait: float | None = None
        if self._shared is not None:
            wait = self._shared.take(caller.id, rate)
            if wait is not None and wait < 0.0:
                return False
        self._decide(caller, rate, wait)
        return True

    async def take(self, caller: Caller) -> None:
        """Count a request.

        Raises:
            RateLimitedError: the caller has used its rate up.
        """
        rate = caller.rate_per_s or self._default
        if rate is None:
            return
        wait = None if self._shared is None else await self._shared.wait_and_take(caller.id, rate)
        self._decide(caller, rate, wait)

    def _decide(self, caller: Caller, rate: float, wait: float | None) -> None:
        if wait is None:  # no Redis, or none that answers
            wait = self._table.take(caller_key(caller.id), rate, self._clock())
        if wait > 0.0:
            raise RateLimitedError(f"over the limit of {rate:g} requests a second", wait)

    async def close(self) -> None:
        if self._shared is not None:
            await self._shared.close()
