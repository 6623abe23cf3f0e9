"""Bounds of a paired loss: wrong no more often than they say, at every share of rows that disagree."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy.stats import binom

from hone.evidence.pairs import Pairs, provable_loss, rows_to_prove

ROWS, LOST = 60, 0.08


def chances(worse: float, better: float, most: int) -> np.ndarray:
    """Return how likely each [worse, better] count is among ROWS rows."""
    counts = np.arange(most)
    rest = np.array([binom.pmf(counts, ROWS - count, better / (1 - worse)) for count in counts])
    return binom.pmf(counts, ROWS, worse)[:, None] * rest


def test_a_loss_at_the_limit_is_passed_no_more_often_than_stated_whatever_the_rows_that_disagree() -> None:
    """By enumeration, not by simulation: every table is asked, and its probability summed."""
    most = 26
    passed = np.array(
        [[Pairs(a, b, ROWS).risk(LOST) <= 0.05 if a + b <= ROWS else False for b in range(most)] for a in range(most)]
    )
    sizes = [float((chances(share + LOST, share, most) * passed).sum()) for share in np.linspace(0, 0.1, 41)]
    assert max(sizes) <= 0.05
    assert max(sizes) > 0.035  # it isn't needlessly careful


def test_power_is_that_of_the_best_possible_test() -> None:
    """Among 2,200 rows of which 2 % disagree, no test of 5 % finds a loss of 0 below 1 point more often than 94.3 %
    (Neyman and Pearson's test against the least favorable share of rows that disagree)."""
    generator = np.random.default_rng(0)
    tables = [generator.multinomial(2200, (0.01, 0.01, 0.98)) for _ in range(1000)]
    accepted = np.mean([Pairs(int(a), int(b), 2200).risk(0.01) <= 0.05 for a, b, _ in tables])
    assert 0.925 < accepted < 0.96
    more = [generator.multinomial(2400, (0.01, 0.01, 0.98)) for _ in range(1000)]
    assert np.mean([Pairs(int(a), int(b), 2400).risk(0.01) <= 0.05 for a, b, _ in more]) > 0.95


def test_rows_that_all_agree_prove_what_the_rule_of_three_says() -> None:
    assert Pairs(0, 0, 299).upper(0.95) <= 0.01 < Pairs(0, 0, 298).upper(0.95)
    assert Pairs(0, 0, 58).upper(0.95) == pytest.approx(1 - 0.05 ** (1 / 58), rel=1e-2)


def test_bounds_hold_the_loss_and_mirror_each_other() -> None:
    pairs = Pairs(12, 5, 400)
    assert pairs.lower(0.95) < pairs.point == 7 / 400 < pairs.upper(0.95) < pairs.upper(0.99)
    assert Pairs(5, 12, 400).upper(0.95) == pytest.approx(-pairs.lower(0.95))
    assert pairs.upper(0.95) == pytest.approx(0.03651, abs=2e-4)  # Tango's asymptotic bound
    assert pairs.risk(pairs.upper(0.95)) <= 0.05 < pairs.risk(pairs.upper(0.95) - 1e-4)


@pytest.mark.parametrize("pairs", [Pairs(8, 0, 8), Pairs(0, 8, 8), Pairs(1, 0, 1), Pairs(0, 0, 1), Pairs(4, 4, 8)])
def test_few_rows_have_bounds_too(pairs: Pairs) -> None:
    assert -1 <= pairs.lower(0.95) <= pairs.point <= pairs.upper(0.95) <= 1


def test_a_million_rows_take_seconds() -> None:
    started = time.process_time()
    pairs = Pairs(10_000, 9_900, 1_000_000)
    assert pairs.lower(0.95) == pytest.approx(1e-4 - 1.645 * 141e-6, abs=2e-5)
    assert time.process_time() - started < 30


def test_so_many_rows_decide_four_times_in_five() -> None:
    needed = Pairs(11, 11, 1100).rows_to_decide(0.01, 0.95)
    assert needed is not None and 1300 < needed < 1700
    generator = np.random.default_rng(1)
    tables = [generator.multinomial(needed, (0.01, 0.01, 0.98)) for _ in range(400)]
    assert 0.7 < np.mean([Pairs(int(a), int(b), needed).risk(0.01) <= 0.05 for a, b, _ in tables]) < 0.9
    assert Pairs(0, 0, 58).rows_to_decide(0.01, 0.95) == 299
    assert Pairs(0, 0, 58).rows_to_decide(0.0, 0.95) is None
    assert Pairs(3, 0, 300).rows_to_decide(0.01, 0.95) is None  # exactly what is allowed


@pytest.mark.parametrize(
    ("loss", "variants", "rows"), [(0.01, 1, 299), (0.02, 1, 149), (0.01, 9, 610), (0.02, 9, 304), (0.5, 1, 5)]
)
def test_rows_to_prove_are_the_fewest_that_do(loss: float, variants: int, rows: int) -> None:
    assert rows_to_prove(loss, 0.95, variants) == rows
    assert provable_loss(rows, 0.95, variants) <= loss < provable_loss(rows - 1, 0.95, variants)
