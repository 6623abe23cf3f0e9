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

from benchmarks.bench import bench, run_load
from benchmarks.payload import bodies
from benchmarks.records import measure, read_load_report
from benchmarks.report import redraw
from benchmarks.scenarios import Scenario
from hone.errors import HoneError
from tests.models import dense_artifact

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
    if scope["path"] == "/predict":
        seen += 1
        rows = len(next(iter(json.loads(body)["inputs"].values())))
        if FAULT == "stall" and seen == 150:
            time.sleep(1.0)  # everybody waits
        if FAULT == "errors" and seen % 5 == 0:
            status = 500
        if FAULT == "rows" and seen % 4 == 0:
            rows += 1
        answer = {"outputs": {"scores": [[0.0] * 3] * rows}, "model": "m"}
    data = json.dumps(answer).encode()
    head = [(b"content-length", str(len(data)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": data})

uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


@contextmanager
def faulty_server(fault: str, folder: Path) -> Iterator[str]:
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
        yield url
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


def test_bodies_fit_the_signature(tmp_path: Path) -> None:
    made = [json.loads(body) for body in bodies(dense_artifact(tmp_path / "a"), rows=3)]
    assert all(np.array(body["inputs"]["features"]).shape == (3, 4) for body in made)
    assert len({json.dumps(body) for body in made}) > 1


def test_bench_writes_a_report_that_can_be_drawn_again(tmp_path: Path) -> None:
    artifact, out = dense_artifact(tmp_path / "a"), tmp_path / "out"
    scenario = Scenario(rate=100, duration_s=2, warm_up_s=0.5, rows=2)
    with faulty_server("none", tmp_path) as url:
        report = bench(url, artifact, model="dense:1", out=out, scenario=scenario, progress=lambda _: None)
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
    payload = bodies(dense_artifact(tmp_path / "a"), rows=1)
    with faulty_server("stall", tmp_path) as url:
        measured = measure(run_load(url, scenario, payload), scenario)
    assert measured["p99_ms"] > 800
    assert measured["p90_ms"] > 300


@pytest.mark.parametrize(
    ("fault", "kind", "share"), [("errors", "status 500", 0.2), ("rows", "answer has [2] rows, not 1", 0.25)]
)
def test_wrong_answers_are_errors(tmp_path: Path, fault: str, kind: str, share: float) -> None:
    scenario = Scenario(kind="closed", users=4, duration_s=1, warm_up_s=0)
    with faulty_server(fault, tmp_path) as url:
        records = run_load(url, scenario, bodies(dense_artifact(tmp_path / "a"), rows=1))
    measured = measure(records, scenario)
    assert measured["errors_by_kind"] == {kind: measured["errors"]}
    # The server counts to five or four; each caller may be anywhere in that when the second is over.
    assert measured["errors"] == pytest.approx(share * measured["requests"], abs=0.02 * measured["requests"] + 4)


def test_service_that_dies_is_counted_not_hidden(tmp_path: Path) -> None:
    scenario = Scenario(rate=50, duration_s=1, warm_up_s=0)
    records = run_load("http://127.0.0.1:9", scenario, bodies(dense_artifact(tmp_path / "a"), rows=1))
    measured = measure(records, scenario)
    assert measured["errors"] == measured["requests"] > 20


def test_report_of_another_kind_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "load.json"
    file.write_text("{}")
    with pytest.raises(HoneError, match="not a load report"):
        read_load_report(file)
