from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.services.batching.lane import SINGLE_BATCHES, Lane
from hone.services.batching.latency import MOST_RESERVE, STALE, LatencyModel, Reserve
from hone.services.batching.options import LaneOptions
from hone.services.batching.padding import FIXED, Joiner
from hone.services.batching.queue import BatchQueue, Work
from hone.services.batching.running import BatchTimes
from hone.services.batching.scheduler import Scheduler
from hone.services.batching.sizes import BatchSizes, Bucket
from hone.services.http.failures import DeadlineError, InferenceError, OverloadedError
from hone.signature import Signature, Tensors, TensorSpec

FIXED_ROWS = Signature(
    inputs=(TensorSpec(name="x", dtype="float64", shape=("batch", 1)),),
    outputs=(TensorSpec(name="y", dtype="float64", shape=("batch", 1)),),
)
TEXTS = Signature(
    inputs=(
        TensorSpec(name="ids", dtype="int64", shape=("batch", "length"), pad_value=0),
        TensorSpec(name="mask", dtype="int64", shape=("batch", "length"), pad_value=0),
    ),
    outputs=(
        TensorSpec(name="total", dtype="int64", shape=("batch",)),
        TensorSpec(name="tokens", dtype="int64", shape=("batch", "length")),
    ),
)


def work(rows: int, bucket: Bucket = FIXED, arrived: float = 0.0, deadline: float | None = None) -> Work:
    return Work({"x": np.zeros((rows, 1))}, rows, arrived, bucket, None, deadline)


def second_a_row(_: int, rows: int) -> float:
    return float(rows)


def test_rows_that_follow_each_other_turn_by_turn_share_a_batch() -> None:
    batches: list[int] = []

    def run(inputs: Tensors) -> Tensors:
        batches.append(len(inputs["x"]))
        return {"y": inputs["x"]}

    async def scenario() -> None:
        lane = Lane(Scheduler(), run, Joiner(FIXED_ROWS), LaneOptions(max_batch_rows=4))

        async def call(value: float, turns: int) -> None:
            for _ in range(turns):
                await asyncio.sleep(0)
            answer = await lane.submit({"x": np.full((1, 1), value)})
            assert answer["y"].tolist() == [[value]]

        # Four fill a batch, which then waits for nobody.
        await asyncio.gather(*(call(float(turn), turn) for turn in range(6)))
        assert batches == [4, 2]
        batches.clear()
        await asyncio.gather(call(1.0, 0), call(2.0, 30))
        assert batches == [1, 1]

    asyncio.run(scenario())


def test_turns_of_a_request_wait_for_one_long_batch_not_for_one_each() -> None:
    batches = 0

    def run(inputs: Tensors) -> Tensors:
        nonlocal batches
        batches += 1
        time.sleep(0.001)
        return {"y": inputs["x"]}

    async def scenario() -> None:
        lane = Lane(Scheduler(), run, Joiner(FIXED_ROWS), LaneOptions(max_batch_rows=1))
        waiting = [asyncio.ensure_future(lane.submit({"x": np.zeros((1, 1))})) for _ in range(12)]
        while batches < 3:
            await asyncio.sleep(0)
        for _ in range(5):  # at any moment between two batches
            before = batches
            for _ in range(3):
                await asyncio.sleep(0)
            assert batches - before <= 1
        await asyncio.gather(*waiting)
        assert batches == 12

    asyncio.run(scenario())


