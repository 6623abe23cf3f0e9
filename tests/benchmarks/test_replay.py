"""`hone bench` of what this host's store has: real rows, checked answers, replayed traffic, an early end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone import store
from hone.benchmarks.load.run import Options, find_target
from hone.benchmarks.load.sending.trial import run_trial
from hone.benchmarks.load.target import Access
from hone.benchmarks.load.traffic import replayed
from hone.benchmarks.scenarios import Scenario
from hone.store.rows import keep_rows
from tests.models.dense import dense_answer
from tests.servers import HONE, ROOT, Server, put, server, use_store

ROWS = np.random.default_rng(0).random((1500, 4), np.float32)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    entry = put(home, home / "one", "dense", "onnx-fp32-1")
    keep_rows(entry.path, {"features": ROWS})
    return home


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Server]:
    """It has a cache."""
    command = [HONE, "serve", "dense", "--port", "{port}"]
    with server(command, home, PYTHONPATH=str(ROOT), HONE_CACHE_MB="8") as running:
        yield running


def bench(service: Server, home: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(service, folder, *arguments),
        env=variables(home),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def command(service: Server, folder: Path, *arguments: str) -> list[str]:
    url = f"http://127.0.0.1:{service.port}"
    return [HONE, "bench", "dense", "--url", url, "--out", str(folder), "--max-late", "100%", *arguments]


def variables(home: Path) -> dict[str, str]:
    return {**os.environ, "BENTOML_HOME": str(home), "PYTHONPATH": str(ROOT)}


def report(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "load.json").read_text())
    return content


def test_rows_of_the_store_are_sent_and_answers_checked(service: Server, home: Path, tmp_path: Path) -> None:
    done = bench(service, home, tmp_path, "--rate", "300", "--duration", "6", "--arrivals", "constant")
    assert done.returncode == 0, done.stderr
    assert "1,500 distinct rows: of the evaluation set, from the store's dense:onnx-fp32-1" in done.stderr
    found = report(tmp_path)
    assert found["distinct_rows"] == 1500
    assert found["checked"]["compared"] > 50
    assert found["checked"]["wrong"] == 0
    assert "answers were checked against the artifact: all are its own" in done.stdout
    # 2,100 requests of 1,500 rows in turn: 600 were asked before.
    assert found["cache_hit_ratio"] == pytest.approx(600 / 2100, abs=0.05)
    assert found["sizes"] == [[1, found["requests"]]]
    assert found["generator"]["void"] is None
    assert 0 < found["generator"]["cpu_share"] < 0.8


def test_wrong_answers_void_the_run(service: Server, home: Path, tmp_path: Path) -> None:
    """The store's artifact of this tag computes something else than the one that answers, and says it is the same."""
    other = tmp_path / "other"
    entry = put(other, tmp_path / "artifact", "dense", "onnx-fp32-1", seed=1)
    try:
        target = find_target(f"http://127.0.0.1:{service.port}", "dense", Access())
        code = f"""
import sys
from pathlib import Path
from hone.benchmarks.load import run, target as targets
asked = targets.ask
def ask(*given):
    from dataclasses import replace
    return replace(asked(*given), digest={entry.opened().digest!r})
run.ask = ask
from hone.cli.main import main
sys.argv = ["hone", *{command(service, tmp_path / "out", "--users", "2", "--duration", "1")[1:]!r}]
main()
"""
        done = subprocess.run(
            [sys.executable, "-c", code], env=variables(other), capture_output=True, text=True, timeout=120, check=False
        )
    finally:
        use_store(home)
    assert target.digest != entry.opened().digest
    assert done.returncode == 1, done.stderr
    assert "answers are not the artifact's: output 'scores' is off by" in done.stderr
    found = report(tmp_path / "out")
    assert found["checked"]["wrong"] == found["checked"]["compared"] > 0
    assert found["p99_ms"] is None


