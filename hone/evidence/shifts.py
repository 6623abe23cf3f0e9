"""How far rows have moved from others: the largest change of the share of rows in any of a few sets, with bounds.

The sets are fixed before the rows are seen: the rows up to each tenth of a feature's values, between two of them, in a
category, missing, outside of what was seen. Over the first the largest change is the Kolmogorov-Smirnov distance on a
grid, over categories of two it is the total variation; it is never more than the total variation, so neither is its
lower bound.

A share's bounds are those of Clopper and Pearson (Biometrika 26, 1934); a difference's are made from both by squaring
and adding (Newcombe, Interval estimation for the difference between independent proportions, Statistics in Medicine 17,
1998, method 10; Zou and Donner, Statistics in Medicine 27, 2008). All sets share the doubt (Bonferroni). What a sketch
may be off is added in the same way. Rows that came in one request count as the fewer independent ones that tell as
much (Kish, Survey Sampling, 1965).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from hone.records import Verdict

from .distributions import beta_quantiles, chi_square_above

HOURS_A_MONTH = 720


@dataclass(frozen=True)
class Counted:
    """Rows counted into cells that don't overlap.

    Attributes:
        cells: [..., cells] rows in each; not whole numbers where they are estimated.
        effect: rows that tell as much as one independent one does, 1 or more.
        error: standard deviation of a share that comes from a sketch, beside that of chance.
    """

    cells: np.ndarray
    effect: float = 1.0
    error: float = 0.0

    @property
    def rows(self) -> np.ndarray:
        """[..., 1] All of them."""
        return np.asarray(self.cells.sum(axis=-1, keepdims=True))

    @property
    def independent(self) -> np.ndarray:
        """[..., 1] The independent rows that tell as much."""
        return np.asarray(self.rows / max(1.0, self.effect))


@dataclass(frozen=True)
class Change:
    """The largest change over the sets.

    Attributes:
        point: as seen, 0 to 1.
        low, high: bounds with the confidence of one look at one feature.
        sure: lower bound with the confidence of all looks of a month together; over 0: something has moved.
        where: index of the set whose change is surest.
        signed: change of that set's share; over 0: more rows are in it now.
    """

    point: float
    low: float
    high: float
    sure: float
    where: int
    signed: float

    def verdict(self, threshold: float) -> Verdict:
        """Return `missed` for a change that is beyond the threshold and not by chance, `met` for one below it."""
        if self.sure > 0 and self.low > threshold:
            return "missed"
        return "met" if self.high < threshold else "undecided"


@dataclass(frozen=True)
class Budget:
    """False alarms that a model may raise, shared out among all its looks (Bonferroni: looks may overlap).

    Attributes:
        a_month: expected number of false alarms in 30 days while nothing moves; at most.
        looks: in 30 days, each of all features at once.
        confidence: of the bounds of one feature in one look.
    """

    a_month: float = 0.1
    looks: int = HOURS_A_MONTH
    confidence: float = 0.99

    def doubts(self, own: int, total: int) -> tuple[float, float]:
        """Return the doubt of a test in one direction: for a feature's bounds, and for saying that it moved at all.

        Args:
            own: tests of the feature in a look.
            total: tests of all features in a look.
        """
        return (1 - self.confidence) / (2 * own), self.a_month / self.looks / (2 * total)


def largest_change(live: Counted, reference: Counted, sets: np.ndarray, doubt: float, sure: float) -> Change:
    """Return the largest change from the reference to the live rows.

    Args:
        live, reference: [cells] of one feature.
        sets: [sets, cells] 1 where a cell belongs to a set.
        doubt: that any of the set's bounds may be wrong with, in each direction.
        sure: the same, for `Change.sure`.
    """
    if not live.rows.item() or not reference.rows.item():
        return Change(0.0, 0.0, 1.0, 0.0, 0, 0.0)
    gaps = share(live, sets) - share(reference, sets)
    low, high = gap_bounds(live, reference, sets, doubt)
    least = np.maximum(np.maximum(low, -high), 0.0)
    where = int(np.argmax(least + 1e-9 * np.abs(gaps)))
    certain = 0.0
    if least[where] > 0:
        low_sure, high_sure = gap_bounds(live, reference, sets, sure)
        certain = float(np.maximum(low_sure, -high_sure).max())
    most = float(np.maximum(np.abs(low), np.abs(high)).max())
    point = float(np.abs(gaps).max())
    return Change(point, float(least[where]), min(1.0, most), max(0.0, certain), where, float(gaps[where]))


def share(counted: Counted, sets: np.ndarray) -> np.ndarray:
    """Return [..., sets] the shares of rows in each set."""
    return np.asarray(counted.cells @ sets.T / np.maximum(counted.rows, 1e-12))


def gap_bounds(live: Counted, reference: Counted, sets: np.ndarray, doubt: float) -> tuple[np.ndarray, np.ndarray]:
    """Return [..., sets] bounds of how much larger each set's share is among live rows; `doubt` in each direction."""
    (p, p_low, p_high), (q, q_low, q_high) = (_bounded(counted, sets, doubt) for counted in (live, reference))
    off = math.hypot(live.error, reference.error) * NormalDist().inv_cdf(1 - doubt)
    below = np.sqrt((p - p_low) ** 2 + (q_high - q) ** 2 + off**2)
    above = np.sqrt((p_high - p) ** 2 + (q - q_low) ** 2 + off**2)
    return p - q - below, p - q + above


