"""How often drift is called by mistake, and how soon when it is there: simulated months of many features."""

from __future__ import annotations

import numpy as np
import pytest

from hone.evidence.shifts import Budget, Counted, largest_change, share
from hone.lifecycle.drift.looks import LOOKS, spans
from hone.sketches.columns import Column
from hone.sketches.reference import Reference

FEATURES, THRESHOLD, DAYS = 50, 0.1, 90


class Months:
    """Hours of rows of many features, counted into the tenths of a proof's rows.

    Args:
        proof: rows of the proof, by which the tenths are cut: the true shares of rows in them are not quite a tenth.
        rate: rows an hour.
        hours: that are simulated.
    """

    def __init__(self, generator: np.random.Generator, proof: int, rate: int, hours: int) -> None:
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
        self.counts = np.stack(draws, axis=1).astype(float)

    def move(self, generator: np.random.Generator, start: int) -> None:
        """Let a fifth of the first feature's rows go from its upper half to its lower one."""
        shares = self.shares[0].copy()
        shares[1:7] *= (shares[1:7].sum() + 0.2) / shares[1:7].sum()
        shares[7:] *= (1 - shares[1:7].sum()) / shares[7:].sum()
        self.counts[start:, 0] = generator.multinomial(self.rate, shares, len(self.counts) - start)

    def alarms(self, stop_at: int | None = None) -> list[int]:
        """Return the hours at which drift is called, once a look."""
        sums = np.concatenate([np.zeros((1, *self.counts.shape[1:])), np.cumsum(self.counts, axis=0)])
        own = LOOKS * len(self.sets)
        doubts, before = Budget().doubts(own, FEATURES * own), share(self.known, self.sets)
        found = []
        for hour in range(len(self.counts)):
            for span in spans(dict.fromkeys(range(max(0, hour - 167), hour + 1), self.rate), hour):
                live = Counted(sums[hour + 1] - sums[span.first])
                gaps = np.abs(share(live, self.sets) - before).max(axis=1)
                for feature in np.flatnonzero(gaps > THRESHOLD):  # a bound is below what is seen
                    one = Counted(live.cells[feature])
                    if largest_change(one, self.known, self.sets, *doubts).verdict(THRESHOLD) == "missed":
                        found.append(hour)
            if found and stop_at is not None and hour >= stop_at:
                break
        return sorted(set(found))


def test_ninety_days_without_drift_raise_no_alarm() -> None:
    assert Months(np.random.default_rng(0), 2000, 20, 24 * DAYS).alarms() == []


@pytest.mark.slow
@pytest.mark.parametrize("proof", [1000, 5000])
@pytest.mark.parametrize("rate", [20, 200, 2000, 20_000])
def test_false_alarms_stay_within_what_is_allowed_at_every_rate(rate: int, proof: int) -> None:
    months = [Months(np.random.default_rng(seed), proof, rate, 24 * DAYS) for seed in range(5)]
    assert [len(one.alarms()) for one in months] == [
        0
    ] * 5  # at most one in 90 days is allowed, a tenth a month is meant


@pytest.mark.parametrize(
    ("rate", "runs"), [(20, 5), *(pytest.param(rate, 31, marks=pytest.mark.slow) for rate in (5, 20, 100, 250, 500))]
)
def test_a_fifth_of_the_rows_that_moves_is_found_within_500_rows(rate: int, runs: int) -> None:
    delays = []
    for seed in range(runs):
        generator = np.random.default_rng(seed)
        start = 2400 // rate if rate < 100 else 30
        months = Months(generator, 3000, rate, start + 800 // rate + 10)
        months.move(generator, start)
        alarms = months.alarms(stop_at=start)
        delays.append((alarms[0] - start + 1) * rate if alarms else 10**6)
    assert min(delays) > 0 and np.median(delays) <= 500
