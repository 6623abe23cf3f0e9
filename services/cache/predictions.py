"""The prediction cache: equal requests to the same artifact are computed once.

In memory by default, bounded by bytes and age, Redis behind it where one is configured. Keys are the artifact's digest
and the inputs' bytes, so a new version never answers with an old one's predictions. Concurrent equal requests share
one computation.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import struct
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from math import prod

import numpy as np
import orjson

from hone.signature import Tensors

from ..settings import Settings
from .redis_cache import RedisCache

logger = logging.getLogger("hone.serving")

OVERHEAD_BYTES = 400
"""What an entry takes beside its tensors: key, dictionary, array objects."""

Observe = Callable[[str], None]


def request_key(artifact_digest: str, inputs: Tensors) -> bytes:
    """Return 20 bytes that stand for an artifact and its inputs: names, dtypes, shapes and C-order bytes."""
    state = hashlib.blake2b(artifact_digest.encode(), digest_size=20)
    for name, array in inputs.items():
        state.update(f"|{name}|{array.dtype.str}|{array.shape}|".encode())
        if array.dtype.kind == "O":
            for item in array.reshape(-1):
                text = str(item).encode()
                state.update(struct.pack("<I", len(text)) + text)
        else:
            state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b"")
    return state.digest()


def encode(outputs: Tensors) -> bytes:
    """Return tensors as bytes: a JSON header's length, the header, and each tensor's bytes."""
    parts: list[bytes] = []
    described: list[list[object]] = []
    for name, array in outputs.items():
        if array.dtype.kind == "O":
            content = orjson.dumps([str(item) for item in array.reshape(-1)])
        else:
            content = np.ascontiguousarray(array).tobytes()
        described.append([name, array.dtype.str, list(array.shape), len(content)])
        parts.append(content)
    header = orjson.dumps(described)
    return b"".join([struct.pack("<I", len(header)), header, *parts])


def decode(content: bytes) -> Tensors:
    """Return what `encode` wrote; never unpickles.

    Raises:
        ValueError: it is something else.
    """
    try:
        (size,) = struct.unpack_from("<I", content)
        described = orjson.loads(content[4 : 4 + size])
        position = 4 + size
        outputs: Tensors = {}
        for name, dtype, shape, length in described:
            part = content[position : position + length]
            position += length
            if dtype == "|O":
                array = np.array(orjson.loads(part) or [], dtype=object)
            elif np.dtype(dtype).kind in "biuf" and len(part) == prod(shape) * np.dtype(dtype).itemsize:
                array = np.frombuffer(part, dtype)
            else:
                raise ValueError(f"{name}: {length} bytes are not {dtype}{shape}")
            outputs[str(name)] = array.reshape(shape)
    except (struct.error, TypeError, KeyError, orjson.JSONDecodeError) as error:
        raise ValueError(f"not a cached prediction: {error}") from None
    if position != len(content):
        raise ValueError("not a cached prediction: bytes are left over")
    return outputs


class MemoryCache:
    """The most recently used predictions, bounded by bytes and age.

    Args:
        max_bytes: of tensors and bookkeeping.
        ttl_s: age at which an entry no longer counts.
        clock: seconds.
    """

    def __init__(self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, int, Tensors]] = OrderedDict()
        self.bytes_used = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: bytes) -> Tensors | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock():
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return entry[2]

    def put(self, key: bytes, outputs: Tensors) -> Tensors:
        """Keep outputs, and return them as they are kept: read-only, and no views that keep a batch alive."""
        kept = {name: array.copy() if array.base is not None else array for name, array in outputs.items()}
        for array in kept.values():
            array.flags.writeable = False
        size = OVERHEAD_BYTES + sum(_size(array) for array in kept.values())
        if size > self._max_bytes:
            return kept
        if key in self._entries:
            self._drop(key)
        self._entries[key] = (self._clock() + self._ttl_s, size, kept)
        self.bytes_used += size
        while self.bytes_used > self._max_bytes:
            self._drop(next(iter(self._entries)))
        return kept

    def _drop(self, key: bytes) -> None:
        self.bytes_used -= self._entries.pop(key)[1]


def _size(array: np.ndarray) -> int:
    if array.dtype.kind == "O":
        return int(array.nbytes + sum(len(str(item)) + 50 for item in array.reshape(-1)))
    return int(array.nbytes)


@dataclass
class _Flight:
    """A computation that one or more callers wait for."""

    task: asyncio.Task[Tensors]
    waiting: int = 0


class PredictionCache:
    """Looks in memory, then in Redis, then computes; equal requests in flight share one computation.

    Args:
        memory: of this worker.
        remote: shared by replicas, or None.
    """

    def __init__(self, memory: MemoryCache, remote: RedisCache | None = None) -> None:
        self._memory = memory
        self._remote = remote
        self._flights: dict[bytes, _Flight] = {}

    @property
    def bytes_used(self) -> int:
        return self._memory.bytes_used

    def peek(self, key: bytes) -> Tensors | None:
        """Return what is in memory."""
        return self._memory.get(key)

    def remember(self, key: bytes, outputs: Tensors) -> Tensors:
        """Keep outputs that were computed outside."""
        kept = self._memory.put(key, outputs)
        if self._remote is not None:
            self._remote.put_soon(key, encode(kept))
        return kept

    async def get_or_compute(
        self, key: bytes, compute: Callable[[], Awaitable[Tensors]], observe: Observe = lambda _: None
    ) -> Tensors:
        """Return the outputs for a key.

        A caller that goes away doesn't take the others' computation with it; it ends when nobody waits any more. An
        error reaches all who wait and isn't kept.

        Args:
            key: of `request_key`.
            compute: called at most once at a time for a key.
            observe: told "memory_hit", "remote_hit", "miss" or "joined".
        """
        known = self._memory.get(key)
        if known is not None:
            observe("memory_hit")
            return known
        flight = self._flights.get(key)
        if flight is None:
            task = asyncio.get_running_loop().create_task(self._find(key, compute, observe))
            flight = self._flights[key] = _Flight(task)
            task.add_done_callback(lambda _: self._landed(key))
        else:
            observe("joined")
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                flight.task.cancel()
                # Whoever comes next must not join a computation that is being called off.
                self._landed(key)

    def _landed(self, key: bytes) -> None:
        flight = self._flights.get(key)
        if flight is not None and (flight.task.done() or not flight.waiting):
            del self._flights[key]
            if flight.task.done() and not flight.task.cancelled():
                flight.task.exception()  # somebody may have gone before it failed; it was still seen

    async def _find(self, key: bytes, compute: Callable[[], Awaitable[Tensors]], observe: Observe) -> Tensors:
        if self._remote is not None:
            found = await self._remote.get(key)
            if found is not None:
                try:
                    outputs = self._memory.put(key, decode(found))
                    observe("remote_hit")
                    return outputs
                except ValueError as error:
                    logger.warning("an entry of the shared cache is broken and computed anew: %s", error)
        observe("miss")
        return self.remember(key, await compute())

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._remote is not None:
            await self._remote.close()


def make_cache(settings: Settings) -> PredictionCache:
    """Return the cache that the settings describe.

    Raises:
        HoneError: the Redis client is missing or its URL is wrong.
    """
    memory = MemoryCache(int(settings.cache_mb * 1e6), settings.cache_ttl_s)
    remote = RedisCache(settings.redis_url, settings.cache_ttl_s) if settings.redis_url else None
    return PredictionCache(memory, remote)
