"""How many units a test takes: the always-valid one, and for comparison one that is looked at once, at its end.

Sums of figures are a Brownian motion with a drift; how likely it has crossed the bound by the planned end is summed up
over steps in time (Armitage, McPherson and Rowe, Repeated significance tests on accumulating data, JRSS A 132, 1969).
All is in units of the planned end, so that one drift answers for every figure: what a test takes goes with the variance
over the squared effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ..distributions import normal_quantile
from .sequence import reach

STEPS, PLACES = 70, 121
"""In time, and in space between both bounds: with more the units change by about a hundredth."""

EARLIEST = 0.01
"""Part of the planned units before which no effect that was planned for is found."""

MOST_DRIFT = 10.0


@dataclass(frozen=True)
class Needed:
    """What a test takes.

    Attributes:
        units: of all arms together, at which an effect is found with the power asked for.
        half: units at which it is found in half of such tests.
        once: units of a test that is looked at once, when they are there: of all arms together.
    """

    units: int
    half: int
    once: int


def units_needed(
    effect: float, deviations: tuple[float, ...], weights: tuple[float, ...], risk: float, power: float
) -> Needed:
    """Return how many units find the smallest effect that matters.

    Args:
        effect: difference of the means, not 0.
        deviations: standard deviation of a unit's figure, in each arm; the first is the control.
        weights: share of the units that each arm gets.
        risk: of all comparisons with the control together.
        power: that the effect is found by then, in the variant for which it takes most.
    """
    each = risk / (len(weights) - 1)
    spread = max(
        deviations[0] ** 2 / weights[0] + other**2 / weight
        for other, weight in zip(deviations[1:], weights[1:], strict=True)
    )
    drift, half = _drift(each, power)
    unit = spread / effect**2
    once = (normal_quantile(1 - each / 2) + normal_quantile(power)) ** 2
    return Needed(math.ceil(drift**2 * unit), math.ceil(half * drift**2 * unit), math.ceil(once * unit))


@lru_cache(32)
def _drift(risk: float, power: float) -> tuple[float, float]:
    """Return the drift that crosses the bound by time 1 with the power asked for, and when half of such tests have."""
    low, high = 0.0, MOST_DRIFT
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if crossed(middle, risk)[1][-1] < power else (low, middle)
    times, shares = crossed(high, risk)
    return high, float(np.interp(0.5, shares, times))


def crossed(drift: float, risk: float) -> tuple[np.ndarray, np.ndarray]:
    """Return times up to 1, and the share of Brownian motions with a drift that have crossed the bound by each."""
    times = np.geomspace(EARLIEST, 1.0, STEPS)
    bounds = np.sqrt(times) * reach(times, risk)
    places = np.linspace(-1, 1, PLACES)
    weights = np.full(PLACES, places[1] - places[0])
    weights[[0, -1]] /= 2
    density = _normal(places * bounds[0], drift * times[0], times[0]) * bounds[0]
    left = [1 - float(density @ weights)]
    for before, now in zip(range(STEPS - 1), range(1, STEPS), strict=True):
        passed = times[now] - times[before]
        moves = places[:, None] * bounds[now] - places * bounds[before]
        density = (_normal(moves, drift * passed, passed) * bounds[now]) @ (density * weights)
        left.append(1 - float(density @ weights))
    return times, np.maximum.accumulate(left)


def _normal(values: np.ndarray, mean: float, variance: float) -> np.ndarray:
    found: np.ndarray = np.exp(-((values - mean) ** 2) / (2 * variance)) / math.sqrt(2 * math.pi * variance)
    return found
