from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from hone.services.cache.predictions import MemoryCache, PredictionCache, decode, encode, request_key
from hone.signature import Tensors

NUMBERS = npst.arrays(
    st.sampled_from(["float16", "float32", "float64", "int8", "int64", "uint16", "bool"]),
    npst.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=4),
)
STRINGS = st.lists(st.text(max_size=5), max_size=4).map(lambda texts: np.array(texts or [], dtype=object))


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=5), NUMBERS | STRINGS, max_size=3))
def test_encoded_outputs_come_back(outputs: Tensors) -> None:
    back = decode(encode(outputs))
    assert list(back) == list(outputs)
    for name, array in outputs.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_broken_entry_is_a_value_error(content: bytes) -> None:
    try:
        decode(content)
    except ValueError:
        return
    assert len(content) >= 4


def test_key_tells_apart_what_differs() -> None:
    row = np.arange(4, dtype=np.float32)
    variants: list[tuple[str, Tensors]] = [
        ("a", {"x": row.reshape(1, 4)}),
        ("b", {"x": row.reshape(1, 4)}),
        ("a", {"y": row.reshape(1, 4)}),
        ("a", {"x": row.reshape(2, 2)}),
        ("a", {"x": row.view(np.int32).reshape(1, 4)}),
        ("a", {"x": (row + 1).reshape(1, 4)}),
        ("a", {"x": np.array(["a", "bc"], dtype=object)}),
        ("a", {"x": np.array(["ab", "c"], dtype=object)}),
        ("a", {"x": np.array(["abc"], dtype=object)}),
    ]
    assert len({request_key(*variant) for variant in variants}) == len(variants)
    strided = np.arange(8, dtype=np.float32)[::2]
    assert request_key("a", {"x": strided}) == request_key("a", {"x": strided.copy()})


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_memory_is_bounded_by_bytes_and_age() -> None:
    clock = Clock()
    cache = MemoryCache(5_000, 10.0, clock)
    for index in range(20):
        cache.put(bytes([index]), {"y": np.full(100, index, np.float32)})
        cache.get(b"\0")  # used often, so it stays
    assert cache.bytes_used <= 5_000
    assert cache.get(b"\0") is not None
    assert cache.get(b"\1") is None
    assert cache.get(bytes([19])) is not None
    assert cache.put(b"big", {"y": np.zeros(10_000)}) is not None
    assert cache.get(b"big") is None
    clock.now = 11.0
    assert cache.get(bytes([19])) is None
    before = len(cache)
    cache.put(b"\0", {"y": np.zeros(1)})
    assert len(cache) == before


def test_what_is_kept_holds_no_batch_and_cant_be_changed() -> None:
    batch = np.zeros((64, 10))
    cache = MemoryCache(10_000, 10.0)
    kept = cache.put(b"k", {"y": batch[3:4]})["y"]
    assert kept.base is None
    with pytest.raises(ValueError, match="read-only"):
        kept[0, 0] = 1


def run(calls: Callable[[PredictionCache, list[str]], Awaitable[None]]) -> list[str]:
    seen: list[str] = []

    async def main() -> None:
        await calls(PredictionCache(MemoryCache(10_000, 10.0)), seen)

    asyncio.run(main())
    return seen


def test_equal_requests_in_flight_are_computed_once() -> None:
    computed = 0

    async def compute() -> Tensors:
        nonlocal computed
        computed += 1
        await asyncio.sleep(0.01)
        return {"y": np.ones(1)}

    async def calls(cache: PredictionCache, seen: list[str]) -> None:
        await asyncio.gather(*(cache.get_or_compute(b"k", compute, seen.append) for _ in range(5)))
        await cache.get_or_compute(b"k", compute, seen.append)

    assert sorted(run(calls)) == ["joined"] * 4 + ["memory_hit", "miss"]
    assert computed == 1


def test_leader_that_leaves_does_not_take_the_answer_with_it() -> None:
    async def compute() -> Tensors:
        await asyncio.sleep(0.02)
        return {"y": np.ones(1)}

    async def calls(cache: PredictionCache, _: list[str]) -> None:
        leader = asyncio.create_task(cache.get_or_compute(b"k", compute))
        follower = asyncio.create_task(cache.get_or_compute(b"k", compute))
        await asyncio.sleep(0.005)
        leader.cancel()
        assert (await follower)["y"][0] == 1

    run(calls)


def test_computation_ends_when_nobody_waits() -> None:
    ended: list[str] = []

    async def compute() -> Tensors:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            ended.append("called off")
            raise
        return {}

    async def calls(cache: PredictionCache, _: list[str]) -> None:
        tasks = [asyncio.create_task(cache.get_or_compute(b"k", compute)) for _ in range(2)]
        await asyncio.sleep(0.005)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0.005)

    run(calls)
    assert ended == ["called off"]


def test_error_reaches_everybody_and_is_not_kept() -> None:
    results: list[object] = []

    async def fail() -> Tensors:
        await asyncio.sleep(0.005)
        raise RuntimeError("no")

    async def succeed() -> Tensors:
        return {"y": np.ones(1)}

    async def calls(cache: PredictionCache, _: list[str]) -> None:
        tasks = [cache.get_or_compute(b"k", fail) for _ in range(3)]
        results.extend(await asyncio.gather(*tasks, return_exceptions=True))
        results.append((await cache.get_or_compute(b"k", succeed))["y"][0])

    run(calls)
    assert [str(result) for result in results] == ["no", "no", "no", "1.0"]
