"""What a figure is between: intervals of a percentile, a mean, and the ratio of two figures."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from .distributions import student
from .shares import Share, share_over

Interval = tuple[float, float]


def quantile_interval(values: np.ndarray, level: float, confidence: float) -> Interval:
    """Return what the quantile of a series in time is between: the quantiles at the bounds of the share below it
    (Woodruff, Confidence intervals for medians and other position measures, JASA 47, 1952).

    Values that follow each other count as fewer; where those are too few, a bound is the smallest or the largest.

    Args:
        values: in the order of time.
        level: of the quantile, 0 to 1.
        confidence: of both bounds together.
    """
    found = np.quantile(values, level)
    share = share_over(values > found, values, 1 - level)
    exact = Share(round((1 - level) * share.of), share.of, share.effect)
    one_sided = (1 + confidence) / 2
    levels = 1 - exact.high(one_sided), 1 - exact.low(one_sided)
    low, high = (float(value) for value in np.quantile(values, levels))
    return low, high


def mean_interval(values: Sequence[float], confidence: float) -> Interval:
    """Return what the mean is between, by Student's distribution.

    Args:
        values: at least two, independent of each other.
        confidence: of both bounds together.
    """
    mean, error = float(np.mean(values)), float(np.std(values, ddof=1)) / math.sqrt(len(values))
    reach = student(len(values) - 1, (1 + confidence) / 2) * error
    return mean - reach, mean + reach


def ratio(ours: tuple[float, Interval], theirs: tuple[float, Interval]) -> tuple[float, float, float]:
    """Return (low, middle, high) of our figure over theirs, each positive and given with its interval.

    It is the method of variance estimates recovery on logarithms (Zou and Donner, Construction of confidence limits
    about effect measures, Statistics in Medicine 27, 2008).
    """
    one, (one_low, one_high) = ours
    other, (other_low, other_high) = theirs
    middle = math.log(one / other)
    below = math.hypot(_apart(one, one_low), _apart(other_high, other))
    above = math.hypot(_apart(one_high, one), _apart(other, other_low))
    return math.exp(middle - below), math.exp(middle), math.exp(middle + above)


def _apart(high: float, low: float) -> float:
    """Return the logarithm of high / low; a bound on the wrong side of its figure, by interpolation, is the figure."""
    return max(0.0, math.log(high / max(low, 1e-12)))
