"""Several things measured in rounds: what one of them is over another, by the noise that all of them show.

A round disturbs all that is measured in it alike, so things are compared within rounds: a randomized complete block
design (Fisher, The Design of Experiments, 1935). Two things in two rounds say nothing of the noise, a dozen things do:
their residuals are pooled.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .quantiles import Interval
from .shares import student

FEWEST = 2
"""Rounds under which nothing is said."""


@dataclass(frozen=True)
class Blocks:
    """Figures of things in rounds, all positive.

    Attributes:
        logs: [things, rounds] their logarithms.
        weights: [rounds] how much a round counts, such as its seconds: a figure's variance is taken to fall with it.
    """

    logs: np.ndarray
    weights: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """[things] The geometric mean of each thing's figures."""
        return np.asarray(np.exp(np.average(self.logs, axis=1, weights=self.weights)))

    def ratio(self, one: int, other: int, doubt: float) -> Interval:
        """Return what the ratio of one thing's figure to another's is between, wrong in each direction with a
        probability of `doubt`: Student's t on paired differences.

        The variance is that of all things together, or of these two where that is larger.

        Raises:
            ValueError: fewer than two things or rounds.
        """
        things, rounds = self.logs.shape
        if min(things, rounds) < FEWEST:
            raise ValueError("an interval takes two things and two rounds")
        gaps = self.logs[one] - self.logs[other]
        mean = float(np.average(gaps, weights=self.weights))
        own = float((self.weights * (gaps - mean) ** 2).sum()) / (rounds - 1)
        degrees = (things - 1) * (rounds - 1)
        error = math.sqrt(max(own, 2 * self._variance(degrees)) / float(self.weights.sum()))
        reach = student(degrees, 1 - doubt) * error
        return math.exp(mean - reach), math.exp(mean + reach)

    def _variance(self, degrees: int) -> float:
        """Return the variance of one figure in a round of weight 1, without what things and rounds differ by."""
        things = np.average(self.logs, axis=1, weights=self.weights)[:, None]
        rest = self.logs - things
        rest = rest - rest.mean(axis=0)
        return float((self.weights * rest**2).sum()) / degrees
