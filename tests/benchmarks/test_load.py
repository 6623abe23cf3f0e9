"""Real Locust against a real server whose faults are known."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydantic import ValidationError

from hone.benchmarks.load.limits import Baseline, Limits, compare, require_met
from hone.benchmarks.load.payload import requests, rows_for
from hone.benchmarks.load.run import bench, calls_for, run_load
from hone.benchmarks.load.target import Access, Target, ask
from hone.benchmarks.records import LATE_SHARE, LoadReport, measure, read_load_report
from hone.benchmarks.reports.load import draw, redraw
from hone.benchmarks.scenarios import Scenario
from hone.errors import HoneError, LimitError
from tests.models import dense_artifact, dense_signature

SERVER = """
import asyncio, json, sys, time
import uvicorn

FAULT, START = sys.argv[2], time.monotonic()
seen = 0

async def app(scope, receive, send):
    global seen
    if scope["type"] != "http":
        return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    status, answer = 200, {}
    if scope["path"] == "/v2/models/dense":
        tensors = {"inputs": ("features", 4), "outputs": ("scores", 3)}
        answer = {"name": "dense", "versions": ["v1"]} | {
            side: [{"name": name, "datatype": "FP32", "shape": [-1, size]}] for side, (name, size) in tensors.items()
        }
    if scope["path"] == "/models/dense/predict":
        seen += 1
        rows = len(next(iter(json.loads(body)["inputs"].values())))
        if FAULT == "stall" and seen == 150:
            time.sleep(1.0)  # everybody waits
        if FAULT == "errors" and seen % 5 == 0:
            status = 500
        if FAULT == "rows" and seen % 4 == 0:
            rows += 1
        version = "v2" if FAULT == "swap" and seen % 2 == 0 else "v1"
        answer = {"outputs": {"scores": [[0.0] * 3] * rows}, "model": f"dense:{version}"}
    data = json.dumps(answer).encode()
    head = [(b"content-length", str(len(data)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})

uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


@contextmanager
def faulty_server(fault: str, folder: Path) -> Iterator[Target]:
    script = folder / "server.py"
    script.write_text(SERVER)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(script), str(port), fault])
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(200):
            try:
                httpx.get(f"{url}/readyz")
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield ask(url, Access(), "dense")
    finally:
        process.kill()
        process.wait()


def test_arrivals_are_a_poisson_process() -> None:
    times = np.array(list(Scenario(rate=200, duration_s=50, warm_up_s=0, seed=1).arrivals()))
    gaps = np.diff(times)
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert gaps.mean() == pytest.approx(1 / 200, rel=0.05)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.05)
    assert list(Scenario(rate=5, seed=1).arrivals()) == list(Scenario(rate=5, seed=1).arrivals())


def test_closed_loop_has_no_rate() -> None:
    with pytest.raises(ValidationError, match="a closed loop has no rate"):
        Scenario(kind="closed", rate=5)
    with pytest.raises(HoneError, match="leave --users or --rate out"):
        Scenario.from_options(rate=5, users=2, rows=1, duration_s=1, seed=0)


def nobody() -> Target:
    """A target at which nothing listens."""
    return Target("http://127.0.0.1:9", Access(), "dense", "v1", None, "/models/dense", dense_signature(), {})


def test_requests_fit_the_signature(tmp_path: Path) -> None:
    target = nobody()
    made = requests(rows_for(target, artifact=dense_artifact(tmp_path / "a")), target.signature, rows=3)
    assert all(inputs["features"].shape == (3, 4) for inputs in made)
    assert len({inputs["features"].tobytes() for inputs in made}) > 1


def test_bench_writes_a_report_that_can_be_drawn_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    scenario = Scenario(rate=100, duration_s=2, warm_up_s=0.5, rows=2)
    with faulty_server("none", tmp_path) as target:
        report = bench(target, out=out, scenario=scenario, progress=lambda _: None, limits=Limits({"p99_ms": 0.001}))
        baseline = Baseline(report, tolerance=100)
        again = bench(target, out=out / "2", scenario=scenario, progress=lambda _: None, baseline=baseline)
    assert report.model == "dense:v1"
    with pytest.raises(LimitError, match=r"p99_ms [\d.]+, at most 0\.001 allowed") as missed:
        require_met(report)
    assert missed.value.exit_code == 3
    assert [check.name for check in again.checks if check.against == "baseline"] == [
        "p50_ms",
        "p95_ms",
        "p99_ms",
        "rate",
    ]
    require_met(again)
    assert report.errors == 0
    assert report.requests == pytest.approx(200, rel=0.3)
    assert report.rows_per_s == pytest.approx(2 * report.rate)
    content = json.loads((out / "load.json").read_text())
    for field in ("requests", "errors", "rate", "p50_ms", "p95_ms", "p99_ms", "schema_version"):
        assert field in content
    assert read_load_report(out / "load.json") == report
    assert sum(point["requests"] for point in content["timeline"]) == report.requests
    page = (out / "load.html").read_text()
    (out / "load.html").unlink()
    redraw(out / "load.json")
    assert (out / "load.html").read_text() == page


