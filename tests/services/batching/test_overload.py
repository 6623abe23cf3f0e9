"""Three times what a runtime holds, by the policy's own clock: noise, stalls of the host, and deadlines of 50 ms."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from hone.services.batching.latency import LatencyModel, Reserve
from hone.services.batching.padding import FIXED
from hone.services.batching.queue import Batch, BatchQueue, Work
from hone.services.http.failures import DeadlineError

ROWS, DEADLINE_S, SECONDS = 4, 0.05, 6.0


class Runtime:
    """One batch after the other, by a clock that is told; a stall of 10 ms or so every two seconds."""

    def __init__(self, overhead_s: float, row_s: float, most: int, *, reserved: bool) -> None:
        self.capacity = most / (overhead_s + row_s * most) / ROWS
        self._cost = overhead_s, row_s
        self._latency, self._reserve, self._reserved = LatencyModel(), Reserve(), reserved
        for rows in range(1, most + 1):
            self._latency.observe(1, rows, overhead_s + row_s * rows)
        self.queue = BatchQueue(most, 4096, self._latency.predict)
        self._random = np.random.default_rng(0)
        self._next_stall, self.long_stall_s = 2.0, 0.0
        self._running: tuple[Batch, float, float, float] | None = None
        self.in_time = self.late = self.dropped = 0

    def busy_s(self, now: float) -> float:
        return max(0.0, self._running[3] - now) if self._running else 0.0

    def advance(self, now: float) -> None:
        """End the batches that end before a time, and begin those that wait."""
        while self._running and self._running[2] <= now:
            batch, began, ended, _ = self._running
            self._running = None
            self._latency.observe(1, batch.rows, ended - began)
            for work in batch.works:
                late = ended > self._learned(work, ended)
                self.late += late
                self.in_time += not late
            self._begin(ended)

    def start(self, now: float) -> None:
        if self._running is None:
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
        self._running = batch, now, now + took, now + self._latency.predict(1, batch.rows)

    def _learned(self, work: Work, ended: float) -> float:
        assert work.deadline is not None
        self._reserve.answered(work.arrived, work.deadline, ended)
        self.queue.reserve = self._reserve.share if self._reserved else 0.0
        self.queue.tried(work, ended)
        return work.deadline


def arrivals(rate: float) -> Iterator[float]:
    random, now = np.random.default_rng(1), 0.0
    while (now := now + random.exponential(1 / rate)) < SECONDS:
        yield now


def goodput(runtime: Runtime) -> tuple[float, float, float]:
    """Return shares: of the capacity that is answered in time, of answers that are late, of refusals that waited."""
    refused = 0
    for now in arrivals(3 * runtime.capacity):
        runtime.advance(now)
        try:
            work = Work({}, ROWS, now, FIXED, None, now + DEADLINE_S)
            runtime.queue.offer([work], now, runtime.busy_s(now))
        except DeadlineError:
            refused += 1
        runtime.start(now)
    answered = runtime.in_time + runtime.late
    return runtime.in_time / SECONDS / runtime.capacity, runtime.late / answered, runtime.dropped / refused


@pytest.mark.parametrize(
    ("overhead_s", "row_s", "most"), [(0.0006, 0.0003, 4), (0.002, 0.0002, 64), (0.01, 0.0001, 64)]
)
def test_what_is_held_is_answered_in_time_and_the_rest_refused_at_once(
    overhead_s: float, row_s: float, most: int
) -> None:
    useful, late, waited = goodput(Runtime(overhead_s, row_s, most, reserved=True))
    assert useful > 0.9
    assert late < 0.01
    assert waited < 0.01


def test_without_a_reserve_batches_become_small_and_answers_late() -> None:
    with_reserve, late, _ = goodput(Runtime(0.002, 0.0002, 64, reserved=True))
    without, later, _ = goodput(Runtime(0.002, 0.0002, 64, reserved=False))
    assert with_reserve > 1.1 * without
    assert late < later


def test_a_long_stall_of_the_host_has_callers_refused_for_a_second_and_not_for_good() -> None:
    runtime = Runtime(0.0006, 0.0003, 4, reserved=True)
    runtime.long_stall_s = 0.6
    useful, _, _ = goodput(runtime)
    # What is lost of the six seconds: the stall, and the second until a request is let through.
    assert useful > 0.65