class TestQueue:
    def test_batch_counts_rows_and_keeps_order(self) -> None:
        queue = BatchQueue(max_batch_rows=8, max_queue_rows=100)
        works = [work(3), work(3), work(3), work(2)]
        queue.offer(works, 0.0)
        assert queue.take(0.0).works == works[:2]
        assert queue.take(0.0).works == works[2:]
        assert queue.take(0.0).works == []
        assert (queue.rows, len(queue)) == (0, 0)

    def test_rows_of_another_shape_wait_for_their_own_batch_and_none_starves(self) -> None:
        queue = BatchQueue(max_batch_rows=2, max_queue_rows=100)
        short, long = Bucket((8,), 8), Bucket((64,), 64)
        works = [work(1, short, 0.0), work(1, long, 1.0), work(1, short, 2.0), work(1, short, 3.0)]
        for item in works:
            queue.offer([item], 0.0)
        assert queue.take(0.0).works == [works[0], works[2]]
        assert queue.take(0.0).works == [works[1]]  # older than the short one that is left
        assert queue.take(0.0).works == [works[3]]

    def test_full_queue_refuses_all_of_a_request_or_none(self) -> None:
        queue = BatchQueue(max_batch_rows=4, max_queue_rows=6, predict=second_a_row)
        queue.offer([work(4)], 0.0)
        with pytest.raises(OverloadedError, match="4 rows wait, 6 may") as caught:
            queue.offer([work(2), work(2)], 0.0)
        assert caught.value.headers == (("retry-after", "4"),)
        assert queue.rows == 4
        queue.offer([work(2)], 0.0)

    def test_empty_queue_takes_more_than_it_holds(self) -> None:
        queue = BatchQueue(max_batch_rows=4, max_queue_rows=6)
        queue.offer([work(4), work(4)], 0.0)
        assert queue.rows == 8

    def test_withdrawn_work_gives_its_room_back_at_once(self) -> None:
        queue = BatchQueue(max_batch_rows=4, max_queue_rows=4)
        gone, stays = work(2), work(2)
        queue.offer([gone, stays], 0.0)
        queue.withdraw(gone)
        queue.withdraw(gone)
        assert queue.rows == 2
        queue.offer([work(2)], 0.0)
        assert gone not in queue.take(0.0).works

    def test_deadline_that_the_rows_ahead_make_unreachable_is_refused_at_once(self) -> None:
        queue = BatchQueue(max_batch_rows=2, max_queue_rows=100, predict=second_a_row)
        queue.offer([work(2), work(2)], 10.0)
        with pytest.raises(DeadlineError, match="about 6e\\+03 ms would be needed"):
            queue.offer([work(1, deadline=15.9)], 10.0, busy_s=1.0)
        queue.offer([work(1, deadline=16.0)], 10.0, busy_s=1.0)
        with pytest.raises(DeadlineError):
            BatchQueue(2, 100).offer([work(1, deadline=10.0)], 10.0)

    def test_reserve_is_kept_free_behind_others_only(self) -> None:
        queue = BatchQueue(max_batch_rows=2, max_queue_rows=100, predict=second_a_row, reserve=0.25)
        queue.offer([work(2, deadline=2.0)], 0.0)  # nobody is ahead: it may take all of its time
        queue.offer([work(2, deadline=4.0)], 0.0, busy_s=-1.0)  # as much as a batch and a half is never held back
        with pytest.raises(DeadlineError) as caught:
            queue.offer([work(1, deadline=6.6)], 0.0)
        assert caught.value.is_demand
        queue.offer([work(1, deadline=6.7)], 0.0)
        with pytest.raises(DeadlineError) as caught:
            queue.offer([work(2, deadline=1.9)], 0.0)
        assert not caught.value.is_demand  # not even alone

    def test_deadline_keeps_its_batch_small(self) -> None:
        queue = BatchQueue(max_batch_rows=8, max_queue_rows=100, predict=lambda _, rows: 2.0 + 0.5 * rows)
        works = [work(2, deadline=3.5), work(1), work(4)]
        queue.offer([works[0]], 0.0)
        queue.offer([works[1]], 0.0)
        queue.offer([works[2]], 0.0)
        assert queue.take(0.0).works == works[:2]  # with four more rows the first would be late
        assert queue.take(0.0).works == works[2:]

    def test_work_that_became_too_late_is_dropped_not_computed(self) -> None:
        queue = BatchQueue(max_batch_rows=8, max_queue_rows=100, predict=second_a_row)
        late, fine = work(2, deadline=3.0), work(1)
        queue.offer([late], 0.0)
        queue.offer([fine], 0.0)
        batch = queue.take(2.0)
        assert (batch.works, batch.expired) == ([fine], [late])
        assert queue.rows == 0

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 2), st.booleans()), max_size=40), st.integers(1, 7))
    def test_nothing_is_lost_or_doubled(self, items: list[tuple[int, int, bool]], most: int) -> None:
        queue = BatchQueue(max_batch_rows=most, max_queue_rows=10_000)
        works = [work(min(rows, most), Bucket((kind,), 1)) for rows, kind, _ in items]
        for item in works:
            queue.offer([item], 0.0)
        gone = [item for item, (_, _, leaves) in zip(works, items, strict=True) if leaves]
        for item in gone:
            queue.withdraw(item)
        taken: list[Work] = []
        while batch := queue.take(0.0).works:
            assert sum(item.rows for item in batch) <= most
            assert len({item.bucket for item in batch}) == 1
            taken += batch
        assert sorted(map(id, [*taken, *gone])) == sorted(map(id, works))
        assert queue.rows == 0
        assert queue.backlog_s() == 0

    def test_what_seems_out_of_reach_is_tried_when_nothing_ran_for_a_while(self) -> None:
        queue = BatchQueue(max_batch_rows=8, max_queue_rows=100, predict=second_a_row)
        for now in (0.0, 0.9):
            with pytest.raises(DeadlineError):
                queue.offer([work(2, deadline=now + 0.5)], now)
        tried = work(2, deadline=1.5)
        queue.offer([tried], 1.0)
        with pytest.raises(DeadlineError):  # one at a time
            queue.offer([work(2, deadline=1.5)], 1.0)
        assert queue.take(1.0).works == [tried]
        queue.tried(tried, 3.0)  # it was late indeed
        with pytest.raises(DeadlineError):
            queue.offer([work(2, deadline=1.9)], 1.5)
        again = work(2, deadline=2.6)
        queue.offer([again], 2.1)
        assert queue.take(2.1).works == [again]
        queue.tried(again, 2.2)  # in time: the next one need not wait
        queue.offer([work(2, deadline=2.8)], 2.3)

    @settings(max_examples=200, deadline=None)
    @given(
        st.lists(st.integers(1, 6), max_size=8), st.integers(1, 9), st.floats(0.1, 40), st.floats(0, 5),
        st.integers(1, 3), st.floats(0, 0.5), st.floats(0, 3),
    )  # fmt: skip
    def test_unread_only_what_would_be_refused_is_refused(
        self, waiting: list[int], rows: int, left_s: float, busy_s: float, in_flight: int, reserve: float, cost: float
    ) -> None:
        queue = BatchQueue(6, 100, lambda _, rows: cost + rows, in_flight, reserve=reserve)
        for one in waiting:
            queue.offer([work(one)], 0.0)
        try:
            queue.check_unread(left_s, busy_s)
        except DeadlineError:
            works = [work(min(6, rows - start), deadline=left_s) for start in range(0, rows, 6)]
            with pytest.raises(DeadlineError):
                queue.offer(works, 0.0, busy_s)

    def test_unread_a_request_behind_too_many_is_refused_and_alone_it_is_not(self) -> None:
        queue = BatchQueue(max_batch_rows=8, max_queue_rows=100, predict=second_a_row)
        queue.check_unread(0.1)
        queue.offer([work(8)], 0.0)
        queue.check_unread(20.0)
        with pytest.raises(DeadlineError, match="can't answer within the 5e\\+03 ms that are left: over 9e\\+03 ms"):
            queue.check_unread(5.0)

    def test_a_deadline_that_is_over_is_never_tried(self) -> None:
        queue = BatchQueue(max_batch_rows=8, max_queue_rows=100, predict=second_a_row)
        for now in (0.0, 5.0):
            with pytest.raises(DeadlineError):
                queue.offer([work(2, deadline=now)], now)


