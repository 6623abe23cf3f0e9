"""Bounds of any figure of some rows, by computing it again on rows drawn from them.

A bound is the quantile of such figures that is corrected for their bias and skewness (BCa: Efron, Better bootstrap
confidence intervals, JASA 82, 1987), farther out by Student's quantile where rows are few (Hesterberg, What teachers
should know about the bootstrap, The American Statistician 69, 2015).

Rows that aren't there can't be drawn: where hardly a row makes a difference, every figure is the same, and its bounds
would be a point. The rule of three says how many more such rows there may be (Hanley and Lippman-Hand, If nothing goes
wrong, is everything all right?, JAMA 249, 1983); a caller that knows what a row can cost adds so much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .distributions import normal_below, normal_quantile, student

DRAWS = 2000
FEWEST_DRAWS = 400
MOST_DRAWN = 40_000_000
"""Rows that are drawn in all: of many rows, so many draws."""

GROUPS = 100
"""Groups of rows that are left out, one after the other, to see the skewness."""

SEED = 0
FAILED = 0.05
"""A figure that can't be computed on more of the draws has no bounds."""

POWER = 0.8

Figure = Callable[[np.ndarray], float]
"""Of the rows of these numbers; NaN where it has none."""


@dataclass(frozen=True)
class Resampled:
    """A figure of rows, and of rows drawn from them.

    Attributes:
        point: of the rows themselves.
        drawn: of the draws, ascending.
        skew: the acceleration of the BCa bound.
        rows: that were drawn from.
        failed: draws on which there was no figure.
    """

    point: float
    drawn: np.ndarray
    skew: float
    rows: int
    failed: int = 0

    @property
    def error(self) -> float:
        """The figure's standard error."""
        return float(self.drawn.std(ddof=1)) if len(self.drawn) > 1 else 0.0

    @property
    def telling(self) -> float:
        """About how many rows make a difference, up to about seven: a draw is without all of them with a probability
        of one over e to so many."""
        same = np.mean(np.abs(self.drawn - np.median(self.drawn)) <= 1e-12 * max(1.0, abs(self.point)))
        return -math.log(max(float(same), 1 / (len(self.drawn) + 1)))

    def upper(self, confidence: float) -> float:
        """Return the bound that the figure is below with so much confidence."""
        return self._bound(confidence)

    def lower(self, confidence: float) -> float:
        """Return the bound that the figure is above with so much confidence."""
        return self._bound(1 - confidence)

    def _bound(self, level: float) -> float:
        draws = len(self.drawn)
        below = (np.sum(self.drawn < self.point) + np.sum(self.drawn <= self.point)) / 2
        bias = normal_quantile(float(np.clip(below / draws, 0.5 / draws, 1 - 0.5 / draws)))
        reach = bias + student(self.rows - 1, level) * math.sqrt(self.rows / (self.rows - 1))
        slope = max(1 - self.skew * reach, 0.1)
        corrected = normal_below(bias + reach / slope)
        return float(np.quantile(self.drawn, corrected, method="higher" if level > 0.5 else "lower"))

    def rows_to_decide(self, allowed: float, confidence: float) -> int | None:
        """Return about how many rows like these would tell whether the figure is allowed, four times in five; None: it
        is too near to what is allowed."""
        gap = abs(allowed - self.point)
        if gap <= 1e-3 * self.error or gap == 0:
            return None
        wide = (normal_quantile(confidence) + normal_quantile(POWER)) * self.error
        return max(2, math.ceil(self.rows * (wide / gap) ** 2))


@dataclass(frozen=True)
class Draws:
    """A figure of rows, of rows drawn from them, and of what is left without a group of them.

    Attributes:
        point: of the rows themselves.
        drawn: of the draws, in their order.
        left_out: without each group, in their order.
        rows: that were drawn from.
    """

    point: float
    drawn: np.ndarray
    left_out: np.ndarray
    rows: int

    def less(self, other: Draws) -> Draws:
        """Return how much larger this figure is than another of the same rows: row by row, draw by draw."""
        return Draws(self.point - other.point, self.drawn - other.drawn, self.left_out - other.left_out, self.rows)

    def times(self, sign: int) -> Draws:
        return Draws(sign * self.point, sign * self.drawn, sign * self.left_out, self.rows)

    def plus(self, number: float) -> Draws:
        return Draws(self.point + number, self.drawn + number, self.left_out + number, self.rows)

    def bounds(self) -> Resampled:
        """Return what bounds the figure has.

        Raises:
            ValueError: it can't be computed on more than a twentieth of the draws.
        """
        failed = int(np.isnan(self.drawn).sum())
        if failed > FAILED * len(self.drawn):
            raise ValueError(f"it can't be computed on {failed} of {len(self.drawn)} draws of the rows")
        known = self.left_out[np.isfinite(self.left_out)]
        apart = known.mean() - known if known.size else np.zeros(1)
        squares = float((apart**2).sum())
        skew = float((apart**3).sum()) / (6 * squares**1.5) if squares > 0 else 0.0
        return Resampled(self.point, np.sort(self.drawn[~np.isnan(self.drawn)]), skew, self.rows, failed)


def draw(figure: Figure, rows: int, draws: int = DRAWS) -> Draws:
    """Draw rows, the same ones each time it is called, and compute a figure of each draw.

    Args:
        figure: given the numbers of rows, with repetitions; NaN where it can't be computed of these.
        rows: at least two.
        draws: at most; of very many rows fewer.
    """
    draws = min(draws, max(FEWEST_DRAWS, MOST_DRAWN // rows))
    generator = np.random.default_rng(SEED)
    groups = np.array_split(np.random.default_rng(SEED).permutation(rows), min(rows, GROUPS))
    everything = np.arange(rows)
    return Draws(
        figure(everything),
        np.array([figure(generator.integers(0, rows, rows)) for _ in range(draws)]),
        np.array([figure(np.delete(everything, group)) for group in groups]),
        rows,
    )


def mean_of(values: np.ndarray) -> Figure:
    """Return the mean of a value a row, as a figure to draw."""
    return lambda rows: float(values[rows].mean())
