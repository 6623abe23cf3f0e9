"""The search of settings on queues whose capacity is known: the best remains, and what is clearly worse leaves."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from hone.benchmarks.tuned import Cost
from hone.benchmarks.tuning.elimination import Elimination, Remaining, Rules, Visit, front
from hone.benchmarks.tuning.ramp import LEAST, PEAK
from hone.capacity import Slo
from tests.benchmarks.queues import Queue, constant, exponential, two_kinds

LIMIT_S = 0.05
START_S = 8.0
"""What a trial takes beside its load."""


@dataclass
class Simulated:
    """Servers of which each is a queue, on a host whose speed changes from trial to trial.

    Attributes:
        queues: of the candidates.
        key: of the random numbers.
        noise: standard deviation of the logarithm of the host's speed in a trial.
        storms: share of the trials that something stops for a second.
    """

    queues: list[Queue]
    key: int
    noise: float = 0.05
    storms: float = 0.0
    cores: list[float] = field(default_factory=list)
    trials: int = 0

    def __call__(self, candidate: int, seconds: float) -> Visit:
        self.trials += 1
        generator = np.random.default_rng((self.key, self.trials))
        queue = self.queues[candidate]
        seen = queue.rise(PEAK * queue.most, seconds, generator)
        if generator.random() < self.storms:
            start = generator.random() * seconds
            seen.latencies_ms[(seen.intended >= start) & (seen.intended < start + 1.0)] += 1e3
        crossed = seen.rate(seen.crossed_s(Slo(limit_ms=LIMIT_S * 1e3)))
        rate = max(crossed, LEAST * seen.peak) * math.exp(generator.normal(0.0, self.noise))
        cores = self.cores[candidate] if self.cores else 1.0
        cost = Cost(cores=cores, memory_mb=100.0)
        return Visit(candidate=candidate, asked_s=seconds, took_s=seconds + START_S, rate=rate, cost=cost)


def searched(simulated: Simulated, minutes: float = 30.0) -> Remaining:
    names = [f"candidate {number}" for number in range(len(simulated.queues))]
    rules = Rules(names, lambda cost: (cost.cores, cost.memory_mb), 5.0, minutes * 60)
    return Elimination(rules, simulated).run()


def queues(key: int, count: int = 10) -> list[Queue]:
    """Return services of the three kinds; the rates that they hold are up to twice apart, the best by a few percent."""
    generator = np.random.default_rng(key)
    made = []
    for speed in np.exp(generator.uniform(-0.7, 0.0, count)):
        kind = generator.integers(3)
        service_s = 0.002 / speed
        made.append(
            exponential(service_s)
            if kind == 0
            else constant(service_s)
            if kind == 1
            else two_kinds(0.8 * service_s, 2.8 * service_s, 0.1)
        )
    return made


def kept(searches: int, noise: float, storms: float, minutes: float = 30.0) -> tuple[int, float]:
    """Return in how many searches the best remained, and what share remained of those that hold 30 % less."""
    best_kept, worse, worse_left = 0, 0, 0
    for key in range(searches):
        made = queues(key)
        truth = [queue.capacity(LIMIT_S, 0.01) for queue in made]
        remaining = searched(Simulated(made, key, noise, storms), minutes)
        best_kept += int(np.argmax(truth)) in remaining.alive
        bad = [number for number, rate in enumerate(truth) if rate < 0.7 * max(truth)]
        worse, worse_left = worse + len(bad), worse_left + sum(number in remaining.alive for number in bad)
    return best_kept, worse_left / worse


HOSTS = [(0.02, 0.0), (0.1, 0.0), (0.05, 0.2)]
"""A calm one, a noisy one, and one that stops for a second in every fifth trial."""


@pytest.mark.parametrize(("noise", "storms"), HOSTS)
def test_best_remains_and_what_is_clearly_worse_leaves(noise: float, storms: float) -> None:
    best, worse_left = kept(8, noise, storms)
    from scipy import stats

    assert 8 - best <= stats.binom.isf(0.001, 8, 0.05)
    assert worse_left < (0.9 if storms else 0.5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("noise", "storms"), HOSTS)
def test_best_remains_in_95_of_100_searches(noise: float, storms: float) -> None:
    best, worse_left = kept(200, noise, storms)
    assert best >= 0.95 * 200
    assert worse_left < (0.6 if storms else 0.3)


def test_candidate_that_is_cheaper_remains_and_one_that_is_dearer_and_no_faster_leaves() -> None:
    made = [constant(0.001), constant(0.002), constant(0.002)]
    remaining = searched(Simulated(made, key=1, cores=[2.0, 1.0, 2.0]))
    assert remaining.alive == [0, 1]
    assert remaining.out[2].startswith("beaten: ")
    assert remaining.out[2].endswith("of the rate of candidate 0")
    rates = {one: remaining.rate(one) or 0.0 for one in remaining.alive}
    assert front(rates, {0: (2.0, 100.0), 1: (1.0, 100.0)}) == [0, 1]


def test_equal_candidates_stay_and_the_search_ends_in_its_time() -> None:
    made = [constant(0.001)] * 6
    simulated = Simulated(made, key=2)
    remaining = searched(simulated, minutes=10.0)
    assert len(remaining.alive) >= 5
    assert remaining.seconds == sorted(remaining.seconds)
    assert sum(len(rates) for rates in remaining.rates.values()) == simulated.trials
    assert sum(6 * (seconds + START_S) for seconds in remaining.seconds) <= 600


@pytest.mark.parametrize("queue", [exponential(0.0005), constant(0.001), two_kinds(0.0005, 0.003, 0.1)])
def test_rising_load_crosses_the_limit_a_little_above_the_capacity(queue: Queue) -> None:
    truth = queue.capacity(LIMIT_S, 0.01)
    slo = Slo(limit_ms=LIMIT_S * 1e3)
    generator = np.random.default_rng(0)
    seen = [queue.rise(PEAK * queue.most, 20.0, generator) for _ in range(30)]
    assert 0.95 * truth <= np.median([one.rate(one.crossed_s(slo)) for one in seen]) <= 1.3 * truth
    assert queue.rise(0.5 * truth, 20.0, generator).is_too_low(slo)
    assert queue.rise(PEAK * queue.most, 20.0, generator).is_nowhere(Slo(limit_ms=1e-6))