class TestLatencyModel:
    def test_learns_a_line_and_remembers_what_it_saw(self) -> None:
        model = LatencyModel()
        assert model.predict(1, 1) == 0.0
        for _ in range(200):
            for rows in (1, 2, 4, 8):
                model.observe(1, rows, 0.010 + 0.002 * rows)
        assert model.predict(1, 8) == pytest.approx(0.026, rel=0.01)
        assert model.predict(1, 32) == pytest.approx(0.074, rel=0.1)  # never seen: from the line

    def test_follows_a_runtime_that_became_slower(self) -> None:
        model = LatencyModel()
        for seconds in [0.01] * 100 + [0.03] * 60:
            model.observe(1, 4, seconds)
        assert 0.029 < model.predict(1, 4) < 0.04

    def test_a_noisy_runtime_is_promised_less(self) -> None:
        steady, noisy = LatencyModel(), LatencyModel()
        for index in range(200):
            steady.observe(1, 1, 0.010)
            noisy.observe(1, 1, 0.005 if index % 2 else 0.015)
        assert noisy.predict(1, 1) > 1.5 * steady.predict(1, 1)

    def test_a_stall_is_not_what_a_batch_takes(self) -> None:
        model = LatencyModel()
        assert [model.observe(1, 4, 0.01) for _ in range(50)] == [0.0] * 50
        assert model.observe(1, 4, 0.5) == pytest.approx(0.48)
        assert model.predict(1, 4) < 0.014

    def test_a_size_that_is_not_run_any_more_takes_no_longer_than_its_halves(self) -> None:
        model = LatencyModel()
        for _ in range(30):
            model.observe(1, 64, 0.04)
        for _ in range(STALE):
            model.observe(1, 16, 0.004)
            model.observe(1, 32, 0.008)
        assert model.predict(1, 64) == pytest.approx(0.016, rel=0.01)
        assert model.predict(1, 32) == pytest.approx(0.008, rel=0.01)


