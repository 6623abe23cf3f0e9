"""How often drift is called by mistake, and how soon when it is there: simulated months of many features."""

from __future__ import annotations

import numpy as np
import pytest

from hone.evidence.shifts import Counted, largest_change, share
from hone.lifecycle.drift.check import budget_of
from hone.lifecycle.drift.looks import LOOKS, SHORT_ROWS, WEEKS, Span, spans
from hone.sketches.columns import Column
from hone.sketches.reference import Reference

FEATURES, THRESHOLD, DAYS, WEEK = 50, 0.1, 90, 168


class Months:
    """Hours of rows of many features, counted into the tenths of a proof's rows.

    Args:
        proof: rows of the proof, by which the tenths are cut: the true shares of rows in them are not quite a tenth.
        rate: rows an hour.
        hours: that are simulated.
        seasons: half of the features are others at night, and others again on weekends; the proof is of weekdays.
    """

    def __init__(
        self, generator: np.random.Generator, proof: int, rate: int, hours: int, *, seasons: bool = False
    ) -> None:
        self.rate = rate
        counts = (0, 0, *[proof // 10] * 10, 0)
        column = Column(side="input", tensor="x", index=0)
        reference = Reference(column=column, counts=counts, low=0, high=1, edges=tuple(np.arange(1, 10) / 10))
        self.known, (self.sets, _) = Counted(np.array(counts, float)), reference.sets()
        values = np.sort(generator.random((FEATURES, proof)), axis=1)
        cuts = [values[:, [0]], *(values[:, [proof * tenth // 10 - 1]] for tenth in range(1, 10)), values[:, [-1]]]
        shares = np.diff(np.concatenate([np.zeros((FEATURES, 1)), *cuts, np.ones((FEATURES, 1))], axis=1))
        self.shares = np.concatenate([np.zeros((FEATURES, 1)), shares], axis=1)
        draws = [generator.multinomial(rate, one, hours) for one in self.shares]
        if seasons:
            hour = np.arange(hours)
            night, weekend = hour % 24 < 8, hour % WEEK >= 120
            for feature, one in enumerate(self.shares[: FEATURES // 2]):
                for when, share_moved in ((night, 0.3), (weekend & ~night, 0.2)):
                    draws[feature][when] = generator.multinomial(rate, moved(one, share_moved), int(when.sum()))
        self.counts = np.stack(draws, axis=1).astype(float)

    def move(self, generator: np.random.Generator, start: int) -> None:
        """Let a fifth of the first feature's rows go from its upper half to its lower one."""
        self.counts[start:, 0] = generator.multinomial(self.rate, moved(self.shares[0]), len(self.counts) - start)

    def alarms(self, begin: int = 0, stop_at: int | None = None) -> list[int]:
        """Return the hours from `begin` on at which drift is called, once a look."""
        self.sums = np.concatenate([np.zeros((1, *self.counts.shape[1:])), np.cumsum(self.counts, axis=0)])
        own = LOOKS * len(self.sets)
        doubts, before = budget_of().doubts(own, FEATURES * own), share(self.known, self.sets)
        found = []
        for hour in range(begin, len(self.counts)):
            for span in spans(dict.fromkeys(range(max(0, hour - 167), hour + 1), self.rate), hour):
                live, past = self.between(span), self.history(span)
                gaps = np.abs(share(live, self.sets) - before).max(axis=1)
                if past is not None:
                    gaps = np.minimum(gaps, np.abs(share(live, self.sets) - share(past, self.sets)).max(axis=1))
                for feature in np.flatnonzero(gaps > THRESHOLD):  # a bound is below what is seen
                    one = Counted(live.cells[feature])
                    others = [self.known, *([] if past is None else [Counted(past.cells[feature])])]
                    changes = [largest_change(one, other, self.sets, *doubts) for other in others]
                    if all(change.verdict(THRESHOLD) == "missed" for change in changes):
                        found.append(hour)
            if found and stop_at is not None and hour >= stop_at:
                break
        return sorted(set(found))

    def between(self, span: Span) -> Counted:
        return Counted(self.sums[span.last + 1] - self.sums[span.first])

    def history(self, span: Span) -> Counted | None:
        """Return the rows of the same hours in earlier weeks, as `hone drift` compares with them."""
        weeks = [week for week in range(1, WEEKS + 1) if span.first >= WEEK * week]
        if not weeks or len(weeks) * span.hours * self.rate < SHORT_ROWS:
            return None
        earlier = [self.between(Span(span.first - WEEK * week, span.last - WEEK * week)).cells for week in weeks]
        return Counted(np.sum(earlier, axis=0))


def moved(shares: np.ndarray, by: float = 0.2) -> np.ndarray:
    """Return shares of which so much has gone from the upper half to the lower one."""
    lower = shares[1:7].sum()
    return np.concatenate([[0.0], shares[1:7] * (lower + by) / lower, shares[7:] * (1 - lower - by) / shares[7:].sum()])


def test_ninety_days_without_drift_raise_no_alarm() -> None:
    assert Months(np.random.default_rng(0), 2000, 20, 24 * DAYS).alarms() == []


@pytest.mark.slow
@pytest.mark.parametrize("proof", [1000, 5000])
@pytest.mark.parametrize("rate", [20, 200, 2000, 20_000])
def test_false_alarms_stay_within_what_is_allowed_at_every_rate(rate: int, proof: int) -> None:
    months = [Months(np.random.default_rng(seed), proof, rate, 24 * DAYS) for seed in range(5)]
    # At most one in 90 days is allowed, a tenth a month is meant.
    assert [len(one.alarms()) for one in months] == [0] * 5


@pytest.mark.parametrize(
    ("rate", "days"),
    [(200, 7), *(pytest.param(rate, DAYS, marks=pytest.mark.slow) for rate in (20, 200, 2000, 20_000))],
)
def test_days_nights_and_weekends_are_no_drift_once_there_are_earlier_weeks(rate: int, days: int) -> None:
    weeks = WEEK * WEEKS
    months = Months(np.random.default_rng(1), 3000, rate, weeks + 24 * days, seasons=True)
    assert months.alarms(weeks) == []
    assert months.alarms(0, stop_at=0)[0] < WEEK  # before there are any, a season is a change from the proof


@pytest.mark.parametrize("weeks", [0, WEEKS])
@pytest.mark.parametrize(
    ("rate", "runs"), [(20, 5), *(pytest.param(rate, 31, marks=pytest.mark.slow) for rate in (5, 20, 100, 250, 500))]
)
def test_a_fifth_of_the_rows_that_moves_is_found_within_500_rows(rate: int, runs: int, weeks: int) -> None:
    delays = []
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        start = WEEK * weeks + (2400 // rate if rate < 100 else 30)
        months = Months(generator, 3000, rate, start + 800 // rate + 10)
        months.move(generator, start)
        alarms = months.alarms(start, stop_at=start)
        delays.append((alarms[0] - start + 1) * rate if alarms else 10**6)
    assert min(delays) > 0 and np.median(delays) <= 500
