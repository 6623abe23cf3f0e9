"""Verdicts that may be looked at after every request: how often they are wrong, and how soon they are right."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hone.evidence.canary import RISK, Beside, Moments, agreement, compare, ruling, worse_by
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


def ever_bad(x: np.ndarray, of: np.ndarray, y: np.ndarray, stable_of: np.ndarray) -> np.ndarray:
    """Return which of the runs are called bad at any of their looks.

    Between two events only the weight changes, and the less it is the more is won. What is won is at most the
    exponential of n times the divergence from the weight (Chernoff), which is at most that of chi-square. So only the
    look of the least weight after each event is computed, where it can be enough.

    Args:
        x, of, y, stable_of: columns of `worse_by`'s tables [runs, looks].
    """
    n, weight = x + y, of / np.maximum(of + stable_of, 1)
    starts = np.flatnonzero(np.diff(n, axis=1, prepend=-1))
    least, n, x = np.minimum.reduceat(weight.ravel(), starts), n.ravel()[starts], x.ravel()[starts]
    enough = x - n * least >= np.sqrt(STOP * n * least * (1 - least))
    won = log_won(x[enough, None], n[enough, None], least[enough, None])
    found = np.zeros(len(weight), dtype=bool)
    found[starts[enough][won >= STOP] // weight.shape[1]] = True
    return found


def test_looks_that_are_left_out_could_not_have_been_bad() -> None:
    tables = looks(np.random.default_rng(9), 300, (0.012, 0.01), np.full(400, 25), np.full(400, 75))
    found = ever_bad(*np.moveaxis(tables[:, :, 0], -1, 0))
    assert (found == (rejected(tables) < 400)).all()
    assert 0 < found.sum() < 300


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_of_two_thousand_equal_pairs_looked_at_each_second_of_a_day_few_are_called_bad() -> None:
    """While the load goes up and down, and both versions fail more in some hours."""
    rng, runs, at = np.random.Generator(np.random.SFC64(4)), 2000, np.arange(86_400)
    load = 10 * (1.2 + np.sin(at / 86_400 * 2 * np.pi))
    bad_hour = 1 + 9 * ((at // 3600) % 5 == 0)  # each fifth hour is ten times as bad for both
    ever = np.zeros(runs, dtype=bool)
    for first in range(0, runs, 10):
        arms = []
        for part in (0.05, 0.95):
            failed, slow = (rng.poisson(part * load * kind * bad_hour, (10, len(at))) for kind in (0.001, 0.01))
            others = rng.poisson(part * load, (10, len(at)))
            arms.append([column.cumsum(axis=1) for column in (failed, slow, failed + slow + others)])
        (failed, slow, of), (stable_failed, stable_slow, stable_of) = arms
        ever[first : first + 10] |= ever_bad(failed, of, stable_failed, stable_of)
        ever[first : first + 10] |= ever_bad(slow, of, stable_slow, stable_of)
    assert 0 < ever.mean() <= RISK


def stalling(rng: np.random.Generator, new: np.ndarray, processes: int) -> np.ndarray:
    """Return slow answers at each look: two of a thousand, and those that come while a process stands still."""
    slow = rng.binomial(new, 0.002)
    for _ in range(processes):
        slow += np.where(rng.random(new.shape) < 0.02, rng.poisson(0.3 * new / processes), 0)
    return np.minimum(slow, new)


@pytest.mark.parametrize("weight", [0.05, 0.5])
def test_processes_that_stand_still_speak_against_no_version(weight: float) -> None:
    """One new process beside two: counted by requests, most of equal versions would be called bad."""
    rng, runs, seconds = np.random.default_rng(8), 40, 300
    found = by_requests = 0
    for _ in range(runs):
        ours, theirs = (rng.poisson(200 * part, seconds) for part in (weight, 1 - weight))
        x, y = stalling(rng, ours, 1), stalling(rng, theirs, 2)
        table = np.stack([column.cumsum() for column in (x, ours, y, theirs)], axis=-1)[:, None, :]
        by_requests += bool((worse_by(table) >= STOP).any())
        moments, bad = Moments(), False
        for mine, of, others, stable_of in zip(x, ours, y, theirs, strict=True):
            moments = moments.plus(int(mine), int(others), max(of / max(1, of + stable_of), 1 / 3))
            bad |= moments.are_worse(RISK / 2)
        found += bad
    assert found <= RISK * runs
    assert by_requests > 2 * RISK * runs


def test_moments_find_a_fifth_more_of_p99_within_five_minutes_at_fifty_requests_a_second() -> None:
    rng, soon = np.random.default_rng(6), []
    for _ in range(40):
        moments = Moments()
        for second in range(300):
            mine, others = rng.binomial(25, (0.0215, 0.01))
            moments = moments.plus(int(mine), int(others), 0.5)
            if moments.are_worse(RISK / 2):
                soon.append(second)
                break
    assert len(soon) > 20


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
