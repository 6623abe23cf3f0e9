"""What runs inside a built bento and inside an image: the packed models and versions, all of them, and nothing else.

An image runs `bentoml serve` on the bento of its build context, with the variables that its Containerfile sets; so does
this, without an engine.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from hone import store
from hone.errors import StoreError
from hone.k8s.tools.containerize import containerize
from hone.k8s.tools.packing import Request
from tests.models.dense import dense_answer
from tests.servers import BENTOML, HONE, ROOT, put, server, use_store

SHOP = '''
import bentoml

from services.base import ModelService, configuration, stored


@bentoml.service(name="shop", **configuration())
class Shop(ModelService):
    """Two models in one service."""

    models = (*stored("digits", __file__), *stored("wine", __file__))
'''
ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
SEEDS = {"digits:onnx-int8-1": 1, "digits:onnx-fp32-1": 0, "wine:onnx-fp32-1": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BentoML home with two versions of digits, wine, and a third model that is packed nowhere."""
    pytest.importorskip("cyclonedx")
    folder = tmp_path_factory.mktemp("artifacts")
    home = tmp_path_factory.mktemp("shop")
    put(home, folder / "a", "digits", "onnx-int8-1", variant="onnx-int8", rank=0, seed=1)
    put(home, folder / "b", "digits", "onnx-fp32-1", rank=1, seed=0)
    put(home, folder / "c", "wine", "onnx-fp32-1", seed=2)
    put(home, folder / "d", "other", "onnx-fp32-1", seed=3)
    return home


@pytest.fixture(scope="module")
def image(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The bento of an image with two models and two versions of one, and the variables that the image sets."""
    use_store(home)
    said: list[str] = []
    context = tmp_path_factory.mktemp("image") / "context"
    containerize(Request("digits", more=("wine", "digits:onnx-fp32")), said.append, context)
    variables = {f"HONE_{name}": value for name, value in re.findall(r"--build-arg (MODELS?)=(\S+)", said[-1])}
    assert variables == {"HONE_MODEL": "digits", "HONE_MODELS": "wine"}
    for name in variables:
        assert f"{name}=${{{name.removeprefix('HONE_')}}}" in (context / "Containerfile").read_text()
    return context / "build" / "bento", variables


@pytest.fixture(scope="module")
def packed(image: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """The image's service, with its other version as a shadow; the host has no model store."""
    bento, variables = image
    empty = tmp_path_factory.mktemp("empty")
    command = [sys.executable, "-m", "bentoml", "serve", str(bento), "--port", "{port}"]
    with server(command, empty, empty, HONE_SHADOW="digits:onnx-fp32", **variables) as running:
        yield running.client


def predict(client: httpx.Client, path: str) -> dict[str, Any]:
    answer = client.post(path, json={"inputs": {"features": ROWS.tolist()}})
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    expected = dense_answer(ROWS, SEEDS[content["model"]])
    np.testing.assert_allclose(content["outputs"]["scores"], expected, rtol=1e-4, atol=1e-5)
    return content


def load(client: httpx.Client, name: str, **parameters: object) -> httpx.Response:
    return client.post(f"/v2/repository/models/{name}/load", json={"parameters": parameters})


def test_image_serves_the_first_version_of_each_model(packed: httpx.Client) -> None:
    assert predict(packed, "/predict")["model"] == "digits:onnx-int8-1"
    assert predict(packed, "/models/wine/predict")["model"] == "wine:onnx-fp32-1"
    assert packed.get("/v2/models/digits").json()["versions"] == ["onnx-int8-1"]
    listed = {f"{item['name']}:{item['version']}": item["state"] for item in packed.post("/v2/repository/index").json()}
    assert listed == {
        "digits:onnx-int8-1": "READY", "digits:onnx-fp32-1": "UNAVAILABLE", "wine:onnx-fp32-1": "READY",
    }  # fmt: skip


def test_image_says_which_artifact_answers(packed: httpx.Client, home: Path) -> None:
    use_store(home)
    digest = store.resolve("digits:onnx-int8-1").opened().digest
    parameters = packed.get("/v2/models/digits").json()["parameters"]
    assert parameters.pop("number").isdigit()
    assert parameters == {"tag": "digits:onnx-int8-1", "digest": digest}


def test_shadow_of_a_packed_version_is_that_version(packed: httpx.Client) -> None:
    load(packed, "digits", version="onnx-int8-1")
    deadline = time.monotonic() + 30
    gaps: list[str] = []
    while not gaps and time.monotonic() < deadline:
        predict(packed, "/predict")
        gaps = re.findall(r"^hone_shadow_gap\{.*\} (\S+)$", packed.get("/metrics").text, re.MULTILINE)
    assert gaps and float(gaps[0]) > 0.1  # a model compared with itself has none


@pytest.mark.parametrize(
    ("version", "served"),
    [("onnx-fp32-1", "onnx-fp32-1"), ("onnx-int8", "onnx-int8-1"), ("onnx-f", "onnx-fp32-1"), ("", "onnx-int8-1")],
)
def test_packed_version_is_loaded_when_it_is_asked_for(packed: httpx.Client, version: str, served: str) -> None:
    answer = load(packed, "digits", version=version)
    assert answer.json() == {"name": "digits", "version": served}
    assert predict(packed, "/predict")["model"] == f"digits:{served}"
    assert packed.get("/v2/models/digits").json()["versions"] == [served]


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("digits", "onnx-fp16", "no version 'onnx-fp16' of 'digits' is packed here"),
        ("digits", "onnx", "'digits:onnx' is ambiguous"),
        ("other", "", "no model 'other' is packed here"),
    ],
)
def test_what_is_not_packed_is_not_found(packed: httpx.Client, name: str, version: str, words: str) -> None:
    before = predict(packed, "/predict")["model"]
    answer = load(packed, name, version=version)
    assert answer.status_code == 404
    assert words in answer.json()["error"]
    for tag in SEEDS if "packed" in words else ():
        assert tag in answer.json()["error"]
    assert predict(packed, "/predict")["model"] == before