def _bounded(counted: Counted, sets: np.ndarray, doubt: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return shares and their bounds."""
    rows = np.maximum(counted.independent, 1e-12)
    shares = np.clip(share(counted, sets), 0.0, 1.0)
    inside, outside = shares * rows, (1 - shares) * rows
    low = np.where(inside > 1e-9, beta_quantiles(np.maximum(inside, 1e-9), outside + 1, doubt), 0.0)
    high = np.where(outside > 1e-9, beta_quantiles(inside + 1, np.maximum(outside, 1e-9), 1 - doubt), 1.0)
    return shares, np.minimum(low, shares), np.maximum(high, shares)


def smallest_seen(rows: float, reference_rows: float, threshold: float, doubt: float) -> float:
    """Return the true change that would be called drift in half of all looks at so many rows."""
    if rows <= 0 or reference_rows <= 0:
        return 1.0
    reach = NormalDist().inv_cdf(1 - doubt) * math.sqrt(0.25 / rows + 0.25 / reference_rows)
    return min(1.0, threshold + reach)


def rows_to_see(change: float, reference_rows: float, threshold: float, doubt: float) -> int | None:
    """Return the rows that a look takes to call a change drift half of the time; None: the reference has too few."""
    reach = (change - threshold) / NormalDist().inv_cdf(1 - doubt)
    left = 4 * reach**2 - 1 / max(reference_rows, 1e-12) if reach > 0 else 0.0
    return math.ceil(1 / left) if left > 0 else None


def request_effect(rows: float, requests: float, squares: float, sums: tuple[float, float, float]) -> float:
    """Return how many rows tell as much as one independent one would, by how alike those of a request are.

    It is Kish's 1 + (b - 1) rho, with rho from the analysis of variance between and within requests (Donner, A review
    of inference procedures for the intraclass correlation coefficient, International Statistical Review 54, 1986).

    Args:
        rows, requests: how many.
        squares: sum over requests of their rows squared.
        sums: of values, of squared values, and over requests of (their sum) squared / their rows.
    """
    if requests < 2 or rows <= requests:
        return 1.0 if rows <= requests else rows / max(requests, 1.0)
    total, total_squares, between = sums
    typical = (rows - squares / rows) / (requests - 1)
    across = max(0.0, between - total**2 / rows) / (requests - 1)
    inside = max(0.0, total_squares - between) / (rows - requests)
    spread = across + (typical - 1) * inside
    alike = (across - inside) / spread if spread > 0 else 0.0
    return max(1.0, 1 + (squares / rows - 1) * min(1.0, alike))


def total_variation(live: Counted, reference: Counted) -> float:
    """Return half of the sum of what the cells' shares differ by, as seen: chance alone makes it larger than 0."""
    p, q = live.cells / max(live.rows.item(), 1e-12), reference.cells / max(reference.rows.item(), 1e-12)
    return float(np.abs(p - q).sum() / 2)


def stability_index(live: Counted, reference: Counted) -> float:
    """Return the population stability index over the cells (Siddiqi, Credit Risk Scorecards, 2006); half a row is added
    to each, so that an empty one is not infinite."""
    p, q = ((one.cells + 0.5) / (one.rows + 0.5 * one.cells.shape[-1]) for one in (live, reference))
    return float(((p - q) * np.log(p / q)).sum())


def chi_square(live: Counted, reference: Counted) -> tuple[float, float]:
    """Return Pearson's chi-square probability for the two sets of rows being of one kind, and Cramer's V."""
    effects = np.array([max(1.0, one.effect) for one in (live, reference)])[:, None]
    table = np.stack([live.cells, reference.cells]) / effects
    table = table[:, table.sum(axis=0) > 0]
    degrees = table.shape[1] - 1
    if degrees < 1 or (table.sum(axis=1) <= 0).any():
        return 1.0, 0.0
    wanted = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    statistic = float(((table - wanted) ** 2 / wanted).sum())
    return chi_square_above(statistic, degrees), math.sqrt(statistic / float(table.sum()))


def wasserstein(live: np.ndarray, reference: np.ndarray) -> float:
    """Return the mean distance of two lists of quantiles at the same levels, over the reference's spread from its 10 %
    to its 90 % quantile: the first Wasserstein distance, scaled (Villani, Optimal Transport, 2009)."""
    tenth = (len(reference) - 1) // 10
    spread = float(reference[-1 - tenth] - reference[tenth]) or float(np.ptp(reference)) or 1.0
    return float(np.abs(live - reference).mean() / spread)
