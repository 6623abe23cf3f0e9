"""A simulated service for searches of a capacity, and a generator that may give out before it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hone.benchmarks.capacity.runs import Observed


class Clockwork:
    """Answers in no time up to a rate, and not in time above it; counts the loads, and may end them."""

    def __init__(
        self,
        limit: float,
        ends_at: int = 10_000,
        error: BaseException | None = None,
        generator: Callable[[float, int], bool] = lambda rate, load: True,
    ) -> None:
        self.limit, self.ends_at, self.error, self.loads, self.generator = limit, ends_at, error, 0, generator

    def __call__(self, rate: float, seconds: float, seed: int) -> Observed:
        if self.loads == self.ends_at:
            assert self.error is not None
            raise self.error
        self.loads += 1
        intended = np.arange(max(1, int(rate * seconds))) / rate
        latencies = np.full(len(intended), 10.0 if rate <= self.limit else 500.0)
        if self.generator(rate, self.loads):
            return Observed(intended, latencies, np.zeros(len(intended), bool), seconds, seconds)
        # What a void run saw is anything: here, the opposite of what is true.
        wrong, why = 510.0 - latencies, "the generator used 93% of a core"
        return Observed(intended, wrong, np.zeros(len(intended), bool), seconds, seconds, void=why)
