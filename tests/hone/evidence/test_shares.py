from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hone.errors import UnavailableError
from hone.evidence.shares import FEWEST, Share, effect_of, pooled, share_over
from hone.evidence.warmup import warm_up


@pytest.mark.parametrize(("count", "of"), [(0, 459), (1, 662), (7, 1000), (500, 20_000)])
@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_bounds_of_independent_requests_are_those_of_clopper_and_pearson(
    count: int, of: int, confidence: float
) -> None:
    exact = stats.binomtest(count, of).proportion_ci(2 * confidence - 1)
    share = Share(count, of)
    assert share.low(confidence) == pytest.approx(exact.low, abs=1e-9)
    assert share.high(confidence) == pytest.approx(exact.high, abs=1e-9)


@pytest.mark.parametrize(("allowed", "over", "requests"), [(0.01, 0, 459), (0.01, 1, 662), (0.1, 1, 64)])
def test_percentile_is_proven_by_as_many_requests_as_in_mlperf(allowed: float, over: int, requests: int) -> None:
    """The table of MLPerf Inference's early stopping: 459 without one over p99, 662 and 64 with one."""
    assert Share(over, requests).high(0.99) <= allowed + 1e-4
    assert Share(over, requests - 2).high(0.99) > allowed


def test_requests_that_follow_each_other_count_as_fewer() -> None:
    alone, together = Share(10, 5000), Share(10, 5000, effect=10)
    assert together.high(0.99) > alone.high(0.99)
    assert together.low(0.99) < alone.low(0.99)
    assert (alone.verdict(0.01, 0.99), together.verdict(0.01, 0.99)) == ("met", "undecided")


def test_few_requests_decide_nothing() -> None:
    assert Share(FEWEST - 1, FEWEST - 1).verdict(0.5, 0.99) == "undecided"
    assert Share(FEWEST, FEWEST).verdict(0.5, 0.99) == "missed"


@pytest.mark.parametrize("count", [0, 3, 6, 20, 40])
def test_so_many_requests_decide(count: int) -> None:
    share = Share(count, 1000, effect=4)
    wanted = share.requests_to_decide(0.01, 0.99)
    assert wanted is not None
    for of, decided in ((wanted, True), (int(wanted * 0.95), False)):
        same = Share(round(share.point * of), of, effect=4)
        assert (same.verdict(0.01, 0.99) != "undecided") is (decided or of < FEWEST)


def test_share_at_its_limit_is_never_decided() -> None:
    assert Share(10, 1000).requests_to_decide(0.01, 0.99) is None


def test_effect_is_the_length_of_what_comes_together() -> None:
    generator = np.random.default_rng(0)
    marks = np.repeat(generator.random(20_000) < 0.05, 8)
    assert effect_of(marks) == pytest.approx(8, rel=0.5)
    assert effect_of(generator.random(200_000) < 0.05) == pytest.approx(1, abs=0.7)
    assert effect_of(np.zeros(1000, bool)) == 1.0


def test_clusters_show_where_no_request_is_over_the_limit() -> None:
    values = np.repeat(np.random.default_rng(0).random(2000), 10)
    assert share_over(values > 2, values, 0.01).effect > 3


def test_pooled_runs_weigh_by_their_requests() -> None:
    assert pooled([Share(1, 100, 2.0), Share(9, 300, 6.0)]) == Share(10, 400, 5.0)


def test_bounds_hold_as_often_as_they_say() -> None:
    generator = np.random.default_rng(1)
    counts = generator.binomial(2000, 0.01, 3000)
    bounds = {count: (Share(count, 2000).low(0.99), Share(count, 2000).high(0.99)) for count in set(counts.tolist())}
    assert np.mean([bounds[count][1] < 0.01 for count in counts.tolist()]) <= 0.01 + 0.005
    assert np.mean([bounds[count][0] > 0.01 for count in counts.tolist()]) <= 0.01 + 0.005


def test_missing_scipy_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.startswith("scipy"):
            raise ImportError(name)
        return found(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnavailableError, match="scipy is not installed; pip install scipy"):
        Share(1, 1000).high(0.99)


def test_warm_up_ends_where_a_series_settles() -> None:
    generator = np.random.default_rng(0)
    series = generator.normal(10, 1, 1000)
    assert warm_up(series) <= 150
    series[:200] += np.linspace(30, 5, 200)
    assert warm_up(series) == pytest.approx(200, abs=60)
    assert warm_up(series[:10]) == 0


def test_series_that_never_settles_is_left_out_to_its_half() -> None:
    assert warm_up(np.arange(1000.0)) == 500
