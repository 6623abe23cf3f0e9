"""The share of requests that are too slow, or fail: its bounds, a verdict on it, and what one would take.

The rule is that of MLPerf Inference's early stopping (Reddi et al., MLPerf Inference Benchmark, ISCA 2020, and
`loadgen/early_stopping.cc`): a percentile limit holds when so few requests over it would be unlikely, at a stated
confidence, if the share over it were as large as the limit allows. That is the binomial bound of Clopper and Pearson.

MLPerf's rule takes requests for independent. In a queue they are not: one that is slow is followed by more, and in
simulations at 90 % utilization the plain rule passes a server that misses its limit by half in every second run. So
requests are counted as the fewer independent ones that tell as much (Korn and Graubard, Confidence intervals for
proportions with small expected number of positive counts estimated from survey data, Survey Methodology 24, 1998), by
the variance between batches in time (Law and Kelton, Simulation Modeling and Analysis: batch means).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hone.records import Verdict

from .distributions import beta_quantile, normal_quantile, student

BATCHES = 20
FEWEST = 5 * BATCHES
"""Requests under which nothing is decided: their batches say too little of what follows what."""

WIDER = 5.0
"""How requests follow each other is looked at over so much larger a share: there are enough of them to see it."""

MOST = 1e9
"""Requests that would take too long to decide."""


@dataclass(frozen=True)
class Share:
    """How many of some requests were over a limit.

    Attributes:
        count: requests over it.
        of: all of them.
        effect: requests that tell as much as one independent one does, 1 or more.
    """

    count: int
    of: int
    effect: float = 1.0

    @property
    def point(self) -> float:
        return self.count / self.of if self.of else 0.0

    def low(self, confidence: float) -> float:
        """Return the bound that the share is above with so much confidence."""
        count, of = self._independent(confidence)
        return 0.0 if count <= 0 else beta_quantile(count, of - count + 1, 1 - confidence)

    def high(self, confidence: float) -> float:
        """Return the bound that the share is below with so much confidence."""
        count, of = self._independent(confidence)
        return 1.0 if of - count <= 0 else beta_quantile(count + 1, of - count, confidence)

    def verdict(self, limit: float, confidence: float) -> Verdict:
        """Return whether the share is below a limit, above it, or neither beyond doubt."""
        if self.of < FEWEST:
            return "undecided"
        if self.high(confidence) <= limit:
            return "met"
        return "missed" if self.low(confidence) > limit else "undecided"

    def requests_to_decide(self, limit: float, confidence: float) -> int | None:
        """Return how many requests like these would decide; None: the share is too near to its limit.

        The share and the effect are taken to stay as they are.
        """
        few, many = FEWEST, FEWEST
        while self._grown(many).verdict(limit, confidence) == "undecided":
            few, many = many, many * 2
            if many > MOST:
                return None
        while many - few > max(1, few // 100):
            middle = (few + many) // 2
            decided = self._grown(middle).verdict(limit, confidence) != "undecided"
            few, many = (few, middle) if decided else (middle, many)
        return many

    def _grown(self, of: int) -> Share:
        return Share(round(self.point * of), of, self.effect)

    def _independent(self, confidence: float) -> tuple[float, float]:
        """Return the independent requests that tell as much: over the limit, and all.

        The effect is an estimate from few batches; Student's quantile in place of the normal one allows for it.
        """
        if self.effect <= 1:
            return float(self.count), float(self.of)
        factor = _quantile_ratio(confidence) / self.effect
        return self.count * factor, self.of * factor


def pooled(shares: Sequence[Share]) -> Share:
    """Return the share over several runs at the same rate."""
    of = sum(share.of for share in shares)
    effect = sum(share.effect * share.of for share in shares) / of if of else 1.0
    return Share(sum(share.count for share in shares), of, effect)


def share_over(over: np.ndarray, values: np.ndarray, allowed: float) -> Share:
    """Return the share of requests over a limit.

    Args:
        over: whether a request is, in the order in which they were meant to start.
        values: what the limit is on, such as latencies, in the same order; they show how requests follow each other
            where few are over the limit, or none.
        allowed: share that may be over it.
    """
    level = np.quantile(values, max(0.5, 1 - WIDER * allowed)) if len(values) else 0.0
    effect = max(effect_of(over), effect_of(values > level))
    return Share(int(over.sum()), len(over), effect)


def share_failed(failed: np.ndarray) -> Share:
    """Return the share of requests that failed, in the order in which they were meant to start."""
    return Share(int(failed.sum()), len(failed), effect_of(failed))


def effect_of(marks: np.ndarray) -> float:
    """Return how many marked or unmarked requests tell as much as one would if they were independent.

    It is the variance between the means of batches in time, over what it would be.

    Args:
        marks: booleans in the order of time.
    """
    batch = len(marks) // BATCHES
    share = float(marks.mean()) if len(marks) else 0.0
    if batch < 2 or not 0 < share < 1:
        return 1.0
    means = marks[: batch * BATCHES].reshape(BATCHES, batch).mean(axis=1)
    return max(1.0, float(batch * means.var(ddof=1) / (share * (1 - share))))


def _quantile_ratio(confidence: float) -> float:
    normal = normal_quantile(confidence)
    return (normal / student(BATCHES - 1, confidence)) ** 2