class TestReserve:
    def test_comes_to_rest_where_next_to_no_answer_is_late(self) -> None:
        """Answers that come up to 30 % of their time later than foreseen, by chance."""
        random, reserve = np.random.default_rng(0), Reserve()
        late = 0
        for number in range(200_000):
            ended = 1 - reserve.share + random.exponential(0.04)
            reserve.answered(0.0, 1.0, ended)
            late += number >= 100_000 and ended > 1
        assert late / 100_000 < 0.001
        assert 0 < reserve.share < MOST_RESERVE

    def test_is_bounded_and_goes_back(self) -> None:
        reserve = Reserve()
        for _ in range(100):
            reserve.answered(0.0, 1.0, 2.0)
        assert reserve.share == MOST_RESERVE
        for _ in range(100_000):
            reserve.answered(0.0, 1.0, 0.1)
        assert reserve.share == 0.0

    def test_learns_nothing_of_a_stall_that_it_could_not_have_saved_an_answer_from(self) -> None:
        reserve = Reserve()
        reserve.stalled(10.0, 0.6)
        for _ in range(20):
            reserve.answered(9.5, 10.5, 10.6)
        assert reserve.share == 0.1
        reserve.answered(10.1, 11.1, 11.2)  # it came after the stall
        short, before = 0.4, reserve.share
        assert before > 0.1
        reserve.stalled(20.0, short)
        reserve.answered(19.5, 20.5, 20.6)  # half of its time left over would have been enough
        assert reserve.share > before