def test_versions_in_hone_models_stand_beside_the_first(image: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", str(image[0]), "--port", "{port}"]
    more = {"HONE_MODEL": "digits", "HONE_MODELS": "digits:onnx-fp32", "HONE_WORKERS": "2"}
    with server(command, tmp_path, tmp_path, **more) as running:
        client = running.client
        assert predict(client, "/predict")["model"] == "digits:onnx-int8-1"
        for tag in ("digits:onnx-int8-1", "digits:onnx-fp32-1"):
            assert predict(client, f"/models/digits/versions/{tag.partition(':')[2]}/predict")["model"] == tag
        assert client.get("/v2/models/wine").status_code == 404
        # Each worker follows: to the version that was asked for, not to the best one.
        assert load(client, "digits", version="onnx-fp32").status_code == 200
        assert {predict(client, "/predict")["model"] for _ in range(20)} == {"digits:onnx-fp32-1"}


def test_bento_without_settings_serves_every_name_in_it(image: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", str(image[0]), "--port", "{port}"]
    with server(command, tmp_path, tmp_path) as running:
        assert predict(running.client, "/predict")["model"] == "digits:onnx-int8-1"
        assert predict(running.client, "/models/wine/predict")["model"] == "wine:onnx-fp32-1"


@pytest.mark.parametrize("variables", [{"HONE_SHADOW": "digits:onnx-fp16"}, {"HONE_MODELS": "other"}])
def test_image_that_lacks_what_its_settings_name_ends_with_one_line(
    image: tuple[Path, dict[str, str]], tmp_path: Path, variables: dict[str, str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bentoml", "serve", str(image[0])],
        cwd=tmp_path, env={**os.environ, "BENTOML_HOME": str(tmp_path), **image[1], **variables},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "is packed here; there is digits:onnx-int8-1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def bento(home: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bento of a service with two models, built by `bentoml build` in a checkout; the store goes on afterwards."""
    checkout = tmp_path_factory.mktemp("checkout") / "hone"
    leave_out = shutil.ignore_patterns(".venv", ".git", "out", "*cache*", "*.egg-info", "tests", "benchmarks", "docs")
    shutil.copytree(ROOT, checkout, ignore=leave_out)
    (checkout / "services" / "shop.py").write_text(SHOP)
    (checkout / "docs").mkdir()
    (checkout / "docs" / "bento.md").write_text("# shop")
    content = (checkout / "bentofile.yaml").read_text()
    content = content.replace("services.digits:Digits", "services.shop:Shop").replace("name: digits", "name: shop")
    (checkout / "bentofile.yaml").write_text(content)
    made = subprocess.run(
        [sys.executable, "-m", "bentoml", "build", "--output", "tag"],
        cwd=checkout, env={**os.environ, "BENTOML_HOME": str(home)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    put(home, checkout.parent / "later", "digits", "onnx-int8-2", run="20270101-000000-0000", seed=4)
    return made.stdout.strip().splitlines()[-1].removeprefix("__tag__:")


def test_service_with_two_models_serves_both_and_nothing_that_came_later(
    bento: str, home: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "bentoml", "serve", bento, "--port", "{port}"]
    with server(command, home, tmp_path) as running:
        client = running.client
        assert predict(client, "/predict")["model"] == "digits:onnx-int8-1"
        assert predict(client, "/models/wine/predict")["model"] == "wine:onnx-fp32-1"
        answer = load(client, "digits", version="onnx-int8-2")
        assert (answer.status_code, load(client, "other").status_code) == (404, 404)
        assert "there is digits:onnx-int8-1, wine:onnx-fp32-1" in answer.json()["error"]


def test_bento_whose_model_was_removed_says_so(bento: str, home: Path, tmp_path: Path) -> None:
    from hone.services.models.loading import candidates

    use_store(tmp_path)
    name, _, version = bento.partition(":")
    with pytest.raises(StoreError, match="digits:onnx-int8-1, wine:onnx-fp32-1: of this bento, but not in"):
        candidates("digits", str(home / "bentos" / name / version / "src" / "services" / "shop.py"))


@pytest.mark.slow
def test_every_way_to_serve_answers_alike_from_the_same_artifact(
    image: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    """`hone serve`, `bentoml serve` from the checkout, and an image."""
    home = tmp_path / "home"
    shutil.copytree(image[0] / "models", home / "models")
    bento = [sys.executable, "-m", "bentoml", "serve", str(image[0]), "--port", "{port}"]
    seen = []
    for command in ([HONE, "serve", "digits", "--port", "{port}"], BENTOML, bento):
        with server(command, home, HONE_MODEL="digits") as running:
            client = running.client
            content = client.post("/predict", json={"inputs": {"features": ROWS.tolist()}}).json()
            exactly = client.get("/v2/models/digits").json()["parameters"]
            paths = set(client.get("/docs.json").json()["paths"])
            seen.append((content, exactly, paths))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][1]["tag"] == "digits:onnx-int8-1"
