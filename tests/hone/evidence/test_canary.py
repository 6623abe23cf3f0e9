"""Verdicts that may be looked at after every request: how often they are wrong, and how soon they are right."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hone.evidence.canary import RISK, Beside, agreement, compare, ruling, worse_by
from hone.evidence.wealth import log_won, share_bounds

STOP = math.log(2 / RISK)
"""Two questions share the risk: failures and slow answers."""


def looks(rng: np.random.Generator, runs: int, shares: tuple[float, float], ours: np.ndarray, theirs: np.ndarray):  # type: ignore[no-untyped-def]
    """Return cumulative tables [runs, looks, 1, 4] of so many new requests of both versions at each look."""
    marked, stable = (rng.binomial(n, p, (runs, len(n))) for n, p in zip((ours, theirs), shares, strict=True))
    columns = (marked, np.broadcast_to(ours, marked.shape), stable, np.broadcast_to(theirs, marked.shape))
    return np.stack([column.cumsum(axis=1) for column in columns], axis=-1)[:, :, None, :]


def rejected(tables: np.ndarray) -> np.ndarray:
    """Return at which look each run is called bad first; the number of looks where it never is."""
    hit = worse_by(tables) >= STOP
    return np.where(hit.any(axis=1), hit.argmax(axis=1), hit.shape[1])


@pytest.mark.parametrize("share", [0.001, 0.01, 0.3])
def test_equal_versions_are_seldom_called_bad_however_often_one_looks(share: float) -> None:
    rng = np.random.default_rng(3)
    ours, theirs = np.full(300, 20), np.full(300, 180)
    found = rejected(looks(rng, 400, (share, share), ours, theirs))
    assert (found < 300).mean() <= 0.05


@pytest.mark.slow
def test_of_two_thousand_equal_pairs_watched_for_a_day_few_are_called_bad() -> None:
    """Looks every minute while the load goes up and down and both versions fail more in some hours."""
    rng, runs, step = np.random.default_rng(4), 2000, 60.0
    at = np.arange(0, 86_400, step)
    load = 30 * (1.2 + np.sin(at / 86_400 * 2 * np.pi))
    ever = np.zeros(runs, dtype=bool)
    for kind in (0.001, 0.01):  # failures, and answers beyond the p99
        share = kind * (1 + 9 * ((at // 3600) % 5 == 0))  # each fifth hour is ten times as bad for all
        for first in range(0, runs, 100):
            both = rng.poisson(load * step, (100, len(at)))
            ours = rng.binomial(both, 0.05)
            rows = (rng.binomial(ours, share), ours, rng.binomial(both - ours, share), both - ours)
            tables = np.stack([row.cumsum(axis=1) for row in rows], axis=-1)[:, :, None, :]
            ever[first : first + 100] |= (worse_by(tables) >= STOP).any(axis=1)
    assert ever.mean() <= RISK


@pytest.mark.parametrize("weight", [0.05, 0.25, 0.5])
def test_ten_times_the_failures_are_found_within_1500_requests(weight: float) -> None:
    ours = np.full(100, 40)
    found = rejected(
        looks(np.random.default_rng(5), 200, (0.01, 0.001), ours, (ours / weight * (1 - weight)).astype(int))
    )
    assert np.median((found + 1) * 40) <= 1500


def test_a_fifth_more_of_p99_is_found_within_five_minutes_at_fifty_requests_a_second() -> None:
    """Latencies of exponential tails, which tell least: a fifth more of all of them has 2.15 % beyond the old p99."""
    ours, theirs = np.full(300, 25), np.full(300, 25)
    found = rejected(looks(np.random.default_rng(6), 200, (0.0215, 0.01), ours, theirs))
    assert np.median(found) <= 300
    assert (found < 300).mean() > 0.9


def test_a_bad_hour_of_both_versions_is_nobodys() -> None:
    """Nine of ten requests of the bad hour are the canary's: counts alone would call it bad."""
    stages = [Beside(1, 1000, 9, 9000), Beside(900, 9000, 100, 1000)]
    assert compare("errors", stages, 0.01, 0.025).verdict == "good"
    assert compare("errors", [Beside(901, 10_000, 109, 10_000)], 0.01, 0.025).verdict == "bad"


def test_good_is_proven_and_says_before_what_is_missing() -> None:
    few = compare("errors", [Beside(0, 300, 0, 5700)], 0.01, 0.025)
    assert few.verdict == "undecided"
    assert few.missing is not None
    assert 100 < few.missing < 1000
    enough = 300 + few.missing
    assert compare("errors", [Beside(0, enough, 0, 19 * enough)], 0.01, 0.025).verdict == "good"


def test_a_version_alone_is_held_against_what_the_other_did_before() -> None:
    before = Beside(1, 1000, 10, 9000)
    assert compare("errors", [before, Beside(2, 5000, 0, 0)], 0.01, 0.025).verdict == "good"
    assert compare("errors", [before, Beside(300, 5000, 0, 0)], 0.01, 0.025).verdict == "bad"


def test_nothing_known_is_not_good() -> None:
    assert ruling([]).verdict == "undecided"
    nothing = compare("p99", [], 0.02, 0.025)
    assert nothing.verdict == "undecided"
    found = ruling([nothing, compare("errors", [Beside(0, 9000, 0, 9000)], 0.01, 0.025)])
    assert found.verdict == "undecided"
    assert "not enough evidence" in found.reason


def test_agreement_is_a_share_with_a_bound() -> None:
    assert agreement(1000, 1000, 0.99, 0.025).verdict == "good"
    assert agreement(900, 1000, 0.99, 0.025).verdict == "bad"
    some = agreement(200, 200, 0.99, 0.025)
    assert some.verdict == "undecided"
    assert some.missing is not None


def test_bounds_hold_the_share_at_every_moment() -> None:
    rng, of = np.random.default_rng(7), np.arange(1, 801)
    marked = (rng.random((150, len(of))) < 0.02).cumsum(axis=1)
    for more in (True, False):
        won = log_won(marked[..., None], of[:, None], np.array([0.02]), more=more)
        assert (won >= math.log(1 / 0.05)).any(axis=1).mean() <= 0.05
    low, high = share_bounds(20, 1000, 0.05)
    edges = [float(log_won(np.array([20]), np.array([1000]), np.array([p]), more=p < 0.02)) for p in (low, high)]
    np.testing.assert_allclose(edges, math.log(1 / 0.05), rtol=1e-2)
    assert share_bounds(0, 0, 0.025) == (0.0, 1.0)
