"""Real Locust against a real server whose faults are known."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from pydantic import ValidationError

from hone.benchmarks.load.limits import Baseline, Limits, compare, require_met
from hone.benchmarks.load.run import Options, bench, calls_for, run_load
from hone.benchmarks.load.target import Access, Target, ask
from hone.benchmarks.load.workload import requests
from hone.benchmarks.measures import measure
from hone.benchmarks.records import CPU_SHARE, LATE_SHARE, LoadReport, Sent, read_load_report
from hone.benchmarks.reports.load import redraw
from hone.benchmarks.scenarios import Scenario
from hone.errors import HoneError, LimitError
from tests.models.dense import dense_signature

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


def test_every_row_is_sent_and_fits_the_signature() -> None:
    target = nobody()
    rows = np.random.default_rng(0).random((1000, 4), np.float32)
    made, sizes = requests({"features": rows}, target.signature, (3,))
    assert all(inputs["features"].shape == (3, 4) for inputs in made)
    assert set(sizes.tolist()) == {3}
    sent = np.concatenate([inputs["features"] for inputs in made])
    assert {row.tobytes() for row in sent} == {row.tobytes() for row in rows}


def test_bench_writes_a_report_that_can_be_drawn_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    scenario = Scenario(rate=100, duration_s=2, warm_up_s=0.5, rows=2)
    with faulty_server("none", tmp_path) as target:
        options = Options(limits=Limits({"p99_ms": 0.001}), most_late=1.0)
        report = bench(target, out=out, scenario=scenario, progress=lambda _: None, options=options)
        options = Options(baseline=Baseline(report, tolerance=100), most_late=1.0)
        again = bench(target, out=out / "2", scenario=scenario, progress=lambda _: None, options=options)
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
    assert report.rows_per_s == pytest.approx(2 * report.rate, abs=0.01)  # both are rounded
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


def late_records(late: int, of: int, cpu_share: float = 0.1) -> Sent:
    intended = np.arange(of) / 100
    started = intended + np.where(np.arange(of) < late, 0.002, 0)
    return Sent(intended, started, intended + 0.003, np.ones(of, int), np.zeros(of, int), cpu_share=cpu_share)


@pytest.mark.parametrize(
    ("late", "cpu_share", "why"),
    [(5, 0.8, None), (6, 0.1, "started 6.0% of the requests over 1 ms late"), (0, 0.81, "used 81% of a core")],
)
def test_run_of_a_busy_generator_is_void(late: int, cpu_share: float, why: str | None) -> None:
    assert (LATE_SHARE, CPU_SHARE) == (0.05, 0.8)
    scenario = Scenario(rate=100, duration_s=1, warm_up_s=0)
    generator = measure(late_records(late, 100, cpu_share), scenario)["generator"]
    assert generator.cpu_share == cpu_share
    assert generator.late_p99_ms == pytest.approx(2.0 if late else 0.0, abs=1e-6)
    assert (generator.void is None) if why is None else (why in generator.void)
    assert measure(late_records(late, 100), scenario, most_late=1.0)["generator"].void is None


def test_void_run_has_no_figures(tmp_path: Path) -> None:
    """The sender is stopped for half of the time: it is late, and says so."""
    scenario = Scenario(rate=200, duration_s=2, warm_up_s=0)
    with faulty_server("none", tmp_path) as target, paused_senders():
        report = bench(target, out=tmp_path / "out", scenario=scenario, progress=lambda _: None)
    assert report.void.startswith("the generator started")
    assert (report.p99_ms, report.rate, report.histogram, report.checks) == (None, None, [], [])
    assert "void, no figures" in report.summary()
    assert report.requests == pytest.approx(400, rel=0.3)
    with pytest.raises(HoneError, match=r"^the run is void: the generator started"):
        require_met(report)
    page = (tmp_path / "out" / "load.html").read_text()
    assert "This run is void" in page
    assert read_load_report(tmp_path / "out" / "load.json") == report


def senders() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[-1:] == ["hone.benchmarks.load.sending.sender"]:
                found.append(process)
    return found


@contextmanager
def paused_senders() -> Iterator[None]:
    """Stop this test's senders for more than half of the time, as a machine does that is too busy."""
    done = threading.Event()

    def pause() -> None:
        while not done.wait(0.1):
            mine = senders()
            for process in mine:
                process.suspend()
            time.sleep(0.15)
            for process in mine:
                process.resume()

    thread = threading.Thread(target=pause)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_reports_of_before_are_read_and_warn(tmp_path: Path) -> None:
    """A `load.json` from when a late generator was a warning, and its load had no sizes."""
    old = {
        "schema_version": 1, "kind": "load", "model": "dense:v1", "digest": None, "url": "http://127.0.0.1:9",
        "created": "2026-01-01T00:00:00+00:00", "rate_source": "given", "probed_capacity": None,
        "scenario": {
            "kind": "open", "rate": 100.0, "users": 8, "rows": 1, "duration_s": 1.0, "warm_up_s": 0.0, "seed": 0
        },
        "host": {"cpu": "x", "cores": 1}, "duration_s": 1.0, "requests": 100, "errors": 0, "errors_by_kind": {},
        "rate": 100.0, "rows_per_s": 100.0, "p50_ms": 3.0, "p90_ms": 3.0, "p95_ms": 3.0, "p99_ms": 3.0,
        "p999_ms": 3.0, "mean_ms": 3.0, "max_ms": 3.0, "late_share": 0.06, "histogram": [[3.0, 100]], "checks": [],
        "timeline": [{"second": 0, "requests": 100, "errors": 0, "p50_ms": 3.0, "p99_ms": 3.0}],
    }  # fmt: skip
    (tmp_path / "load.json").write_text(json.dumps(old))
    redraw(tmp_path / "load.json")
    assert "The generator was too busy" in (tmp_path / "load.html").read_text()
    assert "warning: the generator" in read_load_report(tmp_path / "load.json").summary()


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
