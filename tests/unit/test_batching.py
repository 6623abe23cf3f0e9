from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.batching import Batcher, BatchQueue, BatchTimes, Tensors, Work
from services.failures import InferenceError, OverloadedError


def work(rows: int, key: object = "row") -> Work:
    return Work({"x": np.zeros((rows, 1))}, rows, 0.0, key, lambda _: None)


def test_batch_counts_rows_and_keeps_order() -> None:
    queue = BatchQueue(max_batch_rows=8, max_queue_rows=100)
    works = [work(3), work(3), work(3), work(2)]
    queue.offer(works)
    assert queue.take() == [works[0], works[1], works[3]]  # the third has no room, the fourth has
    assert queue.take() == [works[2]]
    assert queue.take() == []
    assert queue.rows == 0


def test_rows_of_another_shape_wait_for_their_own_batch() -> None:
    queue = BatchQueue(max_batch_rows=8, max_queue_rows=100)
    works = [work(1, "short"), work(1, "long"), work(1, "short")]
    queue.offer(works)
    assert queue.take() == [works[0], works[2]]
    assert queue.take() == [works[1]]


def test_full_queue_refuses_all_of_a_request_or_none() -> None:
    queue = BatchQueue(max_batch_rows=4, max_queue_rows=6)
    queue.offer([work(4)])
    with pytest.raises(OverloadedError, match="4 rows wait, 6 may"):
        queue.offer([work(2), work(2)])
    assert queue.rows == 4
    queue.offer([work(2)])


def test_abandoned_work_is_dropped() -> None:
    queue = BatchQueue(max_batch_rows=4, max_queue_rows=100)
    gone, stays = work(1), work(1)
    queue.offer([gone, stays])
    gone.abandoned = True
    assert queue.take() == [stays]
    assert queue.rows == 0


def double(inputs: Tensors) -> Tensors:
    return {"y": inputs["x"] * 2}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(1, 2)), min_size=1, max_size=25),
    st.integers(1, 6),
    st.booleans(),
)
def test_each_caller_gets_its_own_rows(requests: list[tuple[int, int, int]], max_rows: int, threaded: bool) -> None:
    """For any sizes, arrival times and shapes, on the loop or in a thread."""
    seen: list[int] = []

    def run(inputs: Tensors) -> Tensors:
        seen.append(len(inputs["x"]))
        return double(inputs)

    async def caller(batcher: Batcher, index: int, rows: int, delay: int, width: int) -> None:
        for _ in range(delay):
            await asyncio.sleep(0)
        mine = np.full((rows, width), index, np.float64) + np.arange(rows)[:, None] / 100
        outputs = await batcher.submit({"x": mine})
        np.testing.assert_array_equal(outputs["y"], mine * 2)

    async def main() -> None:
        with ThreadPoolExecutor(1) as pool:
            batcher = Batcher(run, max_batch_rows=max_rows, max_queue_rows=10_000, executor=pool if threaded else None)
            await asyncio.gather(*(caller(batcher, index, *request) for index, request in enumerate(requests)))
            await batcher.close(5)

    asyncio.run(main())
    assert sum(seen) == sum(rows for rows, _, _ in requests)
    assert max(seen) <= max_rows


def test_concurrent_requests_share_a_batch_and_a_lone_one_waits_for_nobody() -> None:
    times: list[BatchTimes] = []

    async def main() -> None:
        batcher = Batcher(double, observe=times.append)
        await batcher.submit({"x": np.ones((1, 1))})
        await asyncio.gather(*(batcher.submit({"x": np.ones((1, 1))}) for _ in range(5)))

    asyncio.run(main())
    assert [batch.rows for batch in times] == [1, 5]


def test_one_callers_poison_fails_only_that_caller() -> None:
    def run(inputs: Tensors) -> Tensors:
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return double(inputs)

    async def main() -> list[object]:
        batcher = Batcher(run)
        values = [1.0, -1.0, 2.0]
        return await asyncio.gather(
            *(batcher.submit({"x": np.full((1, 1), value)}) for value in values), return_exceptions=True
        )

    first, poison, last = asyncio.run(main())
    assert isinstance(poison, InferenceError)
    assert first["y"].item() == 2.0  # type: ignore[index]
    assert last["y"].item() == 4.0  # type: ignore[index]


def test_cancelled_caller_does_not_stop_the_others() -> None:
    async def main() -> float:
        batcher = Batcher(double)
        gone = asyncio.create_task(batcher.submit({"x": np.ones((1, 1))}))
        stays = asyncio.create_task(batcher.submit({"x": np.ones((1, 1))}))
        await asyncio.sleep(0)
        gone.cancel()
        return float((await stays)["y"].item())

    assert asyncio.run(main()) == 2.0


def test_closing_answers_what_was_accepted_and_refuses_the_rest() -> None:
    async def main() -> None:
        batcher = Batcher(double)
        accepted = asyncio.create_task(batcher.submit({"x": np.ones((1, 1))}))
        await asyncio.sleep(0)
        await batcher.close(5)
        assert (await accepted)["y"].item() == 2.0
        with pytest.raises(OverloadedError, match="stopping"):
            await batcher.submit({"x": np.ones((1, 1))})

    asyncio.run(main())


def test_unbatchable_requests_run_alone() -> None:
    rows: list[int] = []

    async def main() -> None:
        batcher = Batcher(lambda inputs: rows.append(len(inputs["x"])) or inputs, batchable=False, max_batch_rows=2)
        await asyncio.gather(*(batcher.submit({"x": np.ones((5, 1))}) for _ in range(3)))

    asyncio.run(main())
    assert rows == [5, 5, 5]
