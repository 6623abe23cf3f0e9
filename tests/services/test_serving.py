"""Real servers, real HTTP: `hone serve`, `bentoml serve` from the checkout, and a built bento in an empty folder."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bentoml
import httpx
import numpy as np
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from hone import runtimes, store
from hone.services.launch import running
from tests.models.dense import dense_answer, dense_artifact
from tests.servers import BENTOML, ROOT, put, server


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BentoML home with a model named digits: the best variant needs hardware that no host has."""
    home = tmp_path_factory.mktemp("shop")
    folder = tmp_path_factory.mktemp("artifacts")
    put(home, folder / "fp32", "digits", "onnx-fp32-1", rank=1)
    artifact = dense_artifact(folder / "trt", name="digits", variant="tensorrt-fp16")
    store.put(artifact.with_manifest(runtime="tensorrt"), "digits", "tensorrt-fp16-1")
    return home


@pytest.fixture(scope="module")
def client(shop: Path) -> Iterator[httpx.Client]:
    """`bentoml serve services.digits:Digits` in the checkout, with a small body limit."""
    with server(BENTOML, shop, HONE_MAX_BODY_MB="0.1", HONE_MAX_BATCH_ROWS="16") as running_server:
        text = running_server.log.read_text()
        assert "passed over digits:tensorrt-fp16-1: no NVIDIA GPU on this host" in text
        assert "serving digits:onnx-fp32-1: rank 2 of its run" in text
        yield running_server.client


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def test_served_answer_equals_the_artifacts(client: httpx.Client, shop: Path) -> None:
    features = rows(40)  # more than a batch: split and joined again
    answer = client.post("/predict", json={"inputs": {"features": features.tolist()}})
    assert answer.status_code == 200
    assert answer.json()["model"] == "digits:onnx-fp32-1"
    entry = store.Entry("digits", "onnx-fp32-1", shop / "models" / "digits" / "onnx-fp32-1", None)
    expected = runtimes.load(entry.opened()).run({"features": features})["scores"]
    np.testing.assert_allclose(answer.json()["outputs"]["scores"], expected, rtol=1e-6)


def test_concurrent_callers_get_their_own_rows(client: httpx.Client) -> None:
    def call(seed: int) -> None:
        features = rows(1 + seed % 5, seed)
        answer = client.post("/predict", json={"inputs": {"features": features.tolist()}})
        np.testing.assert_allclose(answer.json()["outputs"]["scores"], dense_answer(features), rtol=1e-4, atol=1e-5)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(200)))


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        ({"json": {"inputs": {}}}, 400, "input 'features' is missing"),
        ({"json": {"inputs": {"feature": []}}}, 400, "did you mean 'features'"),
        ({"json": {"inputs": {"features": [[1, 2, 3]]}}}, 400, "axis 1 is 3, not 4"),
        ({"json": {"inputs": {"features": []}}}, 400, "features"),
        ({"json": {"inputs": {"features": [["a", "b", "c", "d"]]}}}, 400, "holds strings"),
        ({"json": {"inputs": {"features": [[1, 2, 3, None]]}}}, 400, "null in row 0"),
        ({"content": b"{"}, 400, "not JSON"),
        ({"content": b"x" * 200_000}, 413, "over the limit of 0.1 MB"),
        ({"content": iter([b"x" * 60_000] * 4)}, 413, "over the limit"),
        ({"content": b"x", "headers": {"content-type": "text/csv"}}, 415, "send one of: application/json"),
        ({"content": b"plain", "headers": {"content-encoding": "gzip"}}, 400, "gzip body is broken"),
        ({"content": b"x", "headers": {"content-encoding": "br"}}, 415, "send gzip, zstd or none"),
    ],
)
def test_bad_request_gets_one_clear_line(
    client: httpx.Client, content: dict[str, object], status: int, words: str
) -> None:
    answer = client.post("/predict", **content)  # type: ignore[arg-type]
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert client.get("/livez").status_code == 200


def test_other_methods_are_told_the_right_one(client: httpx.Client) -> None:
    answer = client.get("/predict")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_openapi_example_is_accepted_as_it_stands(client: httpx.Client) -> None:
    operation = client.get("/docs.json").json()["paths"]["/predict"]["post"]
    media = operation["requestBody"]["content"]["application/json"]
    assert client.post("/predict", json=media["example"]).status_code == 200
    tensor = media["schema"]["properties"]["inputs"]["properties"]["features"]
    assert tensor["description"] == "float32[batch, 4]"
    assert tensor["items"] == {"type": "array", "items": {"type": "number"}, "minItems": 4, "maxItems": 4}
    statuses = {"200", "400", "401", "403", "404", "413", "415", "429", "500", "503"}
    assert set(operation["responses"]) == statuses


def test_bentomls_client_works(client: httpx.Client) -> None:
    with bentoml.SyncHTTPClient(str(client.base_url)) as caller:
        answer = caller.predict(inputs={"features": [[1, 2, 3, 4]]})  # type: ignore[attr-defined]
    expected = dense_answer(np.array([[1, 2, 3, 4]], np.float32))
    np.testing.assert_allclose(answer["outputs"]["scores"], expected, rtol=1e-5)


