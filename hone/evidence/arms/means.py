"""The difference of two arms' means, with an interval that holds at all moments at once.

A **unit** is what was dealt to an arm: a caller, or where callers aren't kept at an arm a request. A unit's figures are
one, whatever their number: the mean of an arm is the sum of its units' figures over the sum of their counts, and its
variance that of a ratio (the delta method; Deng, Lu and Litz, Trustworthy analysis of online A/B tests, WSDM 2017).

A unit that comes back adds to its sum while the test runs, and what it adds goes with what it had. Sums whose
increments go together cross a bound in units of their own standard error less often than a Brownian motion does
(Slepian, The one-sided barrier problem for Gaussian noise, Bell System Technical Journal 41, 1962), so the bound is
kept. Were units to do the opposite of what they did before, it would not be.

Few large figures in the smaller arm make its mean and its variance small together, and a standard error from that
variance finds winners where there are none: with 3 % of buyers and one unit in ten in the arm, in 17 % of all tests. So
the variance of both arms together is taken where it is the larger one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from .sequence import FEWEST, reach

MOST_MISSING = 100_000_000
"""Units beyond which a question isn't going to be answered."""


@dataclass(frozen=True)
class Sums:
    """Sums over an arm's units; numbers, or arrays of a shape to look at many moments.

    Attributes:
        units: how many.
        counts: of their figures.
        totals: of their figures' sums.
        squares: of those sums squared.
        crossed: of sums times counts.
        counts_squared: of counts squared.
    """

    units: Any = 0.0
    counts: Any = 0.0
    totals: Any = 0.0
    squares: Any = 0.0
    crossed: Any = 0.0
    counts_squared: Any = 0.0

    @classmethod
    def of(cls, counts: np.ndarray, totals: np.ndarray) -> Sums:
        """Return the sums of units [units]: how many figures each has, and what they are together."""
        return cls(
            len(counts), counts.sum(), totals.sum(), (totals**2).sum(), (totals * counts).sum(), (counts**2).sum()
        )

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    @property
    def mean(self) -> Any:
        """Of the figures; 0 where there are none."""
        return self.totals / np.maximum(self.counts, 1e-100)

    @property
    def variance(self) -> Any:
        """Of what one unit adds to the mean, so that the mean's own is this over the number of units."""
        mean, size = self.mean, self.counts / np.maximum(self.units, 1)
        around = self.squares - 2 * mean * self.crossed + mean**2 * self.counts_squared
        return np.maximum(around, 0.0) / np.maximum(self.units - 1, 1) / np.maximum(size, 1e-100) ** 2


@dataclass(frozen=True)
class Difference:
    """How an arm compares with the control.

    Attributes:
        mean, control: of both.
        point: difference of the means.
        low, high: what it is between; infinite while there are too few units.
        error: standard error of the point.
        units: of both arms.
    """

    mean: float
    control: float
    point: float
    low: float
    high: float
    error: float
    units: int


def standard_error(ours: Sums, theirs: Sums) -> Any:
    """Return the standard error of the difference of two means: the larger of two estimates."""
    few, many = np.maximum(ours.units, 1), np.maximum(theirs.units, 1)
    apart = ours.variance / few + theirs.variance / many
    together = (ours + theirs).variance * (1 / few + 1 / many)
    return np.sqrt(np.maximum(apart, together))


def difference(ours: Sums, theirs: Sums, planned: float, risk: float) -> Difference:
    """Return an arm's mean less the control's.

    Args:
        planned: units of both at which the interval is to be shortest.
        risk: that the interval is ever wrong.
    """
    error, units = float(standard_error(ours, theirs)), int(ours.units + theirs.units)
    mean, control = float(ours.mean), float(theirs.mean)
    far = math.inf
    if min(ours.units, theirs.units) >= FEWEST:
        far = error * float(reach(units / planned, risk))
    point = mean - control
    return Difference(mean, control, point, point - far, point + far, error, units)


def units_missing(found: Difference, planned: float, risk: float) -> int | None:
    """Return how many more units of both arms would exclude 0, the difference and its spread staying as they are, to
    two digits; None: not even the most."""
    if not found.units or not found.error or not found.point:
        return None
    have = max(found.units, 2 * FEWEST)
    scale = found.error * math.sqrt(found.units)
    for many in np.geomspace(have, MOST_MISSING, 400):
        if scale / math.sqrt(many) * float(reach(many / planned, risk)) < abs(found.point):
            more = max(1, int(many) - found.units)
            return round(more, -max(0, len(str(more)) - 2))
    return None
