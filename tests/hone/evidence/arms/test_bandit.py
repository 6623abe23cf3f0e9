"""Weights that follow what is known, and intervals that stay valid while they do."""

from __future__ import annotations

import numpy as np
import pytest

from hone.evidence.arms.bandit import LEAST, Stage, thompson, weighed_difference
from hone.evidence.arms.means import Sums, difference
from tests.hone.evidence.arms.singles import singles

RISK = 0.05


def sums_of(values: np.ndarray) -> Sums:
    return singles(float(len(values)), float(values.sum()), float((values**2).sum()))


def run(effect: float, runs: int, batches: int, arms: int = 2, size: int = 150) -> tuple[float, float, float, float]:
    """Return how many intervals of the last arm are ever wrong, its last share, its cost, and the bias of its
    estimate."""
    rng = np.random.default_rng(1)
    wrong, shares, costs, points = 0, [], [], []
    for _ in range(runs):
        stages: list[Stage] = []
        known, missed = [Sums()] * arms, False
        for _ in range(batches):
            share = thompson(known, 1)
            dealt = rng.choice(arms, size, p=share)
            values = rng.normal(5, 1, size) + effect * (dealt == arms - 1)
            stages.append(Stage(share, tuple(sums_of(values[dealt == place]) for place in range(arms))))
            known = [before + new for before, new in zip(known, stages[-1].arms, strict=True)]
            found, cost = weighed_difference(stages, arms - 1, batches * size, RISK)
            missed |= not found.low <= effect <= found.high
        wrong += missed
        shares.append(share[-1])
        costs.append(cost)
        points.append(found.point - effect)
    return wrong / runs, float(np.mean(shares)), float(np.mean(costs)), float(np.mean(points))


def test_a_better_arm_gets_most_and_the_interval_tells_the_price() -> None:
    wrong, share, cost, bias = run(0.3, 25, 12)
    assert wrong <= 0.1
    assert share > 0.85
    assert 1.2 < cost < 3
    assert abs(bias) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "arms"), [(0.0, 2), (0.15, 2), (0.0, 3)])
def test_intervals_hold_while_weights_follow_what_is_known(effect: float, arms: int) -> None:
    wrong, _, cost, bias = run(effect, 400, 25, arms)
    assert wrong <= RISK
    assert cost > 1.05
    assert abs(bias) < 0.03


def test_every_arm_keeps_a_share_and_few_units_say_nothing() -> None:
    good, bad = sums_of(np.full(500, 2.0) + np.tile([0.1, -0.1], 250)), sums_of(np.tile([0.1, -0.1], 250))
    assert thompson([good, bad], 1) == pytest.approx((1 - LEAST, LEAST))
    assert thompson([good, bad], -1) == pytest.approx((LEAST, 1 - LEAST))
    assert thompson([good, Sums()], 1) == (0.5, 0.5)
    assert sum(thompson([good, bad, bad], 1)) == pytest.approx(1)


def test_weights_that_stand_still_give_what_plain_means_give() -> None:
    rng = np.random.default_rng(2)
    arms = tuple(sums_of(rng.normal(1 + place, 1, 5000)) for place in range(2))
    weighed, cost = weighed_difference([Stage((0.5, 0.5), arms)], 1, 10_000, RISK)
    plain = difference(arms[1], arms[0], 10_000, RISK)
    assert weighed.point == pytest.approx(plain.point, rel=0.05)
    second, cost = weighed_difference([Stage((0.5, 0.5), arms)] * 20, 1, 200_000, RISK)
    assert second.high - second.low == pytest.approx((plain.high - plain.low) / 20**0.5, rel=0.25)
    assert cost == pytest.approx(1, rel=0.25)
