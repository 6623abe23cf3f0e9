"""A load test as a gate: its verdicts on runs whose figures are known."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from hone.benchmarks.load.limits import Baseline, Limits, require_met
from hone.benchmarks.load.verdicts import judged
from hone.benchmarks.measures import measure, outcomes
from hone.benchmarks.records import LoadReport, Sent, read_load_report
from hone.benchmarks.reports.load import write_load_report
from hone.benchmarks.scenarios import Scenario
from hone.errors import LimitError, UndecidedError

RATE = 200.0


def run(
    seed: int, *, seconds: float = 20.0, scale: float = 1.0, errors: float = 0.0, limits: Limits | None = None,
    baseline: LoadReport | None = None, tolerance: float = 0.1,
) -> LoadReport:  # fmt: skip
    """Return the report of a run whose latencies are exponential with a mean of 10 ms, times a scale."""
    generator = np.random.default_rng(seed)
    scenario = Scenario(rate=RATE, duration_s=seconds, warm_up_s=0)
    intended = np.cumsum(generator.exponential(1 / RATE, int(RATE * seconds)))
    ended = intended + generator.exponential(0.01 * scale, len(intended))
    failed = generator.random(len(intended)) < errors
    rows = np.ones(len(intended), int)
    records = Sent(intended, intended, ended, rows, failed.astype(int), ("", "status 500"))
    measured: dict[str, Any] = measure(records, scenario)
    before = Baseline(baseline, tolerance) if baseline else None
    return LoadReport(
        model="dense:v1", url="http://127.0.0.1:9", created="2026-01-01T00:00:00+00:00", scenario=scenario,
        rate_source="given", host={"cpu": "x", "cores": 1}, **measured,
        **judged(measured, *outcomes(records, scenario), limits or Limits(), before),
    )  # fmt: skip


def said(report: LoadReport) -> dict[str, str]:
    return {f"{check.name} {check.against}": check.decision for check in report.checks}


P99_MS = 10 * np.log(100)


@pytest.mark.parametrize(("limit", "verdict"), [(1.3, "met"), (1.0, "undecided"), (0.75, "missed")])
def test_limit_is_judged_by_the_bound_of_the_share_over_it(limit: float, verdict: str) -> None:
    assert said(run(0, limits=Limits({"p99_ms": limit * P99_MS}, 0.01)))["p99_ms limit"] == verdict


def test_so_many_requests_decide() -> None:
    limits = Limits({"p99_ms": 1.15 * P99_MS}, 0.01)
    report = run(1, seconds=2, limits=limits)
    (check,) = report.undecided
    assert check.requests_to_decide is not None
    with pytest.raises(UndecidedError, match=r"undecided: p99_ms .*: about [\d,]+ requests would decide") as error:
        require_met(report)
    assert error.value.exit_code == 4
    longer = [said(run(seed, seconds=2 * check.requests_to_decide / RATE, limits=limits)) for seed in range(20)]
    assert sum(one["p99_ms limit"] == "met" for one in longer) >= 10


def test_limit_that_is_missed_comes_before_one_that_is_undecided() -> None:
    with pytest.raises(LimitError, match=r"^missed: p50_ms") as error:
        require_met(run(0, seconds=2, limits=Limits({"p50_ms": 1, "p99_ms": P99_MS}, 0.01)))
    assert error.value.exit_code == 3


def test_errors_are_judged_by_their_bound_where_they_were_asked_for() -> None:
    assert said(run(0, limits=Limits(errors=0.01)))["error_share limit"] == "met"
    assert said(run(0, errors=0.01, limits=Limits(errors=0.01)))["error_share limit"] == "undecided"
    assert said(run(0, errors=0.03, limits=Limits(errors=0.01)))["error_share limit"] == "missed"
    require_met(run(0, seconds=0.5))  # a hundred requests prove no 1 %, and nobody asked


def test_wrong_verdicts_are_rare() -> None:
    limits = Limits({"p99_ms": P99_MS}, 0.01)
    found = [said(run(seed, seconds=10, limits=limits))["p99_ms limit"] for seed in range(200)]
    assert sum(verdict == "met" for verdict in found) <= 20
    assert sum(verdict == "missed" for verdict in found) <= 20


@pytest.mark.parametrize(("scale", "verdict"), [(1.0, "met"), (1.3, "undecided"), (2.0, "missed")])
def test_baseline_is_compared_by_the_interval_of_the_ratio(scale: float, verdict: str) -> None:
    found = said(run(3, scale=scale, baseline=run(0), tolerance=0.3))
    assert found["p50_ms baseline"] == verdict
    assert found["rate baseline"] == "met"


def test_runs_of_the_same_service_are_no_regression() -> None:
    found = [said(run(seed, baseline=run(1000 + seed))) for seed in range(40)]
    assert [one for one in found if "missed" in one.values()] == []


def test_baseline_of_before_there_were_intervals_is_taken_for_exact() -> None:
    before = run(0).model_copy(update={"intervals": {}})
    assert said(run(1, baseline=before, tolerance=0.3))["p50_ms baseline"] == "met"
    assert said(run(1, baseline=before, tolerance=100))["rate baseline"] == "met"


def test_intervals_hold_the_figures_as_often_as_they_say() -> None:
    held = []
    for seed in range(200):
        between = run(seed, seconds=10).intervals
        held.append([between["p50_ms"][0] <= 10 * np.log(2) <= between["p50_ms"][1],
                     between["p99_ms"][0] <= P99_MS <= between["p99_ms"][1]])  # fmt: skip
    assert (np.mean(held, axis=0) >= 0.93).all()


def test_pipelines_read_the_verdicts(tmp_path: Path) -> None:
    report = run(0, limits=Limits({"p50_ms": 1, "p95_ms": 500, "p99_ms": P99_MS}, 0.01))
    write_load_report(report, tmp_path)
    suite = ElementTree.parse(tmp_path / "load.xml").find("testsuite")
    assert suite is not None
    assert [suite.attrib[name] for name in ("tests", "failures", "skipped")] == ["4", "1", "1"]
    assert read_load_report(tmp_path / "load.json") == report
    page = (tmp_path / "load.html").read_text()
    assert "requests would decide" in page
    assert "missed: p50_ms" in page
