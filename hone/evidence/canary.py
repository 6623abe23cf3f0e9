"""Whether a new version does as well as the one beside it, from what both did; one may look as often as one likes.

Three questions, each with its part of the risk:

errors   are more of the new version's requests failing?
slow     are more of them slower than a time that few of the stable version's were slower than, its p99 so far?
answers  where both computed the same requests, how many answers agree?

For the first two: while weights stand still, both versions answer at the same times, and an event (a request that
failed, or was slow) is the new version's with the chance of its share of the requests, if it is no worse. So events are
throws of a coin of known weight, and a version that has too many of them is bad: `log_won` bets on that. Whatever comes
over both, such as a slow hour or an outage, comes over both in proportion. That is the test of two proportions given
their sum, with a bet in place of its p-value: among a fixed number of requests events are drawn without replacement,
which only makes a gambler win less (Hoeffding, Probability inequalities for sums of bounded random variables, JASA 58,
1963, theorem 4). A quantile is larger exactly where more is beyond it (Howard and Ramdas, Sequential estimation of
quantiles with applications to A/B testing and best-arm identification, Bernoulli 28, 2022): p99 is tested as a share.

A version is good when the difference of the shares is proven to be at most what is allowed. Nothing known is not good.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .wealth import edge, log_won, share_bounds

Verdict = Literal["good", "bad", "undecided"]

RISK = 0.05
"""That a version that is as good as the other is ever called bad."""

MOST_MISSING = 10_000_000
"""Requests beyond which a question isn't going to be answered."""

MOST_RATIO = 20.0
"""Logarithm of a ratio of shares that nothing reaches."""


@dataclass(frozen=True)
class Beside:
    """What both versions did while the weights stood still.

    Attributes:
        marked, of: the new version's events and requests.
        stable_marked, stable_of: those of the stable one.
    """

    marked: int
    of: int
    stable_marked: int
    stable_of: int


@dataclass(frozen=True)
class Check:
    """The answer to one question.

    Attributes:
        name: errors, p99, labels or agreement.
        verdict: of it.
        share, stable_share: what was seen.
        low, high: what the difference of the shares is between; of agreement, the share itself.
        allowed: that it may be; of agreement, the least that the share must be.
        missing: requests of the new version that would prove it good if it did as it does; None: it wouldn't.
    """

    name: str
    verdict: Verdict
    share: float
    stable_share: float
    low: float
    high: float
    allowed: float
    missing: int | None = 0

    def told(self) -> str:
        """Return it in words."""
        if self.name == "agreement":
            return f"agreement {self.share:.3%}, at least {self.low:.3%} (wanted: {self.allowed:.3%})"
        what = {"errors": "errors", "p99": "beyond the stable p99", "labels": "wrong by their labels"}[self.name]
        between = f"difference between {self.low:+.3%} and {self.high:+.3%}, {self.allowed:.3%} allowed"
        return f"{what}: {self.share:.3%} beside {self.stable_share:.3%}; {between}"


@dataclass(frozen=True)
class Ruling:
    """The verdict on a version.

    Attributes:
        verdict: bad when one check is, good when all are.
        checks: every one.
        reason: in a line.
    """

    verdict: Verdict
    checks: tuple[Check, ...]
    reason: str

    @property
    def missing(self) -> int | None:
        """Requests of the new version that are missing; None: more of the same would not do."""
        known = [check.missing for check in self.checks if check.missing is not None]
        return max(known, default=0) if len(known) == len(self.checks) else None


def ruling(checks: Sequence[Check]) -> Ruling:
    """Return the verdict of checks."""
    bad = [check for check in checks if check.verdict == "bad"]
    if bad:
        return Ruling("bad", tuple(checks), "; ".join(check.told() for check in bad))
    if checks and all(check.verdict == "good" for check in checks):
        return Ruling("good", tuple(checks), "; ".join(check.told() for check in checks))
    found = Ruling("undecided", tuple(checks), "")
    if not checks:
        return Ruling("undecided", (), "nothing is known yet")
    more = "more would not decide it" if found.missing is None else f"about {found.missing} more requests are needed"
    waits = "; ".join(check.told() for check in checks if check.verdict != "good")
    return Ruling("undecided", tuple(checks), f"not enough evidence, {more}: {waits}")


@dataclass(frozen=True)
class Moments:
    """Moments in which there were events, however many: what is slow at one moment has one cause, such as a stall.

    A share of a moment's events is between 0 and 1, and so a bet on it wins no more than one on a coin of its mean.

    Attributes:
        ours: the sum of the new version's shares of each moment's events.
        of: how many moments.
        weights: the sum of what these shares are at most, in the mean, if the new version is no worse.
    """

    ours: float = 0.0
    of: int = 0
    weights: float = 0.0

    def plus(self, marked: int, stable_marked: int, weight: float) -> Moments:
        """Return it with one more moment; one without events says nothing."""
        if not marked + stable_marked:
            return self
        return Moments(self.ours + marked / (marked + stable_marked), self.of + 1, self.weights + weight)

    def are_worse(self, risk: float) -> bool:
        """Return whether the new version has, beyond doubt, more of the events than it would have if it were no worse.

        Args:
            risk: that this is ever said of an equal one.
        """
        if not self.of:
            return False
        won = log_won(np.array([self.ours]), np.array([self.of]), np.array([self.weights / self.of]))
        return bool(won >= math.log(1 / risk))


