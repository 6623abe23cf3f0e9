"""The prediction cache that replicas share, in Redis."""

from __future__ import annotations

import asyncio

from .redis_client import PREFIX, Breaker, connect, error_name

TIMEOUT_S = 0.02
MAX_PUTS = 64
"""Writes that may be on their way; more are dropped."""


class RedisCache:
    """Bytes by key in Redis.

    Args:
        url: redis:// or rediss://; a password in it is never logged.
        ttl_s: age at which Redis drops an entry.
        timeout_s: of one look; a slower Redis counts as failing.

    Raises:
        HoneError: the client isn't installed, or the URL is wrong.
    """

    def __init__(self, url: str, ttl_s: float, timeout_s: float = TIMEOUT_S) -> None:
        self._client = connect(url, timeout_s)
        self._ttl_ms = max(1, int(ttl_s * 1e3))
        self._timeout_s = timeout_s
        self._breaker = Breaker()
        self._puts: set[asyncio.Task[None]] = set()

    async def get(self, key: bytes) -> bytes | None:
        """Return the bytes of a key; None when it has none, fails or is too slow."""
        if not self._breaker.allows():
            return None
        try:
            found: bytes | None = await asyncio.wait_for(self._client.get(PREFIX + key), self._timeout_s * 6)
        except Exception as error:  # noqa: BLE001 - whatever fails in the cache, the model still answers
            self._breaker.failed(error_name(error))
            return None
        self._breaker.succeeded()
        return found

    def put_soon(self, key: bytes, content: bytes) -> None:
        """Write without waiting; dropped while Redis fails or too many writes are on their way."""
        if self._breaker.open or len(self._puts) >= MAX_PUTS:
            return
        task = asyncio.get_running_loop().create_task(self._put(key, content))
        self._puts.add(task)
        task.add_done_callback(self._puts.discard)

    async def _put(self, key: bytes, content: bytes) -> None:
        try:
            await asyncio.wait_for(self._client.set(PREFIX + key, content, px=self._ttl_ms), self._timeout_s * 10)
        except Exception as error:  # noqa: BLE001 - as above
            self._breaker.failed(error_name(error))

    async def close(self) -> None:
        """Let writes end, then close the connections."""
        if self._puts:
            await asyncio.wait(self._puts, timeout=1.0)
        await self._client.aclose()
