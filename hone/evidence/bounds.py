"""The statistics behind a verdict: pure functions of numbers, without files, clocks or processes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

import numpy as np

CONFIDENCE = 0.95
MATERIAL = 0.05
"""A smaller difference in speed is no difference: two processes that run the same code differ by as much."""


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return bounds of the median of what the values are drawn from, whatever its distribution.

    The bounds are order statistics: the median lies below the k-th smallest of n values with the probability of fewer
    than k heads in n throws of a coin (David and Nagaraja, Order Statistics, 7.1). Fewer than six values can't give
    95 %; then the bounds are the smallest and the largest.
    """
    ordered = sorted(values)
    count = len(ordered)
    outside, rank = 0.5**count, 0
    while rank + 1 < count - rank - 1:
        outside += math.comb(count, rank + 1) * 0.5**count
        if 2 * outside > 1 - confidence:
            break
        rank += 1
    return ordered[rank], ordered[count - 1 - rank]


def round_percentiles(rounds: Sequence[np.ndarray], shares: Sequence[float]) -> list[float]:
    """Return percentiles over all values, each round counting as much as any other.

    A disturbed round holds fewer calls, because each took longer; counted by the call it would all but vanish.

    Args:
        rounds: values of each round.
        shares: percentiles, 0 to 100.
    """
    values = np.concatenate(rounds)
    weights = np.concatenate([np.full(len(one), 1 / len(one)) for one in rounds])
    order = np.argsort(values, kind="stable")
    below = np.cumsum(weights[order]) / len(rounds)
    places = [min(int(np.searchsorted(below, share / 100 - 1e-12)), len(values) - 1) for share in shares]
    return [float(values[order[place]]) for place in places]


def ratio_interval(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, float, float]:
    """Return (low, median, high) of our time over theirs, from rounds that both took part in.

    A round is compared with itself only: what disturbed the host in it disturbed both.

    Raises:
        ValueError: the rounds are not the same number.
    """
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    low, high = median_interval(ratios)
    return low, median(ratios), high


def is_faster(ours: Sequence[float], theirs: Sequence[float], by: float = MATERIAL) -> bool:
    """True when our times are beyond doubt, and by at least a share of them, below theirs of the same rounds."""
    _, middle, high = ratio_interval(ours, theirs)
    return high < 1 and middle <= 1 - by


def shuffles(rows: int, count: int) -> list[np.ndarray]:
    """Return so many orders of the rows, always the same ones."""
    generator = np.random.default_rng(0)
    return [generator.permutation(rows) for _ in range(count)]


def r_squared(values: np.ndarray, reference: np.ndarray) -> float:
    """Return the share of the reference's variance that the values explain, 1 - sum of squared errors / sum of squares
    around the mean of each column: 1 for equal arrays, 0 for a constant at the mean, negative for worse.

    Args:
        values: [rows, ...].
        reference: of the same shape.

    Raises:
        ValueError: the reference is the same in every row.
    """
    ours, theirs = (array.reshape(len(array), -1).astype(np.float64) for array in (values, reference))
    spread = float(((theirs - theirs.mean(axis=0)) ** 2).sum())
    if spread <= 0:
        raise ValueError("the reference is the same in every row")
    return 1 - float(((ours - theirs) ** 2).sum()) / spread
