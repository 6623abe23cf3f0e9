"""Winners of A/B tests that are looked at after every unit: how often they are false, and how soon they are true."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from hone.evidence.arms.means import Sums, difference, standard_error, units_missing
from hone.evidence.arms.power import units_needed
from hone.evidence.arms.sequence import FEWEST, reach
from tests.hone.evidence.arms.singles import singles

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
RISK = 0.05

DRAWS: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "long tail": lambda rng, shape: rng.lognormal(0, 1.5, size=shape),
    "revenue": lambda rng, shape: (rng.random(shape) < 0.03) * rng.lognormal(3, 1, size=shape),
    "share": lambda rng, shape: (rng.random(shape) < 0.02).astype(float),
}


def found_at(draw: Draw, share: float, units: int, planned: float, runs: int, effect: float = 0.0) -> np.ndarray:
    """Return the unit at which each run finds a difference first, looking at every one; `units` where it never does."""
    rng, found = np.random.default_rng(1), []
    for first in range(0, runs, 100):
        ours = rng.random((min(100, runs - first), units)) < share
        values = draw(rng, ours.shape) + effect * ours
        sums = []
        for kept in (ours, ~ours):
            some = values * kept
            sums.append(singles(kept.cumsum(axis=1), some.cumsum(axis=1), (some**2).cumsum(axis=1)))
        apart = np.abs(sums[0].mean - sums[1].mean)
        bound = standard_error(*sums) * reach(np.arange(1, units + 1) / planned, RISK)
        hit = (apart > bound) & (np.minimum(sums[0].units, sums[1].units) >= FEWEST)
        found.append(np.where(hit.any(axis=1), hit.argmax(axis=1), units))
    return np.concatenate(found)


@pytest.mark.parametrize(("kind", "share"), [("normal", 0.5), ("revenue", 0.1)])
def test_equal_versions_have_seldom_a_winner_however_often_one_looks(kind: str, share: float) -> None:
    assert (found_at(DRAWS[kind], share, 1500, 1000, 200) < 1500).mean() <= RISK


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(DRAWS))
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_of_two_thousand_equal_tests_looked_at_after_every_unit_few_have_a_winner(kind: str, share: float) -> None:
    assert (found_at(DRAWS[kind], share, 6000, 1000, 2000) < 6000).mean() <= RISK


def test_a_standard_error_of_the_smaller_arm_alone_would_find_winners() -> None:
    """What the pooled variance is for: no buyer yet in the smaller arm, and its own spread is 0."""
    few = singles(100, 0.0, 0.0)
    many = singles(10_000, 300.0, 300.0)
    own = math.sqrt(few.variance / 100 + many.variance / 10_000)
    assert standard_error(few, many) > 9 * own


@pytest.mark.parametrize("share", [0.5, 0.2])
def test_a_true_effect_is_found_by_the_units_that_were_planned(share: float) -> None:
    needed = units_needed(0.25, (1.0, 1.0), (1 - share, share), RISK, 0.8)
    found = found_at(DRAWS["normal"], share, needed.units, needed.units, 300, effect=0.25)
    assert 0.72 < (found < needed.units).mean() < 0.9
    assert 0.8 < np.median(found) / needed.half < 1.2
    assert 1.4 < needed.units / needed.once < 2.0, "the price of looking always"


def returning(runs: int, looks: int, by_unit: bool) -> float:
    """Return how many tests ever have a winner whose callers come again and again, few of them very often."""
    rng, units, ever = np.random.default_rng(2), 300, np.zeros(runs, dtype=bool)
    ours = rng.random((runs, units)) < 0.5
    often, worth = rng.gamma(0.5, 2.0, (runs, units)), rng.normal(0, 1, (runs, units))
    counts, totals, squares = np.zeros((runs, units)), np.zeros((runs, units)), np.zeros((runs, units))
    for _ in range(looks):
        more = rng.poisson(often)
        values = worth * more + rng.normal(size=more.shape) * np.sqrt(more)
        counts, totals, squares = counts + more, totals + values, squares + more * (worth**2 + 1)
        sums = []
        for kept in (ours, ~ours):
            of, total = counts * kept, totals * kept
            if by_unit:
                seen = (
                    (of > 0).sum(1),
                    of.sum(1),
                    total.sum(1),
                    (total**2).sum(1),
                    (total * of).sum(1),
                    (of**2).sum(1),
                )
                sums.append(Sums(*seen))
            else:
                sums.append(singles(of.sum(1), total.sum(1), (squares * kept).sum(1)))
        both = sums[0].units + sums[1].units
        bound = standard_error(*sums) * reach(both / units, RISK)
        enough = np.minimum(sums[0].units, sums[1].units) >= FEWEST
        ever |= (np.abs(sums[0].mean - sums[1].mean) > bound) & enough
    return float(ever.mean())


def test_callers_who_come_back_count_once_each() -> None:
    assert returning(300, 30, by_unit=True) <= RISK
    assert returning(300, 30, by_unit=False) > 3 * RISK, "requests that are taken for independent find winners"


def test_a_ratio_of_sums_has_the_variance_of_repeated_draws() -> None:
    rng = np.random.default_rng(3)
    counts = rng.poisson(3, (2000, 400)) + 1
    totals = rng.normal(2, 1, counts.shape) * counts
    means = np.array([Sums.of(n, s).mean for n, s in zip(counts, totals, strict=True)])
    told = np.mean([Sums.of(n, s).variance for n, s in zip(counts[:200], totals[:200], strict=True)])
    assert told / 400 == pytest.approx(means.var(), rel=0.1)


def test_nothing_is_said_of_few_and_what_is_missing_is_about_right() -> None:
    few = difference(singles(99, 99.0, 200.0), singles(500, 0.0, 500.0), 1000, RISK)
    assert (few.low, few.high) == (-math.inf, math.inf)
    some = difference(singles(500, 50.0, 505.0), singles(500, 0.0, 500.0), 5000, RISK)
    assert some.low < 0 < some.high
    more = units_missing(some, 5000, RISK)
    assert more is not None
    factor = (1000 + more) / 1000
    then = difference(
        singles(500 * factor, 50.0 * factor, 505.0 * factor), singles(500 * factor, 0.0, 500 * factor),
        5000, RISK,
    )  # fmt: skip
    assert 0 < then.low < 0.02
    assert units_missing(difference(Sums(), Sums(), 100, RISK), 100, RISK) is None
