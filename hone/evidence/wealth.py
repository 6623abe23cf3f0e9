"""What is won by betting on the share of marked ones among things that come one after the other, from counts alone.

A gambler who bets that more than a share p of them are marked, each time the same part of what he has, owns after n of
them with x marked exp(a x - n log(1 + p (exp(a) - 1))), for some a > 0; one who bets on fewer has an a < 0. While the
mean of the chances that each had is p, or on the other side of it, that reaches 1 / risk with no more than that risk,
however often one looks (Ville's inequality; Howard et al., Time-uniform Chernoff bounds via nonnegative
supermartingales, Probability Surveys 17, 2020, with the Bernoulli function). The chances may change in time: only
their mean counts. The stake is shared out among gamblers of many a.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

TILTS = np.geomspace(0.005, 6.0, 32)
"""Of the gamblers: from one who wants to tell shares apart that differ by half a percent of themselves, given millions
of marks, to one who sees a share hundreds of times as large after two."""

ROUNDS, VALUES = 4, 33
"""In which a bound is looked for, and values tried in each: it is found to a millionth of what it is looked for in."""


def log_won(marked: np.ndarray, of: np.ndarray, share: np.ndarray, *, more: bool = True) -> np.ndarray:
    """Return the logarithm of what a stake of 1 has become that was bet on a share being larger than one named.

    Args:
        marked, of: counts of stages [..., stages]; in each the share that is named may be another.
        share: named, of each stage, 0 to 1, of a shape that broadcasts.
        more: False bets on a smaller one.

    Returns:
        [...]: a number for each row of stages.
    """
    tilts = TILTS if more else -TILTS
    marked, of, share = (np.asarray(one, np.float64)[..., None] for one in (marked, of, share))
    won = (marked * tilts - of * np.log1p(share * np.expm1(tilts))).sum(axis=-2)
    most = won.max(axis=-1)
    total: np.ndarray = most + np.log(np.exp(won - most[..., None]).mean(axis=-1))
    return total


def share_bounds(marked: float, of: float, risk: float) -> tuple[float, float]:
    """Return what the mean chance of being marked lies between, at every moment, each bound wrong with the risk given.

    Args:
        marked, of: counts so far.
    """
    if of <= 0:
        return 0.0, 1.0
    stop, point = math.log(1 / risk), marked / of

    def low_is_wrong(shares: np.ndarray) -> np.ndarray:
        return log_won(np.array([marked]), np.array([of]), shares[:, None]) >= stop

    def high_is_wrong(shares: np.ndarray) -> np.ndarray:
        return log_won(np.array([marked]), np.array([of]), shares[:, None], more=False) >= stop

    return edge(low_is_wrong, 0.0, point), edge(high_is_wrong, 1.0, point)


def edge(is_wrong: Callable[[np.ndarray], np.ndarray], far: float, near: float) -> float:
    """Return the value furthest from `far` that is wrong, all beyond it being wrong too; `far` where none is.

    Args:
        is_wrong: of values [n], a truth value each.
        far: where values are wrong, if anywhere.
        near: where they are not.
    """
    for _ in range(ROUNDS):
        values = np.linspace(far, near, VALUES)
        wrong = int(is_wrong(values[:-1]).sum())
        if not wrong:
            return far
        far, near = float(values[wrong - 1]), float(values[wrong])
    return far