class TestBatchSizes:
    def test_a_batch_is_as_large_as_its_callers_time_allows_where_that_serves_as_much(self) -> None:
        sizes = BatchSizes(64, predict=lambda _, rows: 0.001 + 0.001 * rows)
        assert sizes.timely(FIXED, 1.0) == 64
        assert sizes.timely(FIXED, 0.1) == 32
        assert sizes.timely(FIXED, 0.03) == 8
        assert sizes.timely(FIXED, 0.0) == 8  # four would serve a fifth less than 64

    def test_where_small_batches_serve_less_full_ones_stay(self) -> None:
        sizes = BatchSizes(64, predict=lambda _, rows: 0.02 + 0.0001 * rows)
        assert sizes.timely(FIXED, 0.05) == 64

    def test_what_is_not_known_yet_limits_nothing(self) -> None:
        assert BatchSizes(64).timely(FIXED, 0.05) == 64

    def test_long_rows_make_small_batches(self) -> None:
        sizes = BatchSizes(64, 1024)
        assert [sizes.limit(Bucket((length,), length)) for length in (8, 32, 128, 4096)] == [64, 32, 8, 1]


class TestPadding:
    def run(self, inputs: Tensors) -> Tensors:
        return {"total": (inputs["ids"] * inputs["mask"]).sum(axis=1), "tokens": inputs["ids"] * 2}

    def text(self, length: int, seed: int, rows: int = 1) -> Tensors:
        ids = np.random.default_rng(seed).integers(1, 1000, (rows, length))
        return {"ids": ids, "mask": np.ones_like(ids)}

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 3)), min_size=1, max_size=8))
    def test_each_text_gets_its_own_tokens_back(self, texts: list[tuple[int, int]]) -> None:
        joiner = Joiner(TEXTS)
        inputs = [self.text(length, seed, rows) for seed, (length, rows) in enumerate(texts)]
        works = [Work(text, len(text["ids"]), 0.0, joiner.bucket(text)) for text in inputs]
        for text, part in zip(inputs, joiner.split(self.run(joiner.join(works)), works), strict=True):
            np.testing.assert_array_equal(part["total"], text["ids"].sum(axis=1))
            np.testing.assert_array_equal(part["tokens"], text["ids"] * 2)

    def test_a_short_text_never_pays_for_a_long_one(self) -> None:
        joiner = Joiner(TEXTS)
        buckets: dict[Bucket, list[int]] = {}
        for length in range(1, 400):
            buckets.setdefault(joiner.bucket(self.text(length, 0)), []).append(length)
        for lengths in buckets.values():
            assert max(lengths) <= max(8, 1.25 * min(lengths) + 1)

    def test_lengths_are_kept_apart_without_pad_values(self) -> None:
        bare = Signature(
            inputs=tuple(spec.model_copy(update={"pad_value": None}) for spec in TEXTS.inputs), outputs=TEXTS.outputs
        )
        joiner = Joiner(bare)
        assert not joiner.pads
        assert joiner.bucket(self.text(20, 0)) != joiner.bucket(self.text(21, 0))

    def test_a_lone_request_is_not_copied_unless_it_must_be(self) -> None:
        joiner = Joiner(FIXED_ROWS)
        aligned = np.zeros((4, 1))
        assert joiner.join([Work({"x": aligned}, 4, 0.0, FIXED)])["x"] is aligned
        odd = np.frombuffer(b"\0" + np.arange(4.0).tobytes(), np.uint8)[1:].view(np.float64).reshape(4, 1)
        assert not odd.flags.aligned
        moved = joiner.join([Work({"x": odd}, 4, 0.0, FIXED)])["x"]
        assert moved.flags.aligned
        np.testing.assert_array_equal(moved, odd)

    def test_answers_are_views_of_the_batch(self) -> None:
        works = [Work({"x": np.ones((2, 1))}, 2, 0.0, FIXED) for _ in range(2)]
        outputs = {"y": np.zeros((4, 1))}
        for part in Joiner(FIXED_ROWS).split(outputs, works):
            assert np.shares_memory(part["y"], outputs["y"])


