"""The shared cache with a real Redis: across caches, with a password, killed, silent, and back again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time

import numpy as np
import pytest

from hone.services.cache.predictions import MemoryCache, PredictionCache
from hone.services.cache.redis_cache import RedisCache
from hone.services.launch import free_port
from hone.signature import Tensors
from tests.servers import redis

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


def cache(url: str) -> PredictionCache:
    return PredictionCache(MemoryCache(100_000, 60.0), RedisCache(url, 60.0, timeout_s=0.1))


async def answer() -> Tensors:
    return {"y": np.arange(3, dtype=np.float32), "label": np.array(["a", "b", "c"], dtype=object)}


async def look(target: PredictionCache, key: bytes) -> str:
    seen: list[str] = []
    outputs = await target.get_or_compute(key, answer, seen.append)
    np.testing.assert_array_equal(outputs["y"], np.arange(3, dtype=np.float32))
    assert outputs["label"].tolist() == ["a", "b", "c"]
    return seen[0]


async def settle() -> None:
    await asyncio.sleep(0.2)


def test_replicas_share_predictions() -> None:
    port = free_port()

    async def main() -> None:
        url = f"redis://:secret@127.0.0.1:{port}/0"
        first, second = cache(url), cache(url)
        assert await look(first, b"k") == "miss"
        await settle()
        assert await look(second, b"k") == "remote_hit"
        assert await look(second, b"k") == "memory_hit"
        await first.close()
        await second.close()

    with redis(port, "--requirepass", "secret"):
        asyncio.run(main())


def test_killed_redis_fails_nothing_and_is_used_again(caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()

    async def main() -> None:
        target = cache(f"redis://:secret@127.0.0.1:{port}/0")
        with redis(port, "--requirepass", "secret") as process:
            assert await look(target, b"before") == "miss"
            await settle()
            process.kill()
            process.wait()
            for index in range(10):
                assert await look(target, b"during%d" % index) == "miss"
        with redis(port, "--requirepass", "secret"):
            for index in range(60):
                await look(target, b"after%d" % index)
                await asyncio.sleep(0.1)
                fresh = cache(f"redis://:secret@127.0.0.1:{port}/0")
                if await look(fresh, b"after%d" % index) == "remote_hit":
                    break
                await fresh.close()
            else:
                pytest.fail("Redis was not used again")

    asyncio.run(main())
    assert caplog.text.count("left alone for now") == 1
    assert "secret" not in caplog.text


def test_silent_redis_slows_nothing_for_long() -> None:
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> int:
        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        target = cache(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0")
        for index in range(50):
            assert await look(target, b"k%d" % index) == "miss"
        assert target._remote is not None
        waited = target._remote._breaker._failures
        server.close()
        return waited

    assert asyncio.run(main()) <= 10  # tried a few times, then left alone: most of the fifty never waited


def test_foreign_bytes_are_computed_anew() -> None:
    port = free_port()

    async def main() -> None:
        target = cache(f"redis://127.0.0.1:{port}/0")
        assert target._remote is not None
        await target._remote._client.set(b"hone:1:k", b"\x80\x04pickle")
        assert await look(target, b"k") == "miss"

    with redis(port):
        asyncio.run(main())


def test_stopped_redis_slows_nothing_for_long() -> None:
    port = free_port()

    async def main(process_id: int) -> float:
        target = cache(f"redis://127.0.0.1:{port}/0")
        assert await look(target, b"before") == "miss"
        os.kill(process_id, signal.SIGSTOP)
        started = time.monotonic()
        for index in range(200):
            assert await look(target, b"k%d" % index) == "miss"
        return time.monotonic() - started

    with redis(port) as process:
        assert asyncio.run(main(process.pid)) < 10  # each of two hundred would wait 0.6 s