def test_latency_counts_from_the_intended_start(tmp_path: Path) -> None:
    """One stall of a second must show in the latency of all who would have been served meanwhile."""
    scenario = Scenario(rate=100, duration_s=3, warm_up_s=0)
    with faulty_server("stall", tmp_path) as target:
        measured = measure(run_load(target, scenario, calls_for(target, 1)), scenario)
    assert measured["p99_ms"] > 800
    assert measured["p90_ms"] > 300


@pytest.mark.parametrize(
    ("fault", "kind", "share"),
    [
        ("errors", "status 500", 0.2),
        ("rows", "answer has [2] rows, not 1", 0.25),
        ("swap", "answered by dense:v2, not dense:v1", 0.5),
    ],
)
def test_wrong_answers_are_errors(tmp_path: Path, fault: str, kind: str, share: float) -> None:
    scenario = Scenario(kind="closed", users=4, duration_s=1, warm_up_s=0)
    with faulty_server(fault, tmp_path) as target:
        records = run_load(target, scenario, calls_for(target, 1))
    measured = measure(records, scenario)
    assert measured["errors_by_kind"] == {kind: measured["errors"]}
    # The server counts to five or four; each caller may be anywhere in that when the second is over.
    assert measured["errors"] == pytest.approx(share * measured["requests"], abs=0.02 * measured["requests"] + 4)


def test_service_that_dies_is_counted_not_hidden() -> None:
    scenario = Scenario(rate=50, duration_s=1, warm_up_s=0)
    records = run_load(nobody(), scenario, calls_for(nobody(), 1))
    measured = measure(records, scenario)
    assert measured["errors"] == measured["requests"] > 20


def late_records(late: int, of: int) -> list[tuple[float, float, float, str]]:
    return [(i / 100, i / 100 + (0.002 if i < late else 0), i / 100 + 0.003, "") for i in range(of)]


@pytest.mark.parametrize(("late", "warned"), [(5, False), (6, True)])
def test_busy_generator_is_a_warning_above_five_per_cent(tmp_path: Path, late: int, warned: bool) -> None:
    scenario = Scenario(rate=100, duration_s=1, warm_up_s=0)
    report = LoadReport(
        model="dense:v1", url="http://127.0.0.1:9", created="2026-01-01T00:00:00+00:00", scenario=scenario,
        rate_source="given", host={"cpu": "x", "cores": 1}, **measure(late_records(late, 100), scenario),
    )  # fmt: skip
    assert LATE_SHARE == 0.05
    draw(report, tmp_path)
    assert ('<section class="warning">' in (tmp_path / "load.html").read_text()) is warned
    assert ("warning: the generator" in report.summary()) is warned


def test_run_is_compared_only_with_the_same_load_on_the_same_model(tmp_path: Path) -> None:
    scenario = Scenario(rate=100, duration_s=1, warm_up_s=0)
    report = LoadReport(
        model="dense:v0", url="http://127.0.0.1:9", created="2026-01-01T00:00:00+00:00", scenario=scenario,
        rate_source="given", host={}, **measure(late_records(0, 100), scenario),
    )  # fmt: skip
    Baseline(report, 0.1).require_same(nobody(), Scenario.from_options(duration_s=5, like=scenario))
    with pytest.raises(HoneError, match=r"another load: rate 100\.0, not 60\.0"):
        Baseline(report, 0.1).require_same(nobody(), Scenario.from_options(rate=60, like=scenario))
    other = report.model_copy(update={"model": "wine:v0"})
    with pytest.raises(HoneError, match="is of wine:v0, not of dense:v1"):
        Baseline(other, 0.1).require_same(nobody(), scenario)
    slower = {**measure(late_records(0, 100), scenario), "p99_ms": report.p99_ms * 1.2}
    assert [check.name for check in compare(slower, Baseline(report, 0.1)) if not check.met] == ["p99_ms"]
    assert all(check.met for check in compare(slower, Baseline(report, 0.3)))


def test_report_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    file.write_text("{}")
    with pytest.raises(HoneError, match="not a load report"):
        read_load_report(file)
