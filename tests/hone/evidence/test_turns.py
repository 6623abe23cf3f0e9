from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hone.evidence.turns import FEWEST, Outcome, Paired, against_itself, against_other, outcome, paired

TURNS = 20
OF_ALL, OF_EACH = 0.15, 0.03
"""Spread of the logarithm of a turn's figures: what disturbs all in it, and what each has of its own."""

BUSY = 0.25
"""What each has of its own on two cores that eight other programs use, as it was measured."""


def compared(seed: int, slower: float = 0.0, turns: int = TURNS, of_each: float = OF_EACH) -> tuple[Outcome, Paired]:
    """Return what is said of a service that is slower by a share, after turns with noise."""
    generator = np.random.default_rng(seed)
    shared = generator.normal(0, OF_ALL, turns)
    a, again, b = (np.exp(shared + generator.normal(0, of_each, turns)) for _ in range(3))
    other, control = against_other(a, again, b * (1 + slower)), against_itself(a, again)
    return outcome(other, control, turns), other


def test_interval_is_students_on_the_logarithms() -> None:
    logs = np.random.default_rng(0).normal(0.1, 0.2, 12)
    found = paired(list(logs))
    low, high = stats.t.interval(0.99, 11, loc=logs.mean(), scale=stats.sem(logs))
    assert (found.low, found.high) == pytest.approx((np.exp(low), np.exp(high)))
    assert found.ratio == pytest.approx(np.exp(logs.mean()))
    with pytest.raises(ValueError, match="two turns"):
        paired([0.1])


@pytest.mark.parametrize("noise", [OF_EACH, BUSY])
def test_services_that_are_the_same_are_told_apart_in_five_of_a_hundred_runs_at_most(noise: float) -> None:
    said = [compared(seed, of_each=noise)[0] for seed in range(100)]
    assert sum(verdict != "can't tell" for verdict in said) <= 5


def test_service_that_is_slower_by_a_twentieth_is_found_in_ninety_of_a_hundred_runs() -> None:
    said = [compared(seed, 0.05)[0] for seed in range(100)]
    assert said.count("slower") >= 90
    assert said.count("faster") == 0
    assert [compared(seed, -0.05)[0] for seed in range(100)].count("faster") >= 90


def test_busy_host_says_that_it_would_not_have_seen_a_twentieth() -> None:
    verdict, ratio = compared(0, 0.05, of_each=BUSY)
    assert verdict == "can't tell"
    assert ratio.smallest > 0.2


def test_smallest_difference_is_one_that_is_seen_nine_times_in_ten() -> None:
    smallest = float(np.median([compared(seed)[1].smallest for seed in range(50)]))
    assert 0.01 < smallest < 0.05
    said = [compared(1000 + seed, smallest)[0] for seed in range(200)]
    assert 0.75 <= said.count("slower") / 200 <= 0.98


def test_what_disturbs_a_whole_turn_is_no_difference() -> None:
    turns = np.where(np.arange(TURNS) % 2, 1.0, 3.0) * np.exp(np.random.default_rng(0).normal(0, 0.001, TURNS))
    assert against_other(turns, turns, turns * 1.01).low == pytest.approx(1.01)


def test_control_that_differs_from_itself_takes_the_verdict_back() -> None:
    slower, steady, moved = Paired(1.2, 1.1, 1.3, 0.1), Paired(1.0, 0.9, 1.1, 0.1), Paired(1.2, 1.1, 1.3, 0.1)
    assert outcome(slower, steady, TURNS) == "slower"
    assert outcome(slower, moved, TURNS) == "can't tell"
    assert outcome(slower, steady, FEWEST - 1) == "can't tell"
