"""Bounds of a mean that hold at every moment at once: one may look after each value, and stop when one likes.

Each mean that is possible is bet against: a gambler who doubts it wins in the long run if it is wrong, and if it is
right has no more than 1 / (1 - confidence) of the stake, ever, but for that share of all sequences (Ville's
inequality). What is left are the means against which no gambler has won so much (Waudby-Smith and Ramdas, Estimating
means of bounded random variables by betting, JRSS B 86, 2024; the bets are those of their empirical Bernstein bound,
Howard et al., Time-uniform, nonparametric, nonasymptotic confidence sequences, Annals of Statistics 49, 2021).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

MEANS = 1001
"""Possible means that are bet against: a bound is as fine as the range over so many."""

MOST_BET = 0.5
"""Of a gambler's capital that one value may cost."""


class MeanSequence:
    """Bounds of the mean of bounded values that come one after the other, whatever else is known of them.

    Args:
        least, most: what each value lies between.
        confidence: that the mean is never outside of the bounds.

    Raises:
        ValueError: the range is empty.
    """

    def __init__(self, least: float = 0.0, most: float = 1.0, confidence: float = 0.95) -> None:
        if not least < most:
            raise ValueError("the least value must be below the most")
        self._least, self._range = least, most - least
        self._stop = math.log(2 / (1 - confidence))
        self._means = np.linspace(0, 1, MEANS)
        self._above, self._below = np.zeros(MEANS), np.zeros(MEANS)
        """Logarithms of what is won by betting that the mean is above, or below, each possible one."""
        # What was left out once stays out.
        self._out_low, self._out_high = np.zeros(MEANS, dtype=bool), np.zeros(MEANS, dtype=bool)
        self.count = 0
        self._sum, self._squares = 0.5, 0.25

    def add(self, values: Iterable[float]) -> None:
        """Take more values, in the order in which they came.

        Raises:
            ValueError: one is outside of the range, or NaN.
        """
        for value in values:
            share = (value - self._least) / self._range
            if not 0 <= share <= 1:
                raise ValueError(f"{value} is outside of {self._least} to {self._least + self._range}")
            self._bet(share)

    def _bet(self, share: float) -> None:
        """Bet by what was seen before this value, then see it."""
        turn = self.count + 1
        variance = self._squares / turn
        stake = math.sqrt(2 * self._stop / (variance * turn * math.log(1 + turn)))
        apart = share - self._means
        with np.errstate(divide="ignore"):
            up = np.minimum(stake, MOST_BET / self._means)
            down = np.minimum(stake, MOST_BET / (1 - self._means))
        self._above += np.log1p(np.where(self._means > 0, up * apart, stake * apart))
        self._below += np.log1p(np.where(self._means < 1, -down * apart, -stake * apart))
        self._out_low |= self._above >= self._stop
        self._out_high |= self._below >= self._stop
        self.count = turn
        self._sum += share
        self._squares += (share - self._sum / (turn + 1)) ** 2

    @property
    def low(self) -> float:
        """The mean is above it; the least value until something is known."""
        held = np.flatnonzero(~self._out_low)
        return self._least + self._range * float(self._means[max(0, held[0] - 1)])

    @property
    def high(self) -> float:
        """The mean is below it."""
        held = np.flatnonzero(~self._out_high)
        return self._least + self._range * float(self._means[min(MEANS - 1, held[-1] + 1)])


SHARES = (0.75, 0.9, 1.0)
"""Of heads that the gambler of `won_by_heads` thinks of; the last loses all by one tail."""


def won_by_heads(heads: int, throws: int) -> float:
    """Return what a stake of 1 has become that was bet, throw by throw, on heads coming in more than half of them.

    While heads come in half of the throws or fewer it ever reaches 1 / risk with no more than that risk, however often
    one looks. The stake is shared out among gamblers who each believe in another share of heads (Shafer, Testing by
    betting, JRSS A 184, 2021). Eight throws with nothing but heads make it 130.
    """
    tails = throws - heads
    return sum((2 * share) ** heads * (2 - 2 * share) ** tails for share in SHARES) / len(SHARES)