def compare(name: str, stages: Sequence[Beside], allowed: float, risk: float, moments: Moments | None = None) -> Check:
    """Compare shares of events.

    Args:
        stages: between changes of the weights, oldest first.
        allowed: that the new version's share may be above the stable one's and still be good.
        risk: of calling an equal version bad, and of calling one good that isn't.
        moments: the events by moments; None: each event of a stage is for itself.
    """
    table = np.array([(s.marked, s.of, s.stable_marked, s.stable_of) for s in stages], np.float64).reshape(-1, 4)
    marked, of, stable_marked, stable_of = table.sum(axis=0)
    low, high = _difference(table, risk)
    if high <= allowed:
        verdict: Verdict = "good"
    else:
        worse = is_worse(table, risk) if moments is None else moments.are_worse(risk)
        verdict = "bad" if worse or _alone_is_worse(table, allowed, risk) else "undecided"
    share, stable_share = _ratio(marked, of), _ratio(stable_marked, stable_of)
    missing = _missing(table, allowed, risk) if verdict == "undecided" else 0
    return Check(name, verdict, share, stable_share, low, high, allowed, missing)


def agreement(agreeing: int, of: int, wanted: float, risk: float) -> Check:
    """Judge how many of the answers that both versions gave agree."""
    low, high = share_bounds(agreeing, of, risk)
    verdict: Verdict = "good" if low >= wanted else "bad" if high < wanted else "undecided"
    missing: int | None = 0
    if verdict == "undecided":
        missing = _more(of, lambda n: share_bounds(round(_ratio(agreeing, of) * n), n, risk)[0] >= wanted)
    return Check("agreement", verdict, _ratio(agreeing, of), 1.0, low, high, wanted, missing)


def is_worse(table: np.ndarray, risk: float) -> bool:
    """Return whether the new version's share is beyond doubt the larger one.

    Args:
        table: [stages, 4] of (marked, of, stable marked, stable of).
        risk: that this is ever said of an equal one.
    """
    return bool(worse_by(table) >= math.log(1 / risk))


def worse_by(table: np.ndarray) -> np.ndarray:
    """Return the logarithm of the bet that the new version's share is the larger one, of tables [..., stages, 4]."""
    marked, of, stable_marked, stable_of = np.moveaxis(np.asarray(table, np.float64), -1, 0)
    return log_won(marked, marked + stable_marked, _weights(of, stable_of))


def _weights(of: np.ndarray, stable_of: np.ndarray) -> np.ndarray:
    return of / np.maximum(of + stable_of, 1)


def _difference(table: np.ndarray, risk: float) -> tuple[float, float]:
    """Return what the difference of the shares is between: from the bounds of both, or above, where that is nearer,
    from the bound of their ratio, which knows that both had the same hours."""
    marked, of, stable_marked, stable_of = table.sum(axis=0)
    ours, theirs = share_bounds(marked, of, risk / 4), share_bounds(stable_marked, stable_of, risk / 4)
    by_ratio = (_highest_ratio(table, risk / 4) - 1) * theirs[1]
    above = min(ours[1] - theirs[0], max(by_ratio, 0.0)) if stable_marked else ours[1] - theirs[0]
    return float(ours[0] - theirs[1]), float(above)


def _highest_ratio(table: np.ndarray, risk: float) -> float:
    """Return a bound that the ratio of the shares, the new version's over the stable one's, is below."""
    marked, of, stable_marked, stable_of = table.T
    weight, stop = _weights(of, stable_of), math.log(1 / risk)

    def is_wrong(logs: np.ndarray) -> np.ndarray:
        tilted = weight * np.exp(logs)[:, None]
        return log_won(marked, marked + stable_marked, tilted / (tilted + 1 - weight), more=False) >= stop

    return math.exp(edge(is_wrong, MOST_RATIO, 0.0))


def _alone_is_worse(table: np.ndarray, allowed: float, risk: float) -> bool:
    """Return whether the new version is worse where nothing ran beside it: at all of the requests."""
    alone = table[table[:, 3] == 0].sum(axis=0)
    theirs = table.sum(axis=0)[2:]
    if not alone[1] or not theirs[1]:
        return False
    return share_bounds(alone[0], alone[1], risk / 4)[0] > share_bounds(theirs[0], theirs[1], risk / 4)[1] + allowed


def _missing(table: np.ndarray, allowed: float, risk: float) -> int | None:
    """Return how many more requests of the new version would do, both versions going on as they do."""
    marked, of, stable_marked, stable_of = table.sum(axis=0)
    ahead = stable_of / of if of else 1.0

    def would_do(count: int) -> bool:
        # Of the new version no less is expected than of the stable one: of few requests none may have failed yet.
        share = max(_ratio(marked, of), _ratio(stable_marked, stable_of))
        others = count * max(ahead, 0.01)
        row = [share * count, count, _ratio(stable_marked, stable_of) * others, others]
        return _difference(np.array([row]), risk)[1] <= allowed

    return _more(int(of), would_do)


def _more(have: int, would_do: Callable[[int], bool]) -> int | None:
    """Return how many more than those one has would do, to two digits; None: not even the most."""
    few, many = have, max(2 * have, 50)
    while not would_do(many):
        few, many = many, many * 2
        if many > MOST_MISSING:
            return None
    while many - few > max(1, few // 50):
        middle = (few + many) // 2
        few, many = (few, middle) if would_do(middle) else (middle, many)
    return max(1, many - have)


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else 0.0
