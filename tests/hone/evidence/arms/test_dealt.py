"""A check of the sample ratio that may be looked at always."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hone.evidence.arms.dealt import RISK, is_misdealt, misdealt_by


def looks(shares: tuple[float, ...], runs: int, units: int) -> np.ndarray:
    """Return counts [runs, looks, arms], one look after every 20 units."""
    rng = np.random.default_rng(1)
    drawn = rng.choice(len(shares), (runs, units), p=shares)
    return np.stack([(drawn == place).cumsum(axis=1)[:, 19::20] for place in range(len(shares))], axis=-1)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.1), (0.6, 0.3, 0.1)])
def test_units_that_are_dealt_as_meant_are_seldom_doubted(shares: tuple[float, ...]) -> None:
    won = misdealt_by(looks(shares, 400, 2000), np.array(shares))
    assert (won >= math.log(1 / RISK)).any(axis=1).mean() <= RISK


def test_a_lost_tenth_of_an_arm_is_found() -> None:
    won = misdealt_by(looks((0.45 / 0.95, 0.5 / 0.95), 100, 16_000), np.array([0.5, 0.5]))
    assert (won >= math.log(1 / RISK)).any(axis=1).mean() > 0.95


def test_stages_count_together_and_an_arm_without_weight_is_left_out() -> None:
    assert not is_misdealt([((500, 500), (50, 50)), ((900, 100), (90, 10))])
    assert is_misdealt([((500, 500), (50, 50)), ((700, 300), (90, 10))])
    assert not is_misdealt([((500, 0), (100, 0))])
    assert not is_misdealt([])
