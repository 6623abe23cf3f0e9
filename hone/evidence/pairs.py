"""How much more often one of two things is wrong than the other, on the same rows: bounds that hold at every share.

Rows that both get right, or both wrong, say nothing; what counts are those that only one gets right. The loss is the
share of rows that became wrong less the share that became right. Its bounds come from the exact unconditional test with
the score statistic of Tango (Equivalence test and confidence interval for the difference in proportions for the
paired-sample design, Statistics in Medicine 17, 1998), maximized over the unknown share of rows that disagree (Sidik,
Exact unconditional tests for testing non-inferiority in matched-pairs design, Statistics in Medicine 22, 2003). The
maximum is taken over an interval that holds that share all but surely, whose risk is added (Berger and Boos, P values
maximized over a confidence set for the nuisance parameter, JASA 89, 1994).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .distributions import beta_quantile, binomial_below, binomial_share, normal_quantile

BESIDE = 1e-5
"""Risk that the share of rows that disagree is outside of the interval that is searched."""

SHARES = 40
"""Places in that interval that are looked at."""

WIDTH = 7.0
"""Standard deviations of a count on each side of its mean that are summed over; beyond lies less than 1e-11."""

STEPS = 14
"""Halvings of the interval that a bound is in: to a thousandth of a standard deviation."""

POWER = 0.8
"""How likely so many rows as are said to decide would."""


@dataclass(frozen=True)
class Pairs:
    """Rows that two models answered.

    Attributes:
        worse: rows that only the first gets right.
        better: rows that only the second gets right.
        rows: all of them.
    """

    worse: int
    better: int
    rows: int

    @property
    def point(self) -> float:
        """How much more of the rows the second gets wrong."""
        return (self.worse - self.better) / self.rows

    def risk(self, loss: float) -> float:
        """Return how likely rows that look as good as these, or better, would be at most, if so much were lost or more.

        Args:
            loss: more than -1 and less than 1.
        """
        return _risk(self.worse, self.better, self.rows, loss)

    def upper(self, confidence: float) -> float:
        """Return the bound that the loss is below with so much confidence."""
        low, reach = self.point, 2 * (normal_quantile(confidence) + 1) * self._error()
        high = min(low + reach, ALL)
        while self.risk(high) > 1 - confidence and high < ALL:
            low, high = high, min(high + reach, ALL)
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (low, middle) if self.risk(middle) <= 1 - confidence else (middle, high)
        return high if high < ALL else 1.0

    def lower(self, confidence: float) -> float:
        """Return the bound that the loss is above with so much confidence."""
        return -Pairs(self.better, self.worse, self.rows).upper(confidence)

    def rows_to_decide(self, allowed: float, confidence: float) -> int | None:
        """Return about how many rows like these would tell whether the loss is allowed, four times in five; None: it is
        too near to what is allowed.

        The statistic grows with the root of the rows. Without any row that disagrees it takes as many as make none of
        them unlikely at the allowed loss.
        """
        least = math.log(1 - confidence) / math.log1p(-allowed) if 0 < allowed < 1 else 0.0
        score = abs(float(_score(np.array([self.worse]), np.array([self.better]), self.rows, allowed)[0]))
        if (allowed <= 0 and self.worse + self.better == 0) or score < 1e-3:
            return None
        luck = normal_quantile(POWER) if self.worse + self.better else 0.0
        return math.ceil(max(least, self.rows * ((normal_quantile(confidence) + luck) / score) ** 2))

    def _error(self) -> float:
        return math.sqrt(self.worse + self.better + 1) / self.rows


ALL = 1 - 1e-9


def provable_loss(rows: int, confidence: float, variants: int = 1) -> float:
    """Return the least loss that so many rows can exclude, when no row disagrees.

    Args:
        rows: that are compared.
        confidence: of the verdicts on all variants together.
        variants: that are compared on these rows.
    """
    return Pairs(0, 0, rows).upper(1 - (1 - confidence) / variants)


def rows_to_prove(loss: float, confidence: float, variants: int = 1) -> int:
    """Return the fewest rows that can exclude a loss, when none disagrees; arguments as of `provable_loss`."""
    low = high = max(1, math.floor(math.log((1 - confidence) / variants) / math.log1p(-loss)))
    while provable_loss(high, confidence, variants) > loss:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if provable_loss(middle, confidence, variants) <= loss else (middle, high)
    return high


@lru_cache(4096)  # variants of a run often disagree with the source on as many rows
def _risk(worse: int, better: int, rows: int, loss: float) -> float:
    observed = float(_score(np.array([worse]), np.array([better]), rows, loss)[0]) - 1e-9
    low, high = _likely(better if loss >= 0 else worse, rows)
    both = 1 - abs(loss)
    shares = np.linspace(math.sqrt(low), math.sqrt(min(high, both / 2)), SHARES) ** 2
    return min(1.0, float(_tails(observed, shares, rows, loss).max()) + BESIDE)


def _score(worse: np.ndarray, better: np.ndarray, rows: int, loss: float) -> np.ndarray:
    """Return Tango's statistic: how many standard errors the loss seen is below another, at the most likely share of
    rows that disagree, were that the true one."""
    a = 2.0 * rows
    b = (2 * rows - worse + better) * loss - worse - better
    c = -better * loss * (1 - loss)
    share = (np.sqrt(np.maximum(b * b - 4 * a * c, 0)) - b) / (2 * a)
    variance = rows * np.maximum(2 * share + loss - loss * loss, 1e-300)
    scores: np.ndarray = (rows * loss - (worse - better)) / np.sqrt(variance)
    return scores


def _likely(count: int, rows: int) -> tuple[float, float]:
    """Return what the share behind a count is between, but for BESIDE (Clopper and Pearson)."""
    low = 0.0 if count == 0 else beta_quantile(count, rows - count + 1, BESIDE / 2)
    return low, 1.0 if count == rows else beta_quantile(count + 1, rows - count, 1 - BESIDE / 2)


def _tails(observed: float, shares: np.ndarray, rows: int, loss: float) -> np.ndarray:
    """Return how likely a statistic as large is when so much is lost, for each share of rows that disagree.

    It is the sum over counts of rows that only the second gets right, of its probability times that of few enough rows
    that only the first gets right.

    Counts that spread widely are summed in steps of a small part of their standard deviation.
    """
    gained, lost = (shares + max(extra, 0.0) for extra in (-loss, loss))
    spreads = np.sqrt(rows * gained * (1 - gained))
    step = max(1, int(spreads.min() / 25))
    first = max(0, int((rows * gained - WIDTH * spreads).min()) - 5)
    last = min(rows, int((rows * gained + WIDTH * spreads).max()) + 25)
    better = np.arange(first, last + 1, step)
    most = _most_worse(observed, better, rows, loss)
    some = better[most >= 0]
    if not some.size:
        return np.zeros(len(shares))
    chances = np.minimum(1.0, lost / np.maximum(1 - gained, 1e-300))
    below = binomial_below(most[most >= 0], rows - some, chances[:, None])
    tails: np.ndarray = step * (binomial_share(some, rows, gained[:, None]) * below).sum(axis=1)
    return tails


def _most_worse(observed: float, better: np.ndarray, rows: int, loss: float) -> np.ndarray:
    """Return for each count the largest other count whose statistic is still as large; -1 where none is."""
    low, high = np.full(len(better), -1), rows - better + 1
    while (high - low > 1).any():
        middle = (low + high) // 2
        held = _score(np.maximum(middle, 0), better, rows, loss) >= observed
        low, high = np.where(held, middle, low), np.where(held, high, middle)
    return low
