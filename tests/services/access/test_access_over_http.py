"""Scopes for one model and rate limits, over HTTP and gRPC, two workers, and two servers with one Redis."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from hone.services.access.api_keys import add_key
from hone.services.launch import free_port
from tests.servers import DIGITS, Server, put, redis, server

BINARY = {"content-type": "application/octet-stream"}
BODY = np.ones((1, 4), np.float32).tobytes()


@dataclass(frozen=True)
class Shop:
    """A server with two workers and two models, and its keys by name."""

    running: Server
    keys: dict[str, str]
    grpc: int
    file: Path
    audit: Path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access")
    put(folder / "shop", folder / "a", "digits", "onnx-fp32-1", run="1")
    put(folder / "shop", folder / "b", "other", "onnx-fp32-1", run="1")
    return folder / "shop"


@pytest.fixture(scope="module")
def shop(home: Path) -> Iterator[Shop]:
    file, audit, port = home / "keys.yaml", home / "audit.jsonl", free_port()
    scopes = {
        "operator": ("predict", "admin"), "reader": ("read",), "digits": ("predict:digits",),
        "digits-admin": ("admin:digits",), "admin": ("admin",),
    }  # fmt: skip
    keys = {name: add_key(file, name, wanted) for name, wanted in scopes.items()}
    keys["limited"] = add_key(file, "limited", ("predict",), 10.0)
    environment = {
        "HONE_API_KEYS": str(file), "HONE_MODELS": "other", "HONE_WORKERS": "2", "HONE_GRPC_PORT": str(port),
        "HONE_AUDIT_LOG": str(audit),
    }  # fmt: skip
    with server(DIGITS, home, **environment) as running:
        deadline = time.monotonic() + 90
        while running.log.read_text().count("Completed async startup hook") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        yield Shop(running, keys, port, file, audit)


@pytest.mark.parametrize(
    ("path", "body", "may"),
    [
        ("/predict", BODY, {"operator", "digits"}),
        ("/models/digits/predict", BODY, {"operator", "digits"}),
        ("/models/other/predict", BODY, {"operator"}),
        ("/v2/models/digits", None, {"operator", "reader", "digits", "digits-admin", "admin"}),
        ("/v2/models/other/config", None, {"operator", "reader", "admin"}),
        ("/v1/models", None, {"operator", "reader", "admin"}),
        ("/v2/repository/index", b"", {"operator", "reader", "admin"}),
        ("/v2/repository/models/digits/load", b"", {"operator", "digits-admin", "admin"}),
        ("/v2/repository/models/other/load", b"", {"operator", "admin"}),
        ("/v2/repository/models/digits%2f/load", b"", set()),
    ],
)
def test_each_key_opens_what_its_scopes_say(shop: Shop, path: str, body: bytes | None, may: set[str]) -> None:
    found = set()
    for name, key in shop.keys.items():
        if name == "limited":
            continue
        headers = {**BINARY, "x-api-key": key}
        client = shop.running.client
        answer = client.get(path, headers=headers) if body is None else client.post(path, content=body, headers=headers)
        assert answer.status_code in (200, 403, 404), answer.text
        if answer.status_code == 200:
            found.add(name)
    assert found == may


def test_scopes_count_for_grpc_too(shop: Shop) -> None:
    tensor = triton_grpc.InferInput("features", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 4), np.float32))
    key = {"x-api-key": shop.keys["digits"]}
    with triton_grpc.InferenceServerClient(f"127.0.0.1:{shop.grpc}") as triton:
        triton.infer("digits", [tensor], headers=key)
        assert triton.get_model_metadata("digits", headers=key).name == "digits"
        for refused in (
            lambda: triton.infer("other", [tensor], headers=key),
            lambda: triton.get_model_metadata("other", headers=key),
            lambda: triton.get_model_repository_index(headers=key),
            lambda: triton.load_model("digits", headers=key),
            lambda: triton.load_model("other", headers={"x-api-key": shop.keys["digits-admin"]}),
        ):
            with pytest.raises(InferenceServerException, match="this needs the scope"):
                refused()
        triton.load_model("digits", headers={"x-api-key": shop.keys["digits-admin"]})


def test_action_is_recorded_before_it_is_done_and_with_its_outcome(shop: Shop) -> None:
    path = "/v2/repository/models/nothing/load"
    answer = shop.running.client.post(path, headers={"x-api-key": shop.keys["admin"]})
    assert answer.status_code == 404
    records = [json.loads(line) for line in shop.audit.read_text().splitlines()][-2:]
    assert [(record["actor"], record["outcome"]) for record in records] == [("admin", "requested"), ("admin", "failed")]


def count(ports: list[int], seconds: float, headers: dict[str, str]) -> tuple[int, int]:
    """Return how many requests were answered and how many were refused, each on a connection of its own."""

    def call(seed: int) -> tuple[int, int]:
        passed = refused = 0
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            link = http.client.HTTPConnection("127.0.0.1", ports[seed % len(ports)], timeout=30)
            link.request("POST", "/predict", BODY, {**BINARY, **headers})
            answer = link.getresponse()
            assert answer.status in (200, 429), answer.read()
            assert answer.status == 200 or int(answer.headers["retry-after"]) >= 1
            link.close()
            passed, refused = passed + (answer.status == 200), refused + (answer.status == 429)
        return passed, refused

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(call, range(4)))
    return sum(passed for passed, _ in found), sum(refused for _, refused in found)


def test_limit_is_one_for_all_workers(shop: Shop) -> None:
    started = time.monotonic()
    passed, refused = count([shop.running.port], 3.0, {"x-api-key": shop.keys["limited"]})
    seconds = time.monotonic() - started
    # Two limits would let twice as many through. A worker that is stopped while it counts lets the other pass one.
    assert passed <= 1.3 * 10 * (1 + seconds)
    assert passed >= 20 and refused > 0
    metrics = shop.running.client.get("/metrics").text
    assert 'status="429"' in metrics and "hone_key_file_stale" in metrics


def test_without_keys_the_limit_is_for_all_callers_together_and_admin_rules_stay(home: Path) -> None:
    with server(DIGITS, home, HONE_RATE_PER_S="3") as running:
        codes = [running.client.post("/predict", content=BODY, headers=BINARY).status_code for _ in range(6)]
        assert codes[:3] == [200] * 3 and 429 in codes[3:]
        assert running.client.get("/readyz").status_code == 200  # probes aren't counted
        time.sleep(1.1)
        foreign = {"origin": "https://evil.example"}
        assert running.client.post("/v2/repository/models/digits/load", headers=foreign).status_code == 403
        assert running.client.post("/v2/repository/models/digits/load").status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_limit_is_one_for_two_servers_with_one_redis_and_each_has_its_own_without_it(home: Path) -> None:
    port = free_port()
    environment = {"HONE_RATE_PER_S": "20", "HONE_REDIS_URL": f"redis://127.0.0.1:{port}/0"}
    with redis(port) as process, server(DIGITS, home, **environment) as one, server(DIGITS, home, **environment) as two:
        ports = [one.port, two.port]
        started = time.monotonic()
        passed, refused = count(ports, 3.0, {})
        assert passed <= 20 * (1 + time.monotonic() - started) + 3
        assert passed >= 40 and refused > 0
        process.kill()
        process.wait()
        time.sleep(1.1)
        started = time.monotonic()
        passed, _ = count(ports, 3.0, {})
        assert 40 <= passed <= 2 * 20 * (1 + time.monotonic() - started) + 6
        assert "the Redis of the rate limits is left alone for now" in one.log.read_text()
