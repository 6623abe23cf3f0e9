"""Triton's statistics extension: what each model has done, of all workers, to Triton's own clients."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from tritonclient.utils import InferenceServerException

from hone.services.access.api_keys import add_key
from hone.services.batching.running import BatchTimes
from hone.services.launch import free_port
from hone.services.observe.statistics import SharedStatistics, Statistics
from tests.servers import DIGITS, HONE, ROOT, Server, caller, put, server, wait_ready

KINDS = {
    "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss",
}  # fmt: skip


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """A file of keys; one that may call every model, and one for a single model."""
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    return file, add_key(file, "all", ("predict",)), add_key(file, "one", ("predict:dense",))


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, grpc_port: int, keys: tuple[Path, str, str]
) -> Iterator[tuple[Server, httpx.Client]]:
    """Two models in two workers, and a caller with a key."""
    home = tmp_path_factory.mktemp("shop")
    put(home, home / "one", "dense", "onnx-fp32-1")
    put(home, home / "two", "other", "onnx-fp32-1", seed=1)
    command = [HONE, "serve", "dense", "--and", "other", "--port", "{port}", "--workers", "2",
               "--grpc-port", str(grpc_port), "--api-keys", str(keys[0])]  # fmt: skip
    with server(command, home, PYTHONPATH=str(ROOT)) as running:
        headers = {"x-api-key": keys[1]}
        with caller(running.client.base_url, headers=headers) as client:
            yield running, client


def figures(client: httpx.Client, path: str = "/v2/models/dense/stats") -> dict[str, Any]:
    (found,) = client.get(path).json()["model_stats"]
    return dict(found)


def eventually(read: Callable[[], int], wanted: int) -> None:
    """Wait until a count has come from all workers, which tell of themselves four times a second."""
    deadline = time.monotonic() + 10
    while read() < wanted and time.monotonic() < deadline:
        time.sleep(0.05)
    assert read() == wanted


def send(address: str, count: int, headers: dict[str, str], rows: int = 2) -> None:
    """Send requests on connections of their own, which the kernel spreads over the workers."""
    body = np.ones((rows, 4), np.float32).tobytes()
    for _ in range(count):
        with caller(address, headers={"content-type": "application/octet-stream", **headers}) as client:
            answer = client.post("/models/dense/predict", content=body)
        assert answer.status_code == 200, answer.text


def test_both_of_tritons_clients_read_the_sums_of_all_workers(
    service: tuple[Server, httpx.Client], grpc_port: int, keys: tuple[Path, str, str]
) -> None:
    running, client = service
    address, headers = f"http://127.0.0.1:{running.port}", {"x-api-key": keys[1]}
    before = figures(client)
    send(address, 20, headers)
    refused = client.post("/models/dense/predict", json={"inputs": {"features": [["?"]]}})
    assert refused.status_code == 400
    eventually(lambda: figures(client)["inference_stats"]["success"]["count"], 20 + _successes(before))
    found = figures(client)
    assert found["tag"] == "dense:onnx-fp32-1"
    assert found["inference_count"] - before["inference_count"] == 40  # rows
    assert found["execution_count"] - before["execution_count"] == 20
    stats = found["inference_stats"]
    assert set(stats) == KINDS
    assert stats["fail"]["count"] - before["inference_stats"]["fail"]["count"] == 1
    assert 0 < stats["compute_infer"]["ns"] + stats["queue"]["ns"] < stats["success"]["ns"]
    (size,) = (entry for entry in found["batch_stats"] if entry["batch_size"] == 2)
    assert size["compute_infer"] == stats["compute_infer"]
    assert abs(found["last_inference"] / 1e3 - time.time()) < 30

    http = triton_http.InferenceServerClient(f"127.0.0.1:{running.port}")
    over_http = http.get_inference_statistics("dense", headers=headers)["model_stats"][0]
    grpc = triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")
    over_grpc = grpc.get_inference_statistics("dense", headers=headers).model_stats[0]
    assert "statistics" in http.get_server_metadata(headers=headers)["extensions"]
    assert "statistics" in grpc.get_server_metadata(headers=headers).extensions
    assert (over_grpc.name, over_grpc.version) == (over_http["name"], over_http["version"])
    assert (over_grpc.inference_count, over_grpc.execution_count) == (
        found["inference_count"],
        found["execution_count"],
    )
    for kind in KINDS:
        told = getattr(over_grpc.inference_stats, kind)
        assert {"count": told.count, "ns": told.ns} == stats[kind]
    assert [entry.batch_size for entry in over_grpc.batch_stats] == [
        entry["batch_size"] for entry in found["batch_stats"]
    ]


def _successes(found: dict[str, Any]) -> int:
    return int(found["inference_stats"]["success"]["count"])


def test_what_a_worker_counted_outlives_it(service: tuple[Server, httpx.Client], keys: tuple[Path, str, str]) -> None:
    running, client = service
    address, headers = f"http://127.0.0.1:{running.port}", {"x-api-key": keys[1]}
    before = _successes(figures(client))
    send(address, 10, headers)
    eventually(lambda: _successes(figures(client)), before + 10)
    time.sleep(0.6)  # both have told what they know
    for worker in running.workers():
        os.kill(worker, signal.SIGKILL)
        time.sleep(0.5)
        with caller(address) as fresh:
            wait_ready(fresh, running.process, running.log)
    with caller(address, headers=headers) as fresh:
        assert _successes(figures(fresh)) == before + 10


def test_version_is_told_as_it_was_asked_for_and_else_as_a_number(
    service: tuple[Server, httpx.Client], grpc_port: int, keys: tuple[Path, str, str]
) -> None:
    _, client = service
    number = figures(client)["version"]
    assert int(number) < 2**63  # what Triton's clients take
    assert client.get("/v2/models/dense").json()["parameters"]["number"] == number
    for version in ("onnx-fp32-1", number):
        assert figures(client, f"/v2/models/dense/versions/{version}/stats")["version"] == version
        rows = np.ones((1, 4), np.float32).tobytes()
        assert client.post(f"/v2/models/dense/versions/{version}/infer", content=rows).status_code == 400
        assert client.get(f"/v2/models/dense/versions/{version}/config").status_code == 200
    grpc = triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")
    (told,) = grpc.get_inference_statistics("dense", number, headers={"x-api-key": keys[1]}).model_stats
    assert told.version == number


def test_all_models_are_told_to_those_who_may_call_all(
    service: tuple[Server, httpx.Client], keys: tuple[Path, str, str]
) -> None:
    running, client = service
    told = client.get("/v2/models/stats").json()["model_stats"]
    assert [entry["tag"] for entry in told] == ["dense:onnx-fp32-1", "other:onnx-fp32-1"]
    headers = {"x-api-key": keys[2]}
    statuses = {
        path: running.client.get(path, headers=headers).status_code
        for path in ("/v2/models/dense/stats", "/v2/models/other/stats", "/v2/models/stats")
    }
    assert statuses == {"/v2/models/dense/stats": 200, "/v2/models/other/stats": 403, "/v2/models/stats": 403}
    assert running.client.get("/v2/models/dense/stats").status_code == 401


def test_unknown_model_is_not_found(
    service: tuple[Server, httpx.Client], grpc_port: int, keys: tuple[Path, str, str]
) -> None:
    _, client = service
    for path in ("nope/stats", "dense/versions/nope/stats"):
        answer = client.get(f"/v2/models/{path}")
        assert answer.status_code == 404
        assert "'nope'" in answer.json()["error"]
    grpc = triton_grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")
    with pytest.raises(InferenceServerException) as caught:
        grpc.get_inference_statistics("nope", headers={"x-api-key": keys[1]})
    assert caught.value.status() == "StatusCode.NOT_FOUND"


def test_answers_from_the_cache_are_no_inferences(tmp_path: Path) -> None:
    put(tmp_path, tmp_path / "one", "digits", "onnx-fp32-1")
    with server(DIGITS, tmp_path, HONE_CACHE_MB="1") as running:
        for seed in (0, 0, 0, 1):
            row = np.full((1, 4), seed, np.float32).tolist()
            assert running.client.post("/predict", json={"inputs": {"features": row}}).status_code == 200
        found = figures(running.client, "/v2/models/digits/stats")
        assert (found["inference_count"], _successes(found)) == (2, 4)
        stats = found["inference_stats"]
        assert (stats["cache_hit"]["count"], stats["cache_miss"]["count"]) == (2, 2)
        assert 0 < stats["cache_hit"]["ns"] < stats["success"]["ns"]


def test_each_request_of_a_batch_has_waited_for_all_of_it() -> None:
    statistics = Statistics()
    statistics.batch(BatchTimes([0.0, 0.0, 0.0], 0.010, 6, joining=0.001, splitting=0.002))
    statistics.batch(BatchTimes([0.0], 0.004, 6))
    statistics.solo(np.array([0.001, 0.002, 0.005]), np.array([1, 6, 1]))
    found = statistics.described()
    assert (found["inference_count"], found["execution_count"]) == (6 + 6 + 1 + 6 + 1, 5)
    assert {kind: value for kind, value in found["inference_stats"].items() if kind.startswith("compute")} == {
        "compute_input": {"count": 7, "ns": 3_000_000},
        "compute_infer": {"count": 7, "ns": 21_000_000 + 4_000_000 + 8_000_000},
        "compute_output": {"count": 7, "ns": 6_000_000},
    }
    assert [(entry["batch_size"], entry["compute_infer"]) for entry in found["batch_stats"]] == [
        (1, {"count": 2, "ns": 6_000_000}),
        (6, {"count": 3, "ns": 7_000_000 + 4_000_000 + 2_000_000}),
    ]
    assert found["batch_stats"][1]["compute_input"] == {"count": 3, "ns": 1_000_000}


def test_workers_add_up_and_a_full_disk_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second = SharedStatistics(tmp_path), SharedStatistics(tmp_path)
    for shared, answered, failed in ((first, 5, 1), (second, 7, 0)):
        shared.of("dense:1").requests(answered, 0.5, failed, 0.1 * failed)
        shared.of("dense:1").solo(np.full(answered, 0.01), np.ones(answered, int))
        shared.publish()
    for shared in (first, second):
        found = shared.total("dense:1")
        assert found["inference_stats"]["success"] == {"count": 11, "ns": 900_000_000}
        assert found["inference_stats"]["fail"] == {"count": 1, "ns": 100_000_000}
        assert found["batch_stats"][0]["compute_infer"]["count"] == 12
    lost = SharedStatistics(tmp_path / "file")
    (tmp_path / "file").write_text("no folder")
    for _ in range(3):
        lost.of("dense:1").requests(1, 0.1, 0, 0.0)
        lost.publish()
    assert len([record for record in caplog.records if "statistics" in record.message]) == 1
    assert lost.total("dense:1")["inference_stats"]["success"]["count"] == 3
