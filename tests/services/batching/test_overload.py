"""Three times what a runtime holds, by the policy's own clock: noise, stalls of the host, and deadlines of 50 ms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from hone.services.batching.latency import LatencyModel, Reserve
from hone.services.batching.padding import FIXED
from hone.services.batching.queue import Batch, BatchQueue, Work
from hone.services.http.failures import DeadlineError

ROWS, DEADLINE_S, SECONDS = 4, 0.05, 6.0


@dataclass
class Running:
    """A batch in the runtime, and the seconds of a core that it still needs."""

    batch: Batch
    began: float
    expected: float
    left_s: float


class Runtime:
    """Batches on one core, by a clock that is told: side by side each is slower. A stall of 10 ms or so every two
    seconds."""

    def __init__(
        self, overhead_s: float, row_s: float, most: int, *, in_flight: int = 1, reserved: bool = True
    ) -> None:
        self._cost = overhead_s, row_s
        self.reserve, self._reserved, self._in_flight = Reserve(), reserved, in_flight
        self._latency = LatencyModel()
        for rows in (1 << power for power in range(most.bit_length())):
            self._latency.observe(1, rows, in_flight * (overhead_s + row_s * rows))
        self.queue = BatchQueue(most, 4096, self._latency.predict, in_flight)
        self._random = np.random.default_rng(0)
        self._next_stall, self.long_stall_s = 2.0, 0.0
        self._running: list[Running] = []
        self._now = 0.0
        self.in_time = self.late = self.dropped = 0

    def busy_s(self, now: float) -> float:
        if len(self._running) < self._in_flight:
            return 0.0
        return max(0.0, min(one.expected for one in self._running) - now)

    def advance(self, now: float) -> None:
        """End the batches that end before a time, and begin those that wait."""
        while self._running:
            first = min(self._running, key=lambda one: one.left_s)
            ended = self._now + first.left_s * len(self._running)
            if ended > now:
                break
            self._work(ended)
            self._running.remove(first)
            self.reserve.stalled(ended, self._latency.observe(1, first.batch.rows, ended - first.began))
            for work in first.batch.works:
                late = ended > self._learned(work, ended)
                self.late += late
                self.in_time += not late
            self._begin(ended)
        self._work(now)

    def _work(self, until: float) -> None:
        for one in self._running:
            one.left_s -= (until - self._now) / len(self._running)
        self._now = until

    def start(self, now: float) -> None:
        if len(self._running) < self._in_flight:
            self._begin(now)

    def _begin(self, now: float) -> None:
        batch = self.queue.take(now)
        for work in batch.expired:
            self.dropped += 1
            self._learned(work, now)
        if not batch.works:
            return
        took = (self._cost[0] + self._cost[1] * batch.rows) * self._random.lognormal(0, 0.1)
        if now > self._next_stall:
            took, self._next_stall = took + self._random.exponential(0.01) + self.long_stall_s, now + 2.0
            self.long_stall_s = 0.0
        self._running.append(Running(batch, now, now + self._latency.predict(1, batch.rows), took))

    def _learned(self, work: Work, ended: float) -> float:
        assert work.deadline is not None
        self.reserve.answered(work.arrived, work.deadline, ended)
        self.queue.reserve = self.reserve.share if self._reserved else 0.0
        self.queue.tried(work, ended)
        return work.deadline


def arrivals(rate: float) -> Iterator[float]:
    random, now = np.random.default_rng(1), 0.0
    while (now := now + random.exponential(1 / rate)) < SECONDS:
        yield now


def goodput(runtime: Runtime, capacity: float, times: float = 3.0) -> tuple[float, float, float]:
    """Return shares: of the capacity that is answered in time, of answers that are late, of refusals that waited."""
    refused = 0
    for now in arrivals(times * capacity):
        runtime.advance(now)
        try:
            work = Work({}, ROWS, now, FIXED, None, now + DEADLINE_S)
            runtime.queue.offer([work], now, runtime.busy_s(now))
        except DeadlineError:
            refused += 1
        runtime.start(now)
    answered = runtime.in_time + runtime.late
    return runtime.in_time / SECONDS / capacity, runtime.late / answered, runtime.dropped / max(1, refused)


def capacity(overhead_s: float, row_s: float, rows: int) -> float:
    """Return the requests per second that batches of so many rows hold."""
    return rows / (overhead_s + row_s * rows) / ROWS


RUNTIMES = [(0.0006, 0.0003, 4), (0.002, 0.0002, 64), (0.01, 0.0001, 64)]


@pytest.mark.parametrize(("overhead_s", "row_s", "most"), RUNTIMES)
def test_what_is_held_is_answered_in_time_and_the_rest_refused_at_once(
    overhead_s: float, row_s: float, most: int
) -> None:
    useful, late, waited = goodput(Runtime(overhead_s, row_s, most), capacity(overhead_s, row_s, most))
    assert useful > 0.9
    assert late < 0.01
    assert waited < 0.01


def test_without_a_reserve_batches_become_small_and_answers_late() -> None:
    held = capacity(0.002, 0.0002, 64)
    with_reserve, late, _ = goodput(Runtime(0.002, 0.0002, 64), held)
    without, later, _ = goodput(Runtime(0.002, 0.0002, 64, reserved=False), held)
    assert with_reserve > 1.1 * without
    assert late < later


@pytest.mark.parametrize("in_flight", [1, 2])
def test_a_batch_that_takes_most_of_the_callers_time_is_not_waited_for(in_flight: int) -> None:
    """A full batch takes 39 ms of 50, and two side by side on one core 78; eight rows serve nearly as much."""
    useful, late, waited = goodput(Runtime(0.0006, 0.0006, 64, in_flight=in_flight), capacity(0.0006, 0.0006, 16))
    assert useful > 0.9
    assert late < 0.002
    assert waited < 0.01


@pytest.mark.parametrize(("overhead_s", "row_s", "most"), RUNTIMES)
def test_a_long_stall_of_the_host_costs_its_own_time_and_little_more(
    overhead_s: float, row_s: float, most: int
) -> None:
    runtime = Runtime(overhead_s, row_s, most)
    runtime.long_stall_s = 0.3  # of six seconds
    useful, _, _ = goodput(runtime, capacity(overhead_s, row_s, most))
    assert useful > 0.9


def test_a_long_stall_leaves_the_reserve_as_it_was() -> None:
    runtime = Runtime(0.0006, 0.0003, 4)
    runtime.long_stall_s = 0.6
    goodput(runtime, capacity(0.0006, 0.0003, 4))
    assert runtime.reserve.share < 0.2