@pytest.fixture
def recording(home: Path, tmp_path: Path) -> Iterator[Server]:
    command = [HONE, "serve", "dense", "--port", "{port}"]
    with server(command, home, PYTHONPATH=str(ROOT), HONE_RECORD_DIR=str(tmp_path), HONE_RECORD_MODE="complete") as it:
        yield it


def test_recorded_traffic_is_replayed_at_its_moments(recording: Server, home: Path, tmp_path: Path) -> None:
    random, service, folder = np.random.default_rng(1), recording, tmp_path
    for size in random.choice([1, 2, 5], 60):
        rows = random.random((int(size), 4), np.float32)
        answer = service.client.post("/models/dense/predict", json={"inputs": {"features": rows.tolist()}}).json()
        assert np.asarray(answer["outputs"]["scores"]) == pytest.approx(dense_answer(rows), abs=1e-4)
        time.sleep(float(random.exponential(0.01)))
    target = find_target(f"http://127.0.0.1:{service.port}", "dense", Access())
    wait_for_files(folder)
    scenario, options = replayed(target, Scenario(), Options(), traffic=folder)
    workload = options.workload
    assert workload is not None and workload.arrivals is not None
    sent = run_trial(target, scenario, workload, "json").sent
    assert np.sort(sent.intended) == pytest.approx(workload.arrivals)
    assert (sent.kinds == 0).all()
    wanted, found = (np.bincount(values, minlength=10)[:10] / len(values) for values in (
        np.array([call.rows for call in workload.calls]), sent.rows
    ))  # fmt: skip
    assert 0.5 * np.abs(wanted - found).sum() < 0.02
    done = bench(service, home, tmp_path / "out", "--traffic", str(folder))
    assert done.returncode == 0, done.stderr
    again = report(tmp_path / "out")
    assert again["rate_source"] == "recorded"
    assert again["scenario"]["arrival"] == "trace"
    assert again["checked"]["wrong"] == 0
    assert sum(count for _, count in again["sizes"]) == again["requests"] >= 60


def wait_for_files(folder: Path) -> None:
    """A recorder writes what it has every few seconds."""
    target, deadline = None, time.monotonic() + 30
    while time.monotonic() < deadline:
        files = {file: file.stat().st_size for file in folder.rglob("*.parquet")}
        if files and files == target:
            return
        target = files
        time.sleep(3.0)


def test_ctrl_c_keeps_what_there_is(service: Server, home: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(service, tmp_path, "--rate", "100", "--duration", "60"), env=variables(home), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    while "60 s of open loop" not in (line := process.stderr.readline()):
        assert line, process.wait()
    time.sleep(8)
    os.killpg(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in errors
    assert "ended before its time" in printed
    found = report(tmp_path)
    assert found["interrupted"] is True
    assert found["duration_s"] < 30
    assert found["requests"] > 50
    assert found["rate"] == pytest.approx(100, rel=0.3)


def test_rows_are_kept_for_the_artifact_they_are_of_and_go_with_it(tmp_path: Path) -> None:
    from hone.store.rows import read_rows

    entry = put(tmp_path, tmp_path / "one", "dense", "onnx-fp32-1")
    digest = entry.opened().digest
    assert read_rows(entry.path) is None
    assert keep_rows(entry.path, {"features": np.ones((5000, 4), np.float32)}) == 2000
    assert keep_rows(entry.path, {"features": np.ones((5000, 4000), np.float32)}) == 500
    assert keep_rows(entry.path, {"text": np.array(["a", "bc"], object)}) == 2
    kept = read_rows(entry.path)
    assert kept is not None and kept["text"].tolist() == ["a", "bc"]
    assert store.resolve("dense").opened().digest == digest
    (file,) = tmp_path.glob("hone-rows/dense/*.npz")
    assert file.stat().st_mode & 0o077 == 0
    store.remove(entry)
    assert not file.exists()
    put(tmp_path, tmp_path / "two", "dense", "onnx-fp32-1", seed=1)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"not an archive")
    assert read_rows(entry.path) is None
