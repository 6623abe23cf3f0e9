"""Bounds of a mean that hold at every moment: looking often doesn't make them wrong."""

from __future__ import annotations

import numpy as np
import pytest

from hone.evidence.sequences import MeanSequence, won_by_heads


@pytest.mark.parametrize("share", [0.02, 0.5])
def test_the_mean_leaves_the_bounds_no_more_often_than_stated_however_often_one_looks(share: float) -> None:
    generator = np.random.default_rng(0)
    left = 0
    for _ in range(60):
        sequence, held = MeanSequence(confidence=0.8), True
        for value in generator.random(300) < share:
            sequence.add([float(value)])
            held &= sequence.low <= share <= sequence.high
        left += not held
    assert left / 60 <= 0.2 + 3 * (0.2 * 0.8 / 60) ** 0.5


def test_bounds_close_in_on_the_mean_and_never_widen() -> None:
    generator = np.random.default_rng(1)
    sequence = MeanSequence(-1.0, 1.0)
    assert (sequence.low, sequence.high) == (-1, 1)
    widths = []
    for _ in range(6):
        sequence.add(np.clip(generator.normal(0.2, 0.1, 400), -1, 1))
        widths.append(sequence.high - sequence.low)
    assert widths == sorted(widths, reverse=True)
    assert sequence.low < 0.2 < sequence.high and widths[-1] < 0.05
    assert sequence.count == 2400


def test_values_that_vary_little_are_bounded_sooner() -> None:
    generator = np.random.default_rng(2)
    steady, wild = MeanSequence(), MeanSequence()
    steady.add(0.5 + 0.01 * generator.random(300))
    wild.add((generator.random(300) < 0.5).astype(float))
    assert steady.high - steady.low < (wild.high - wild.low) / 2


def test_a_value_outside_of_the_range_is_refused() -> None:
    with pytest.raises(ValueError, match="outside of 0"):
        MeanSequence().add([1.5])
    with pytest.raises(ValueError, match="outside of 0"):
        MeanSequence().add([float("nan")])
    with pytest.raises(ValueError, match="below the most"):
        MeanSequence(1, 1)


def test_a_fair_coin_seldom_looks_unfair_however_often_one_looks() -> None:
    throws = np.random.default_rng(3).random((1000, 100)) < 0.5
    convinced = sum(
        any(won_by_heads(int(heads), count) >= 100 for count, heads in enumerate(np.cumsum(one), 1)) for one in throws
    )
    assert convinced / 1000 <= 0.01 + 3 * (0.01 * 0.99 / 1000) ** 0.5
    assert won_by_heads(7, 7) < 100 <= won_by_heads(8, 8) and won_by_heads(11, 12) > won_by_heads(8, 12)