def double(inputs: Tensors) -> Tensors:
    return {"y": inputs["x"] * 2}


def lane(
    run: Callable[[Tensors], Tensors] = double,
    scheduler: Scheduler | None = None,
    *,
    batchable: bool = True,
    signature: Signature = FIXED_ROWS,
    observe: Callable[[BatchTimes], None] = lambda _: None,
    observe_solo: Callable[[float, int], None] = lambda *_: None,
    **options: object,
) -> Lane:
    joiner = Joiner(signature) if batchable else None
    settings = LaneOptions(**options)  # type: ignore[arg-type]
    return Lane(scheduler or Scheduler(2), run, joiner, settings, observe=observe, observe_solo=observe_solo)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_each_caller_gets_its_own_rows(requests: list[tuple[int, int, bool]], max_rows: int, threads: int) -> None:
    """For any sizes, arrival times and cancellations, on the loop or with several batches in flight."""
    seen: list[int] = []

    def run(inputs: Tensors) -> Tensors:
        seen.append(len(inputs["x"]))
        return double(inputs)

    async def caller(target: Lane, index: int, rows: int, delay: int, leaves: bool) -> None:
        for _ in range(delay):
            await asyncio.sleep(0)
        mine = np.full((rows, 1), index, np.float64) + np.arange(rows)[:, None] / 100
        task = asyncio.ensure_future(target.submit({"x": mine}))
        if leaves:
            await asyncio.sleep(0)
            task.cancel()
            return
        np.testing.assert_array_equal((await task)["y"], mine * 2)

    async def main() -> None:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            target = lane(
                run,
                Scheduler(4),
                max_batch_rows=max_rows,
                max_queue_rows=10_000,
                in_flight=max(1, threads),
                executor=pool if threads else None,
            )
            await asyncio.gather(*(caller(target, index, *request) for index, request in enumerate(requests)))
            await target.close(5)

    asyncio.run(main())
    assert sum(seen) >= sum(rows for rows, _, leaves in requests if not leaves)
    assert max(seen, default=0) <= max_rows


def test_concurrent_requests_share_a_batch_and_a_lone_one_waits_for_nobody() -> None:
    times: list[BatchTimes] = []

    async def main() -> None:
        target = lane(observe=times.append)
        await target.submit({"x": np.ones((1, 1))})
        await asyncio.gather(*(target.submit({"x": np.ones((1, 1))}) for _ in range(5)))

    asyncio.run(main())
    assert [batch.rows for batch in times] == [1, 5]


def test_callers_who_come_one_at_a_time_skip_the_queue_until_two_come_together() -> None:
    times: list[BatchTimes] = []
    solo: list[int] = []

    async def main() -> None:
        target = lane(observe=times.append, observe_solo=lambda _, rows: solo.append(rows))
        for _ in range(60):
            await target.submit({"x": np.ones((1, 1))})
            await asyncio.sleep(0)
        assert target._alone
        await asyncio.gather(*(target.submit({"x": np.full((1, 1), float(index))}) for index in range(6)))
        assert not target._alone

    asyncio.run(main())
    # The first of six can't know that others follow.
    assert solo == [1] * (60 - SINGLE_BATCHES + 1)
    assert [batch.rows for batch in times] == [1] * SINGLE_BATCHES + [5]


def test_one_callers_poison_fails_only_that_caller() -> None:
    def run(inputs: Tensors) -> Tensors:
        if (inputs["x"] < 0).any():
            raise ValueError("negative")
        return double(inputs)

    async def main() -> list[object]:
        target = lane(run)
        values = [1.0, -1.0, 2.0]
        return await asyncio.gather(
            *(target.submit({"x": np.full((1, 1), value)}) for value in values), return_exceptions=True
        )

    first, poison, last = asyncio.run(main())
    assert isinstance(poison, InferenceError)
    assert first["y"].item() == 2.0  # type: ignore[index]
    assert last["y"].item() == 4.0  # type: ignore[index]


