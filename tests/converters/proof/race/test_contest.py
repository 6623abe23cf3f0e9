"""Who can't win is timed no further, and nobody wins who would not have won in the full proof."""

from __future__ import annotations

import time

import numpy as np
import pytest

from hone.converters.proof.race.contest import Contest, TimeLimit, is_behind
from hone.converters.proof.race.timing import FEWEST_TURNS
from tests.converters.proof.race.fields import Runner, again, raced, recorded, rules

LATENCY = rules()
TURNS = 20


def steady(milliseconds: float, **changes: float | None) -> Runner:
    generator = np.random.default_rng(round(milliseconds * 1e3))
    return Runner(list(milliseconds * generator.uniform(0.99, 1.01, TURNS)), **changes)  # type: ignore[arg-type]


def same_winner(replays: int) -> float:
    """Return the share of replays of recorded proofs in which the race has the winner of the full proof."""
    same = []
    for name, field in recorded().items():
        generator = np.random.default_rng(len(name))
        for _ in range(replays):
            drawn = again(field, generator)
            same.append(raced(drawn, LATENCY).winner == raced(drawn, LATENCY, full=True).winner)
    return float(np.mean(same))


def test_a_race_has_the_winner_of_the_full_proof() -> None:
    assert same_winner(15) == 1.0


@pytest.mark.slow
def test_a_race_has_the_winner_of_the_full_proof_in_99_of_100_replays() -> None:
    assert same_winner(1000) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("gap", [1.0, 1.04, 1.06, 1.1])
def test_close_variants_on_a_noisy_host_are_not_told_apart_too_early(gap: float) -> None:
    """The smaller one wins a tie; the other is faster by the gap."""
    generator = np.random.default_rng(0)
    same = []
    for _ in range(500):
        field = {
            name: Runner(list(generator.lognormal(np.log(milliseconds), 0.1, TURNS)), size_mb=size)
            for name, milliseconds, size in (("fast", 1.0, 2.0), ("small", gap, 1.0), ("slow", 1.5, 0.5))
        }
        same.append(raced(field, LATENCY).winner == raced(field, LATENCY, full=True).winner)
    assert np.mean(same) >= 0.99


def test_the_beaten_and_the_missed_are_timed_in_few_turns_and_the_winner_in_all() -> None:
    found = raced({"fast": steady(1), "slow": steady(2), "wrong": steady(0.1, worse=300)}, LATENCY)
    assert found.winner == "fast" and found.turns["fast"] == TURNS
    assert found.turns["slow"] == 8 and found.stopped["slow"] == "beaten by fast; timed in 8 turns"
    assert found.turns["wrong"] == FEWEST_TURNS and found.stopped["wrong"].startswith("over the budget")


def test_one_that_is_not_proven_beats_nobody() -> None:
    found = raced({"unsure": steady(1, worse=6), "proven": steady(2)}, LATENCY)
    assert found.winner == "proven" and found.turns == {"unsure": TURNS, "proven": TURNS}


def test_one_that_is_not_proven_on_disturbed_rows_beats_nobody() -> None:
    """Who is over the budget without them is not asked for them."""
    field = {
        "fragile": steady(1, fragile=200),
        "unsure": steady(1.2, fragile=6),
        "robust": steady(2, fragile=0),
        "slow": steady(3, fragile=0),
        "wrong": steady(0.1, worse=300),
    }
    found = raced(field, LATENCY)
    assert found.winner == "robust" and found.stopped["slow"].startswith("beaten by robust")
    assert found.stopped["fragile"].startswith("over the budget") and found.turns["fragile"] == FEWEST_TURNS
    assert found.turns["unsure"] == found.turns["robust"] == TURNS


@pytest.mark.parametrize(("joules", "winner"), [(0.001, "fast"), (0.1, "slow"), (None, "slow")])
def test_one_that_uses_too_much_energy_beats_nobody(joules: float | None, winner: str) -> None:
    field = {"fast": steady(1, joules=joules), "slow": steady(2, joules=0.001)}
    found = raced(field, rules(energy_j=3))
    assert found.winner == winner and (found.turns["slow"] < TURNS) == (winner == "fast")


def test_near_ones_stay_in_the_race() -> None:
    found = raced({"one": steady(1), "other": steady(1.03)}, LATENCY)
    assert found.stopped == {}


def test_who_was_beaten_by_one_that_breaks_a_limit_is_called_back() -> None:
    """The fast one is disturbed in its last turns, so that its p95 is over the limit in the end."""
    fast = Runner([1.0] * 12 + [9.0] * 8)
    found = raced({"fast": fast, "slow": steady(2)}, rules(p95_ms=5))
    assert found.winner == "slow" and found.turns["slow"] == TURNS and found.stopped == {}


def test_far_over_a_limit_on_latency_is_seen_soon() -> None:
    found = raced({"fast": steady(1), "slow": steady(9), "near": steady(5.5)}, rules(p50_ms=5))
    assert found.stopped["slow"].startswith("p50 latency is over 5 ms") and found.turns["slow"] == 6


@pytest.mark.parametrize("objective", ["size", "quality"])
def test_other_objectives_know_who_is_beaten_from_the_start(objective: str) -> None:
    field = {"best": steady(2, size_mb=1), "other": steady(1, size_mb=3, worse=1)}
    found = raced(field, rules(objective))
    assert found.winner == "best" and found.turns == {"best": TURNS, "other": FEWEST_TURNS}


def test_without_the_race_everyone_has_all_turns() -> None:
    found = raced({"fast": steady(1), "slow": steady(2)}, LATENCY, full=True)
    assert found.stopped == {} and set(found.turns.values()) == {TURNS}


def test_turns_that_were_disturbed_decide_nothing() -> None:
    behind = [2.0] * 7
    assert not is_behind(behind, [1.0] * 7) and is_behind([*behind, 2.0], [1.0] * 8)
    assert not is_behind([*behind, 0.5], [1.0] * 8)
    assert not is_behind([1.04] * 20, [1.0] * 20), "a smaller difference is no difference"


def test_half_of_the_time_is_for_answers() -> None:
    limit = TimeLimit(1, time.monotonic() - 40)
    contest = Contest(LATENCY, lambda _: steady(1).evidence, limit=limit)
    assert "half of the 1 minutes were over before its turn" in contest.waits("v") and not contest.is_late()
    assert Contest(LATENCY, lambda _: steady(1).evidence, limit=TimeLimit(1, limit.began - 40)).is_late()
    assert Contest(LATENCY, lambda _: steady(1).evidence).waits("v") == ""
