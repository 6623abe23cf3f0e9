"""How the share of slow requests grows with the rate: a line through the logarithms, near the limit.

The tail of a queue's waiting time falls as exp(-theta x), with a theta that is close to linear in the rate over a few
percent of it (Cramér and Lundberg's bound), so the logarithm of a share above a fixed limit is close to a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hone.capacity import Trial
from hone.evidence.shares import Share

NEAR = 0.2
"""Trials of rates that are further from the limit, as a share of it, tell nothing of the line but for the nearest."""

MOST_OVER = 10.0
"""So much of what is allowed may be over the limit; an overloaded service is off the line."""

FURTHEST = 0.08
"""The crossing is so near to where trials change sides, as a share of the rate."""

STEEPEST, FLATTEST = 100.0, 3.0
"""Of the logarithm of the share, over the relative rate: from a queue at its edge to one that hardly waits."""

MOST_WEIGHT = 100.0


@dataclass(frozen=True)
class Curve:
    """log(share) = log(allowed) + slope x (rate / crossing - 1).

    Attributes:
        crossing: rate in requests/s at which the share is what is allowed.
        slope: of the logarithm over the relative rate.
        effects: (rate, requests that tell as much as one independent one), of trials near there.
    """

    crossing: float
    slope: float
    allowed: float
    effects: tuple[tuple[float, float], ...]

    def share(self, rate: float) -> float:
        return self.allowed * math.exp(self.slope * (rate / self.crossing - 1))

    def seconds_to_prove(self, rate: float, confidence: float) -> float:
        """Return the seconds of load after which a proof at a rate below the crossing is likely to be there."""
        share = self.share(rate)
        if share >= self.allowed:
            return math.inf
        many = 10_000_000
        wanted = Share(round(share * many), many, self.effect(rate)).requests_to_decide(self.allowed, confidence)
        return math.inf if wanted is None else wanted / rate

    def effect(self, rate: float) -> float:
        """Return the largest effect of the trials at about a rate or a little below it; else the smallest above."""
        about = [effect for tried, effect in self.effects if 0.85 * rate <= tried <= 1.02 * rate]
        return max(about, default=min((effect for tried, effect in self.effects if tried > rate), default=1.0))


def fit(trials: Sequence[Trial], allowed: float) -> Curve | None:
    """Return the line through all trials near the limit; None where they are on one side of it.

    Args:
        trials: with the requests over the limit, and all of them.
        allowed: share of requests that may be over it.
    """
    counted = [trial for trial in trials if trial.requests]
    below = [trial.rate for trial in counted if trial.over <= allowed * trial.requests]
    above = [trial.rate for trial in counted if trial.over > allowed * trial.requests]
    if not below or not above:
        return None
    rates = sorted({trial.rate for trial in counted})
    middle = _middle(rates, counted, allowed)
    sides = max(rate for rate in rates if rate < middle), min(rate for rate in rates if rate > middle)
    near = [
        trial
        for trial in counted
        if trial.rate in sides
        or (abs(trial.rate / middle - 1) <= NEAR and trial.over <= MOST_OVER * allowed * trial.requests)
    ]
    x = np.array([trial.rate / middle - 1 for trial in near])
    shares = np.array([(trial.over + 0.5) / (trial.requests + 1) for trial in near])
    y = np.clip(np.log(shares / allowed), -math.log(MOST_OVER), math.log(MOST_OVER))
    expected = [max(trial.over, allowed * trial.requests) / trial.effect for trial in near]
    weights = np.minimum(np.array(expected) + 0.5, MOST_WEIGHT)
    slope, offset = _line(x, y, weights)
    crossing = middle * (1 + float(np.clip(-offset / slope, -FURTHEST, FURTHEST)))
    return Curve(crossing, slope, allowed, tuple((trial.rate, trial.effect) for trial in near))


def _line(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return slope and offset by least squares, the slope as it can be of a queue."""
    mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
    spread = np.average((x - mean_x) ** 2, weights=weights)
    slope = np.average((x - mean_x) * (y - mean_y), weights=weights) / spread if spread > 0 else STEEPEST
    slope = float(np.clip(slope, FLATTEST, STEEPEST))
    return slope, float(mean_y - slope * mean_x)


def _middle(rates: Sequence[float], trials: Sequence[Trial], allowed: float) -> float:
    """Return the rate that has the least requests on its wrong side: over the limit below it, within it above."""
    places = [(low + high) / 2 for low, high in pairwise(rates)]

    def wrong(place: float) -> float:
        return sum(
            trial.duration_s for trial in trials if (trial.over > allowed * trial.requests) == (trial.rate < place)
        )

    return min(places, key=wrong)
