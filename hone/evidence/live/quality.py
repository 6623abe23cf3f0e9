"""How much worse a model has become: a figure of live rows beside the same figure of the proof's, each with its bounds.

Both figures are estimates from independent rows. The bounds of their difference are made of the bounds of each
(Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17, 1998,
method 10; for any figure: Zou and Donner, Statistics in Medicine 27, 2008). A share of right rows has exact bounds
(Clopper and Pearson), another figure those of rows that are drawn again.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hone.records import Verdict

from ..distributions import student
from ..resampling import draw
from ..shares import Share

FEWEST = 20
"""Groups of rows under which a figure has no bounds."""
DRAWS = 400

State = Literal["act", "warn", "holds", "undecided"]
VERDICTS: dict[State, Verdict] = {"act": "missed", "warn": "missed", "holds": "met", "undecided": "undecided"}


@dataclass(frozen=True)
class Estimate:
    """A figure of some rows.

    Attributes:
        point: of them.
        rows: independent groups of them, such as requests.
        error: standard error; 0 where the figure is a share with exact bounds, or is taken as certain.
        right: rows that are right, where the figure is their share; None: it is another one.
        least, most: that the figure can be.
    """

    point: float
    rows: int
    error: float = 0.0
    right: float | None = None
    least: float = -math.inf
    most: float = math.inf

    def low(self, doubt: float) -> float:
        """Return what the figure is above, wrong with a probability of `doubt`."""
        if self.right is not None:
            return Share(math.floor(self.right), self.rows).low(1 - doubt)
        return max(self.least, self.point - self._reach(doubt))

    def high(self, doubt: float) -> float:
        """Return what the figure is below, wrong with a probability of `doubt`."""
        if self.right is not None:
            return Share(math.ceil(self.right), self.rows).high(1 - doubt)
        return min(self.most, self.point + self._reach(doubt))

    def _reach(self, doubt: float) -> float:
        return self.error * student(max(1, self.rows - 1), 1 - doubt) if self.error else 0.0


def estimate(
    figure: Callable[[np.ndarray], float],
    groups: np.ndarray,
    by_row: np.ndarray | None = None,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return a figure of rows with what its bounds are made of.

    Args:
        figure: of the rows of these numbers; NaN where it has none.
        groups: [rows] the request that each row is of: rows of one are alike, and are drawn together.
        by_row: a number for each row whose mean is the figure; where all are 0 or 1, and each request has one row, the
            figure is a share with exact bounds.
        bounds: that it lies between.

    Raises:
        ValueError: too few requests, or the figure can't be computed of them.
    """
    names, places = np.unique(groups, return_inverse=True)
    count = len(names)
    if count < FEWEST:
        raise ValueError(f"{count} labeled requests; {FEWEST} tell something")
    if by_row is not None and count == len(groups) and np.isin(by_row, (0, 1)).all():
        right = float(by_row.sum())
        return Estimate(right / count, count, right=right, least=bounds[0], most=bounds[1])
    order = np.argsort(places, kind="stable")
    ends = np.cumsum(np.bincount(places))
    starts = ends - np.bincount(places)

    def of_groups(drawn: np.ndarray) -> float:
        if count == len(groups):
            return figure(order[drawn])
        return figure(np.concatenate([order[starts[one] : ends[one]] for one in drawn]))

    found = draw(of_groups, count, DRAWS)
    if not math.isfinite(found.point):
        raise ValueError("the figure can't be computed of these rows")
    return Estimate(found.point, count, found.bounds().error, None, *bounds)


@dataclass(frozen=True)
class Loss:
    """How much worse live rows are than the proof's, as a share of the proof's figure.

    Attributes:
        point: negative: they are better.
        low, high: its bounds.
        sure: lower bound with the confidence of all looks of a month.
    """

    point: float
    low: float
    high: float
    sure: float

    def state(self, warn: float, act: float) -> State:
        """Return what to do: by the bounds, never by the point. `act` is sure beyond all looks of a month."""
        if self.low > act and self.sure > 0:
            return "act"
        if self.low > warn:
            return "warn"
        return "holds" if self.high <= act else "undecided"


def loss(live: Estimate, proof: Estimate, *, higher_is_better: bool, doubt: float, sure: float) -> Loss:
    """Return how much worse the live rows are.

    Args:
        live, proof: the same figure of both.
        doubt: that a bound may be wrong with.
        sure: the same, for saying that anything is lost at all.
    """
    scale = abs(proof.point) or 1.0
    sign = -1.0 if higher_is_better else 1.0
    point = sign * (live.point - proof.point) / scale

    def bound(doubt: float) -> tuple[float, float]:
        worse = _worse(live, doubt, higher_is_better), _worse(proof, doubt, higher_is_better)
        better = _better(live, doubt, higher_is_better), _better(proof, doubt, higher_is_better)
        down = math.hypot(live.point - better[0], proof.point - worse[1]) / scale
        up = math.hypot(live.point - worse[0], proof.point - better[1]) / scale
        return point - down, point + up

    low, high = bound(doubt)
    return Loss(point, low, high, bound(sure)[0])


def _worse(of: Estimate, doubt: float, higher_is_better: bool) -> float:
    return of.low(doubt) if higher_is_better else of.high(doubt)


def _better(of: Estimate, doubt: float, higher_is_better: bool) -> float:
    return of.high(doubt) if higher_is_better else of.low(doubt)


def rows_to_decide(live: Estimate, found: Loss, act: float) -> int | None:
    """Return about how many labeled requests like these would tell whether so much is lost; None: it is too near."""
    gap = abs(found.point - act)
    reach = (found.high - found.low) / 2
    if gap <= 1e-3 or reach <= 0:
        return None
    return max(FEWEST, math.ceil(live.rows * (reach / gap) ** 2))
