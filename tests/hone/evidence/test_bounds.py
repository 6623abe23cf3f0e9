from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hone.evidence.bounds import is_faster, median_interval, ratio_interval, round_percentiles, shuffles


@pytest.mark.parametrize(("count", "rank"), [(6, 0), (9, 1), (20, 5), (40, 13)])
def test_interval_of_the_median_is_made_of_order_statistics(count: int, rank: int) -> None:
    low, high = median_interval(list(range(count)))
    assert (low, high) == (rank, count - 1 - rank)
    assert 2 * stats.binom.cdf(rank, count, 0.5) <= 0.05 < 2 * stats.binom.cdf(rank + 1, count, 0.5)


def test_few_values_give_their_range() -> None:
    assert median_interval([3.0]) == (3.0, 3.0)
    assert median_interval([5.0, 1.0, 2.0]) == (1.0, 5.0)


def test_interval_holds_the_median_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    bounds = [median_interval(list(generator.lognormal(size=20))) for _ in range(2000)]
    assert np.mean([low <= 1.0 <= high for low, high in bounds]) >= 0.95


def test_rounds_are_compared_with_themselves() -> None:
    """Twice as slow in half of the rounds, both alike: the ratio doesn't move, and a real gain shows."""
    disturbed = np.where(np.arange(20) % 2, 1.0, 2.0)
    assert ratio_interval(0.8 * disturbed, disturbed) == pytest.approx((0.8, 0.8, 0.8))
    assert is_faster(0.8 * disturbed, disturbed)
    assert not is_faster(0.97 * disturbed, disturbed)  # too little to matter
    assert not is_faster(disturbed, disturbed)


def test_noise_is_no_gain() -> None:
    generator = np.random.default_rng(0)
    found = [is_faster(generator.lognormal(0, 0.3, 20), generator.lognormal(0, 0.3, 20)) for _ in range(1000)]
    assert np.mean(found) <= 0.03


def test_a_slow_round_counts_as_much_as_a_fast_one_in_the_tail() -> None:
    fast, slow = np.full(1000, 1.0), np.full(10, 5.0)
    assert round_percentiles([fast, slow], (25, 95)) == [1.0, 5.0]
    assert round_percentiles([np.arange(1, 101)], (50, 99)) == [50, 99]


def test_shuffles_are_the_same_each_time() -> None:
    for one, other in zip(shuffles(50, 3), shuffles(50, 3), strict=True):
        np.testing.assert_array_equal(one, other)
