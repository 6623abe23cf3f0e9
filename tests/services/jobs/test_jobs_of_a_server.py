"""Jobs of a server with two workers: kept over a worker's end and over the server's."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from hone.benchmarks.overload.model import FEATURES, store_slow_model
from tests.servers import DIGITS, put, server, use_store

ROWS = np.random.default_rng(0).normal(size=(4000, FEATURES)).astype(np.float32)
HEADERS = {"content-type": "application/octet-stream", "accept": "application/x-npy"}


def ended(client: httpx.Client, place: str) -> dict[str, object]:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        told: dict[str, object] = client.get(place).json()
        if told["status"] not in ("queued", "running"):
            return told
        time.sleep(0.1)
    raise AssertionError(told)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_is_computed_though_its_worker_is_killed_and_its_server_restarted(tmp_path: Path) -> None:
    put(tmp_path, tmp_path / "a", "digits", "onnx-fp32-1", run="1")
    use_store(tmp_path)
    store_slow_model(tmp_path / "slow")
    environment = {"HONE_MODELS": "overload", "HONE_WORKERS": "2", "HONE_JOBS_DIR": str(tmp_path / "jobs")}
    places = []
    with server(DIGITS, tmp_path, **environment) as running:
        for _ in range(3):
            answer = running.client.post("/models/overload/jobs", content=ROWS.tobytes(), headers=HEADERS)
            assert answer.status_code == 202, answer.text
            places.append(answer.headers["location"])
        while running.client.get(places[0]).json()["status"] == "queued":
            time.sleep(0.05)
        for worker in running.workers():
            os.kill(worker, signal.SIGKILL)
    with server(DIGITS, tmp_path, **environment) as running:
        told = [ended(running.client, place) for place in places]
        assert [one["status"] for one in told] == ["done"] * 3
        assert max(int(str(one["attempt"])) for one in told) == 2
        results = [running.client.get(f"{place}/result").content for place in places]
        assert results[0] == results[1] == results[2] and len(results[0]) > 4 * FEATURES * len(ROWS)
    assert len([*(tmp_path / "jobs").glob("*.result")]) == 3
    assert not [*(tmp_path / "jobs").glob("*.body"), *(tmp_path / "jobs").glob("*.incoming")]


@pytest.mark.slow
def test_a_service_without_jobs_says_so(tmp_path: Path) -> None:
    put(tmp_path, tmp_path / "a", "digits", "onnx-fp32-1", run="1")
    with server(DIGITS, tmp_path) as running:
        answer = running.client.post("/models/digits/jobs", content=b"{}")
        assert (answer.status_code, answer.json()["error"]) == (
            403,
            "this service takes no jobs: it was started without HONE_JOBS_DIR",
        )