def test_cancelled_caller_does_not_stop_the_others() -> None:
    async def main() -> float:
        target = lane()
        gone = asyncio.create_task(target.submit({"x": np.ones((1, 1))}))
        stays = asyncio.create_task(target.submit({"x": np.ones((1, 1))}))
        await asyncio.sleep(0)
        gone.cancel()
        return float((await stays)["y"].item())

    assert asyncio.run(main()) == 2.0


def test_closing_answers_what_was_accepted_and_refuses_the_rest() -> None:
    async def main() -> None:
        target = lane()
        accepted = asyncio.create_task(target.submit({"x": np.ones((1, 1))}))
        await asyncio.sleep(0)
        await target.close(5)
        assert (await accepted)["y"].item() == 2.0
        with pytest.raises(OverloadedError, match="stopping"):
            await target.submit({"x": np.ones((1, 1))})

    asyncio.run(main())


def test_unbatchable_requests_run_alone() -> None:
    rows: list[int] = []

    async def main() -> None:
        target = lane(lambda inputs: rows.append(len(inputs["x"])) or inputs, batchable=False, max_batch_rows=2)
        await asyncio.gather(*(target.submit({"x": np.ones((5, 1))}) for _ in range(3)))

    asyncio.run(main())
    assert rows == [5, 5, 5]


def test_several_batches_are_in_flight_where_the_runtime_allows() -> None:
    running, most = 0, 0

    def run(inputs: Tensors) -> Tensors:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.02)
        running -= 1
        return double(inputs)

    async def main() -> None:
        with ThreadPoolExecutor(2) as pool:
            target = lane(run, max_batch_rows=1, in_flight=2, executor=pool)
            await asyncio.gather(*(target.submit({"x": np.ones((1, 1))}) for _ in range(8)))

    asyncio.run(main())
    assert most == 2


def test_what_cant_be_in_time_is_refused_while_the_rest_is_served() -> None:
    computed: list[float] = []

    def run(inputs: Tensors) -> Tensors:
        time.sleep(0.05)
        computed.extend(inputs["x"][:, 0])
        return double(inputs)

    async def main() -> list[object]:
        with ThreadPoolExecutor(1) as pool:
            target = lane(run, max_batch_rows=1, executor=pool)
            for _ in range(4):
                await target.submit({"x": np.zeros((1, 1))})  # so that it knows what a batch takes
            calls = [target.submit({"x": np.full((1, 1), 1.0)}) for _ in range(4)]
            hurried = target.submit({"x": np.full((1, 1), 2.0)}, time.monotonic() + 0.06)
            return await asyncio.gather(*calls, hurried, return_exceptions=True)

    *served, refused = asyncio.run(main())
    assert isinstance(refused, DeadlineError)
    assert all(not isinstance(answer, Exception) for answer in served)
    assert 2.0 not in computed


def test_a_slow_model_does_not_crowd_out_a_fast_one() -> None:
    order: list[str] = []

    def named(name: str, seconds: float) -> Callable[[Tensors], Tensors]:
        def run(inputs: Tensors) -> Tensors:
            order.append(name)
            time.sleep(seconds)
            return double(inputs)

        return run

    async def main() -> None:
        scheduler = Scheduler(1)
        with ThreadPoolExecutor(1) as first, ThreadPoolExecutor(1) as second:
            slow = lane(named("slow", 0.02), scheduler, max_batch_rows=1, executor=first)
            fast = lane(named("fast", 0.002), scheduler, max_batch_rows=1, executor=second)
            calls = [slow.submit({"x": np.ones((1, 1))}) for _ in range(20)]
            calls += [fast.submit({"x": np.ones((1, 1))}) for _ in range(20)]
            await asyncio.gather(*calls)

    asyncio.run(main())
    assert order.index("fast") <= 2
    assert order[:16].count("fast") >= 10  # by time used, not one each
