"""Simulated services whose capacity is known: a queue with Poisson arrivals before one server."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import expm
from scipy.optimize import brentq

from hone.benchmarks.capacity.runs import Observed
from hone.benchmarks.tuning.ramp import Rising

Draw = Callable[[np.random.Generator, int], np.ndarray]


@dataclass(frozen=True)
class Queue:
    """A server with Poisson arrivals.

    Attributes:
        draw: service times in seconds.
        slow: share of requests that take longer than so many seconds, at an arrival rate, in the long run.
        most: rate at which it is always busy.
    """

    draw: Draw
    slow: Callable[[float, float], float]
    most: float

    def capacity(self, limit_s: float, allowed: float) -> float:
        """Return the rate at which the share that takes longer than the limit is what is allowed."""
        found: float = brentq(lambda rate: self.slow(rate, limit_s) - allowed, 1e-6, self.most * 0.99999)
        return found

    def load(self, key: int, warm_up_s: float = 1.0) -> Callable[[float, float, int], Observed]:
        """Return a load of the queue; without sleeping: a run takes as long as it says."""

        def run(rate: float, seconds: float, seed: int) -> Observed:
            generator = np.random.default_rng((key, seed))
            arrivals = np.cumsum(generator.exponential(1 / rate, max(10, int(1.2 * rate * (seconds + warm_up_s) + 50))))
            arrivals = arrivals[arrivals < seconds + warm_up_s]
            latencies = sojourn(arrivals, self.draw(generator, len(arrivals)))
            counted = arrivals >= warm_up_s
            return Observed(
                intended=arrivals[counted] - warm_up_s,
                latencies_ms=latencies[counted] * 1e3,
                failed=np.zeros(int(counted.sum()), bool),
                seconds=seconds,
                took_s=seconds + warm_up_s + 1,
            )

        return run

    def rise(self, peak: float, seconds: float, generator: np.random.Generator) -> Rising:
        """Return what a load sees whose rate rises from none to a peak."""
        arrivals = np.sort(seconds * np.sqrt(generator.random(generator.poisson(peak * seconds / 2))))
        latencies = sojourn(arrivals, self.draw(generator, len(arrivals)))
        return Rising(arrivals, latencies * 1e3, np.zeros(len(arrivals), bool), seconds, peak)


def sojourn(arrivals: np.ndarray, service: np.ndarray) -> np.ndarray:
    """Return the seconds from arrival to answer, by Lindley's recursion as one sum and one running minimum."""
    steps = np.empty(len(arrivals))
    steps[:1] = 0.0
    steps[1:] = service[:-1] - np.diff(arrivals)
    walk = np.cumsum(steps)
    return walk - np.minimum(np.minimum.accumulate(walk), 0.0) + service


def exponential(service_s: float) -> Queue:
    """M/M/1: P(T > t) = exp(-(mu - lambda) t)."""
    return Queue(
        lambda generator, count: generator.exponential(service_s, count),
        lambda rate, limit_s: math.exp(-(1 / service_s - rate) * limit_s),
        1 / service_s,
    )


def constant(service_s: float) -> Queue:
    """M/D/1, by Erlang's recursion over whole service times (Franx, A simple solution for the M/D/c waiting time
    distribution, Operations Research Letters 29, 2001, for one server)."""

    def slow(rate: float, limit_s: float) -> float:
        wait = limit_s - service_s
        load = rate * service_s
        whole = int(wait / service_s)
        # The requests in the system after a departure: P(Q <= k), of the embedded chain of arrivals in a service time.
        arrivals = [math.exp(-load) * load**k / math.factorial(k) for k in range(min(whole + 60, 150))]
        chain = [1 - load]
        for k in range(whole + 1):
            known = chain[k] - chain[0] * arrivals[k] if k < len(arrivals) else chain[k]
            known -= sum(chain[j] * arrivals[k - j + 1] for j in range(1, k + 1) if k - j + 1 < len(arrivals))
            chain.append(max(known / arrivals[0], 0.0))
        below = np.cumsum(chain)
        rest = (whole + 1) * service_s - wait
        mean = rate * rest
        # P(W <= x): at most whole - j wait, and j arrive in the rest of the service time.
        terms = (
            below[whole - j + 1] * math.exp(-mean) * mean**j / math.factorial(j) for j in range(min(whole, 100) + 1)
        )
        return 1 - float(sum(terms))

    return Queue(lambda generator, count: np.full(count, service_s), slow, 1 / service_s)


def two_kinds(fast_s: float, slow_s: float, share: float) -> Queue:
    """M/H2/1: some requests take longer; the waiting time is of phase type (Neuts, 1981)."""
    mean = (1 - share) * fast_s + share * slow_s
    phases = np.diag([-1 / fast_s, -1 / slow_s])
    first = np.array([1 - share, share])

    def slow(rate: float, limit_s: float) -> float:
        load = rate * mean
        # Pollaczek and Khinchine: a geometric number of residual service times, then the service time itself.
        residual = np.array([(1 - share) * fast_s, share * slow_s]) / mean
        leaving = -phases.sum(axis=1)
        waiting = phases + np.outer(leaving, load * residual)
        both = np.block([[waiting, np.outer((1 - load) * leaving, first)], [np.zeros((2, 2)), phases]])
        start = np.concatenate([load * residual, (1 - load) * first])
        return float((start @ expm(both * limit_s)).sum())

    def draw(generator: np.random.Generator, count: int) -> np.ndarray:
        return generator.exponential(np.where(generator.random(count) < share, slow_s, fast_s))

    return Queue(draw, slow, 1 / mean)
