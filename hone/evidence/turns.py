"""Two things measured in turns, one of them twice: how much they differ, and what the measurement could have seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .distributions import student

CONFIDENCE = 0.99
"""Of a verdict: it is wrong about two equal things once in a hundred times."""

POWER = 0.9
"""How likely the smallest difference that is stated would have been seen."""

FEWEST = 6
"""Turns under which nothing is said: their spread is an estimate of a few."""

Outcome = Literal["faster", "slower", "can't tell"]


@dataclass(frozen=True)
class Paired:
    """The time of one thing over the other's, over all turns.

    Attributes:
        ratio: geometric mean.
        low, high: its interval.
        smallest: share by which they must differ to be told apart nine times in ten.
    """

    ratio: float
    low: float
    high: float
    smallest: float


def paired(logs: Sequence[float]) -> Paired:
    """Return what the logarithms of a ratio, one a turn, say of it: Student's t on the paired differences.

    Raises:
        ValueError: fewer than two turns.
    """
    count = len(logs)
    if count < 2:
        raise ValueError("an interval takes two turns")
    mean, error = float(np.mean(logs)), float(np.std(logs, ddof=1)) / math.sqrt(count)
    reach = student(count - 1, (1 + CONFIDENCE) / 2)
    seen = (reach + student(count - 1, POWER)) * error
    return Paired(math.exp(mean), math.exp(mean - reach * error), math.exp(mean + reach * error), math.expm1(seen))


def against_itself(first: Sequence[float], again: Sequence[float]) -> Paired:
    """Return a thing over itself: the control, whose ratio is 1 unless something disturbed the turns."""
    return paired([math.log(one / other) for one, other in zip(again, first, strict=True)])


def against_other(first: Sequence[float], again: Sequence[float], other: Sequence[float]) -> Paired:
    """Return another thing over one that was measured twice in each turn, over the mean of both."""
    logs = [math.log(b) - (math.log(one) + math.log(two)) / 2 for one, two, b in zip(first, again, other, strict=True)]
    return paired(logs)


def outcome(other: Paired, control: Paired, turns: int) -> Outcome:
    """Return whether the other thing is faster or slower, beyond doubt.

    A control that differs from itself beyond doubt says that the turns were disturbed: nothing follows from them.
    """
    if turns < FEWEST or not control.low <= 1 <= control.high:
        return "can't tell"
    if other.low > 1:
        return "slower"
    return "faster" if other.high < 1 else "can't tell"