def test_metrics_count_what_happened(client: httpx.Client) -> None:
    def value(name: str, *labels: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        found = [line for line in lines if line.startswith(name) and all(label in line for label in labels)]
        return sum(float(line.rsplit(" ", 1)[1]) for line in found)

    def counts() -> list[float]:
        requests = "hone_requests_total", 'model="digits"', 'protocol="predict"'
        return [
            value(*requests, 'status="200"'),
            value(*requests, 'status="400"'),
            value("hone_batch_rows_sum"),
        ]

    before = counts()
    client.post("/predict", json={"inputs": {"features": rows(3).tolist()}})
    client.post("/predict", json={})
    assert [after - earlier for earlier, after in zip(before, counts(), strict=True)] == [1, 1, 3]
    assert value("hone_in_flight_requests") == 0


def test_built_bento_serves_its_own_model_from_an_empty_folder(shop: Path, tmp_path: Path) -> None:
    checkout, empty = tmp_path / "checkout", tmp_path / "empty"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns(".venv", ".git", "out", "*cache*", "*.egg-info"))
    empty.mkdir()
    home = tmp_path / "bento-home"
    put(home, tmp_path / "a", "digits", "onnx-fp32-1")
    variables = {**os.environ, "BENTOML_HOME": str(home)}
    build = [sys.executable, "-m", "bentoml", "build", "--output", "tag"]
    made = subprocess.run(build, cwd=checkout, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert made.returncode == 0, made.stderr
    tag = made.stdout.strip().splitlines()[-1].removeprefix("__tag__:")
    # A later run's winner must not change what this bento serves.
    put(home, tmp_path / "b", "digits", "onnx-fp32-2", run="20270101-000000-0000", seed=1)
    command = [sys.executable, "-m", "bentoml", "serve", tag, "--port", "{port}"]
    with server(command, home, empty) as served:
        client, log = served.client, served.log
        features = rows(2)
        answer = client.post("/predict", json={"inputs": {"features": features.tolist()}}).json()
        assert answer["model"] == "digits:onnx-fp32-1"
        np.testing.assert_allclose(answer["outputs"]["scores"], dense_answer(features), rtol=1e-4)
        assert "serving digits:onnx-fp32-1" in log.read_text()
    sources = home / "bentos" / tag.replace(":", "/") / "src"
    assert not list(sources.rglob("converters"))
    assert (sources / "hone" / "runtimes" / "onnx" / "runtime.py").exists()


def test_hone_serve_runs_anywhere_with_several_workers_and_drains(shop: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from hone.cli.main import main; main()"]
    command += ["serve", "digits:onnx-fp32", "--port", "{port}", "--workers", "2"]
    with server(command, shop, tmp_path) as served:
        client, process, log = served.client, served.process, served.log
        assert "serving digits:onnx-fp32-1" in log.read_text()
        for _ in range(20):
            assert client.post("/predict", json={"inputs": {"features": rows(1).tolist()}}).status_code == 200
        deadline = time.monotonic() + 60
        while log.read_text().count("Completed async startup hook") < 2:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert log.read_text().count("Completed async cleanup hook") == 2


def test_corrupt_artifact_is_passed_over_for_the_next_best(tmp_path: Path) -> None:
    home = tmp_path / "shop"
    put(home, tmp_path / "b", "digits", "onnx-fp32-1", rank=1)
    artifact = dense_artifact(tmp_path / "a", name="digits", variant="mlx-fp32")
    best = store.put(artifact.with_manifest(runtime="mlx"), "digits", "mlx-fp32-1")
    (best.path / "model.onnx").write_bytes(b"broken")
    command = [sys.executable, "-m", "bentoml", "serve", "hone.services.model:Model", "--port", "{port}"]
    with server(command, home, HONE_MODEL="digits") as served:
        client, log = served.client, served.log
        assert "model.onnx: corrupt" in log.read_text()
        answer = client.post("/predict", json={"inputs": {"features": rows(1).tolist()}})
        assert answer.json()["model"] == "digits:onnx-fp32-1"


def test_only_artifact_corrupt_refuses_to_start(tmp_path: Path) -> None:
    home = tmp_path / "shop"
    entry = put(home, tmp_path / "a", "digits", "onnx-fp32-1")
    (entry.path / "model.onnx").write_bytes(b"broken")
    assert_one_error(["serve", "services.digits:Digits"], home, "check all with 'hone models verify'")


def test_missing_model_ends_bentoml_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    assert_one_error(["serve", "services.digits:Digits"], tmp_path, "error: no model 'digits'")
    assert_one_error(["serve", "hone.services.model:Model"], tmp_path, "error: which model? Set HONE_MODEL to NAME")


def assert_one_error(command: list[str], home: Path, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", *command],
        cwd=ROOT, env={**os.environ, "BENTOML_HOME": str(home)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "digitz"], "did you mean 'digits'"),
        (["serve", "digits:onnx-fp16"], "no version 'onnx-fp16'"),
        (["serve", "digits", "--port", "{taken}"], "choose another --port"),
        (["bench", "digits", "--url", "http://127.0.0.1:9"], "no service answers"),
        (["bench", "digits", "--url", "localhost"], "is no address"),
    ],
)
def test_wrong_command_is_one_line(
    client: httpx.Client, shop: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    command = [argument.format(taken=client.base_url.port) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-c", "from hone.cli.main import main; main()", *command],
        cwd=tmp_path, env={**os.environ, "BENTOML_HOME": str(shop)},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_started_service_stops_with_its_block(shop: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BENTOML_HOME", str(shop))
        BentoMLContainer.model_store.set(ModelStore(shop / "models"))
        with running("digits:onnx-fp32") as url:
            assert httpx.get(f"{url}/readyz").status_code == 200
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/readyz")
