"""Things measured in rounds: intervals of their ratios hold what they say."""

from __future__ import annotations

import numpy as np
import pytest

from hone.evidence.blocks import Blocks


def test_interval_holds_the_ratio_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    truth = np.log([1.0, 1.2, 1.5, 0.8, 1.0, 2.0])
    below, above, widths, times = 0, 0, [], 2000
    for _ in range(times):
        rounds = generator.normal(0, 0.5, 4)  # what disturbs a round disturbs all in it
        logs = truth[:, None] + rounds + generator.normal(0, 0.05, (6, 4))
        low, high = Blocks(logs, np.ones(4)).ratio(1, 0, 0.05)
        below, above = below + (high < 1.2), above + (low > 1.2)
        widths.append(high / low - 1)
    assert below < 0.06 * times
    assert above < 0.06 * times
    assert np.median(widths) < 0.2


def test_longer_rounds_count_for_more() -> None:
    logs = np.log(np.array([[100.0, 200.0], [100.0, 100.0]]))
    assert Blocks(logs, np.array([1.0, 3.0])).means == pytest.approx([100 * 2**0.75, 100])


def test_noise_of_two_that_is_larger_than_that_of_all_is_theirs() -> None:
    generator = np.random.default_rng(1)
    logs = generator.normal(0, 0.01, (8, 3))
    calm = Blocks(logs, np.ones(3)).ratio(0, 1, 0.05)
    logs[0] += [0.5, -0.5, 0.0]
    wild = Blocks(logs, np.ones(3)).ratio(0, 1, 0.05)
    assert wild[1] / wild[0] > 2 * calm[1] / calm[0]


def test_one_round_says_nothing() -> None:
    with pytest.raises(ValueError, match="two things and two rounds"):
        Blocks(np.zeros((3, 1)), np.ones(1)).ratio(0, 1, 0.05)
