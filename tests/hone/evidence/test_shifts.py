"""Bounds of how far rows have moved."""

from __future__ import annotations

import numpy as np
import pytest

from hone.evidence.shifts import (
    Budget,
    Counted,
    chi_square,
    gap_bounds,
    largest_change,
    request_effect,
    rows_to_see,
    smallest_seen,
    stability_index,
    total_variation,
    wasserstein,
)

HALF = np.array([[1.0, 0.0]])


def counted(*cells: float, effect: float = 1.0, error: float = 0.0) -> Counted:
    return Counted(np.array(cells), effect, error)


@pytest.mark.parametrize(("p", "q", "n", "m"), [(0.5, 0.5, 500, 2000), (0.3, 0.1, 200, 1000), (0.02, 0.01, 400, 400)])
def test_bounds_of_a_change_miss_it_no_more_often_than_stated(p: float, q: float, n: int, m: int) -> None:
    generator = np.random.default_rng(0)
    live, known = generator.binomial(n, p, 4000), generator.binomial(m, q, 4000)
    low, high = gap_bounds(
        Counted(np.stack([live, n - live], -1).astype(float)),
        Counted(np.stack([known, m - known], -1).astype(float)),
        HALF,
        0.01,
    )
    for wrong in ((low > p - q).mean(), (high < p - q).mean()):
        assert wrong <= 0.01 + 3 * (0.01 / 4000) ** 0.5


def test_change_is_drift_only_beyond_the_threshold_and_not_by_chance() -> None:
    def verdict(*cells: float, **options: float) -> str:
        known = counted(5000, 5000)
        return largest_change(counted(*cells, **options), known, np.eye(2), 1e-4, 1e-8).verdict(0.1)

    assert verdict(700, 300) == "missed"
    assert verdict(520, 480) == "met"
    assert verdict(600, 400) == "undecided"
    assert verdict(14, 6) == "undecided"
    assert verdict(0, 0) == "undecided"
    assert verdict(700, 300, effect=20) == "undecided"  # 1000 rows of requests that hold 20 rows of a kind each
    assert verdict(700, 300, error=0.05) == "undecided"


def test_smallest_change_and_rows_for_it_agree() -> None:
    doubt = Budget().doubts(28, 1400)[0]
    rows = rows_to_see(0.2, 5000, 0.1, doubt)
    assert rows is not None and smallest_seen(rows, 5000, 0.1, doubt) == pytest.approx(0.2, abs=1e-3)
    assert rows_to_see(0.2, 20, 0.1, doubt) is None  # the reference has too few rows itself
    assert smallest_seen(0, 5000, 0.1, doubt) == 1.0


def test_alarms_are_shared_out_among_all_looks_and_features() -> None:
    budget = Budget(a_month=0.1, looks=720)
    assert budget.doubts(28, 1400)[1] * 2 * 1400 * 720 == pytest.approx(0.1)
    assert budget.doubts(28, 1400)[0] * 2 * 28 == pytest.approx(0.01)


def test_rows_of_a_request_count_as_fewer_when_they_are_alike() -> None:
    generator = np.random.default_rng(0)

    def effect(values: np.ndarray) -> float:
        """Of values [requests, rows]."""
        sums = (values.sum(), (values**2).sum(), (values.sum(axis=1) ** 2 / values.shape[1]).sum())
        return request_effect(values.size, len(values), values.shape[1] ** 2 * len(values), sums)

    assert effect(generator.normal(size=(200, 16))) < 1.5
    assert effect(np.repeat(generator.normal(size=(200, 1)), 16, axis=1)) == pytest.approx(16)
    assert effect(generator.normal(size=(200, 1))) == 1.0
    assert request_effect(10, 1, 100, (0, 0, 0)) == 10  # one request says nothing of how alike its rows are


def test_distances_are_those_worked_out_by_hand() -> None:
    one, other = counted(50, 50), counted(75, 25)
    assert total_variation(other, one) == 0.25
    assert stability_index(one, one) == 0
    assert stability_index(other, one) == pytest.approx(0.25 * np.log(1.5) - 0.25 * np.log(0.5), rel=0.03)
    probability, association = chi_square(other, one)
    assert probability == pytest.approx(0.000261, rel=0.01)  # scipy.stats.chi2_contingency without correction
    assert association == pytest.approx(0.258, rel=0.01)
    levels = np.linspace(0, 1, 101)
    assert wasserstein(levels + 0.4, levels) == pytest.approx(0.5)
