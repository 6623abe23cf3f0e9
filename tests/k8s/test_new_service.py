"""The folder that `hone new service` writes: tested, built and served as its README says, away from the repository."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from hone import store
from hone.errors import HoneError
from hone.k8s.tools.new_service import FILES, packages, write_service
from hone.k8s.tools.serving_code import CODE_ROOT, serving_code
from hone.k8s.tools.wheel import write_wheel
from tests.models.dense import dense_answer
from tests.servers import HONE, put, server, use_store

ROWS = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
SEEDS = {"digits": 0, "wine": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BentoML home with two models."""
    home = tmp_path_factory.mktemp("home")
    for name, seed in SEEDS.items():
        put(home, tmp_path_factory.mktemp("artifacts") / name, name, "onnx-fp32-1", seed=seed)
    return home


@pytest.fixture(autouse=True)
def in_folder(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_store(home)
    monkeypatch.chdir(tmp_path)


def run(home: Path, folder: Path, *command: str, **variables: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "BENTOML_HOME": str(home), **variables},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("models", [["wine"], ["digits:onnx-fp32", "wine"]])
def test_folder_is_tested_built_and_served_anywhere(home: Path, tmp_path: Path, models: list[str]) -> None:
    shop = f"shop-{len(models)}"
    folder = tmp_path / shop
    said = run(home, tmp_path, HONE, "new", "service", shop, *models)
    assert f"bentoml serve service:Shop{len(models)}" in said
    tested = run(home, folder, sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
    assert f"{len(models)} passed" in tested
    built = run(home, folder, sys.executable, "-m", "bentoml", "build", "--output", "tag")
    bento = built.strip().splitlines()[-1].removeprefix("__tag__:")
    name = models[-1]
    put(home, tmp_path / "later", name, f"onnx-fp32-later{len(models)}", run="20270101-000000-0000", seed=9)
    (wheel,) = (home / "bentos" / shop / bento.partition(":")[2] / "env" / "python" / "wheels").iterdir()
    code, empty = tmp_path / "code", tmp_path / "empty"
    empty.mkdir()
    run(home, tmp_path, sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--no-config",
        "--python", sys.executable, "--target", str(code), str(wheel))  # fmt: skip
    where = "import hone, hone.services; print(hone.__file__, hone.services.__file__)"
    assert run(home, empty, sys.executable, "-c", where, PYTHONPATH=str(code)).count(str(code)) == 2
    command = [sys.executable, "-m", "bentoml", "serve", bento, "--port", "{port}"]
    try:
        with server(command, home, empty, PYTHONPATH=str(code)) as running:
            check(running.client, "/predict", models[0].partition(":")[0])
            for reference in models:
                model = reference.partition(":")[0]
                check(running.client, f"/models/{model}/predict", model)
    finally:
        store.remove(store.resolve(f"{name}:onnx-fp32-later{len(models)}"))


def check(client: httpx.Client, path: str, model: str) -> None:
    content = client.post(path, json={"inputs": {"features": ROWS.tolist()}}).json()
    assert content["model"] == f"{model}:onnx-fp32-1"
    expected = dense_answer(ROWS, SEEDS[model])
    np.testing.assert_allclose(content["outputs"]["scores"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_test_of_the_folder_fails_when_the_service_answers_otherwise(home: Path, tmp_path: Path) -> None:
    run(home, tmp_path, HONE, "new", "service", "shop", "wine")
    file = tmp_path / "shop" / "service.py"
    file.write_text(
        file.read_text().replace(
            "import bentoml\n",
            "import bentoml\n\nfrom hone.runtimes.onnx.runtime import OnnxRuntime\n\n_run = OnnxRuntime.run\n"
            "OnnxRuntime.run = lambda self, inputs: {k: v + 1 for k, v in _run(self, inputs).items()}\n",
        )
    )
    with pytest.raises(AssertionError, match="1 failed"):
        run(home, tmp_path / "shop", sys.executable, "-m", "pytest", "-p", "no:cacheprovider")


def test_folder_holds_what_its_readme_says(tmp_path: Path) -> None:
    assert write_service("wine-shop", ["wine", "digits:onnx-fp32"], tmp_path / "new" / "shop") == "WineShop"
    folder = tmp_path / "new" / "shop"
    assert {file.name for file in folder.iterdir()} == {*FILES, "wheels"}
    assert [file.name for file in folder.parent.iterdir()] == ["shop"]
    for file in ("service.py", "test_service.py"):
        ast.parse((folder / file).read_text())
    service = (folder / "service.py").read_text()
    assert '*stored("wine", __file__)' in service and '*stored("digits:onnx-fp32", __file__)' in service
    bentofile = yaml.safe_load((folder / "bentofile.yaml").read_text())
    assert (bentofile["service"], bentofile["name"]) == ("service:WineShop", "wine-shop")
    assert all((folder / name).is_file() for name in (*bentofile["include"], *bentofile["python"]["wheels"]))
    ours = yaml.safe_load((CODE_ROOT / "bentofile.yaml").read_text())["python"]["packages"]
    assert bentofile["python"]["packages"] == sorted(ours)


def test_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    write_service("shop", ["wine"], Path("shop"))
    assert (tmp_path / "shop" / "service.py").is_file()


@pytest.mark.parametrize(
    ("runtime", "providers", "more", "less"),
    [
        ("onnx", [], [], []),
        ("openvino", [], ["openvino=="], []),
        ("litert", [], ["ai-edge-litert=="], []),
        ("tensorrt", [], ["tensorrt==", "cuda-bindings=="], []),
        ("mlx", [], ["mlx"], []),
        ("onnx", ["CUDAExecutionProvider"], ["onnxruntime-gpu=="], ["onnxruntime=="]),
        ("onnx", ["TensorrtExecutionProvider"], ["onnxruntime-gpu==", "tensorrt=="], ["onnxruntime=="]),
    ],
)
def test_packages_are_those_of_the_runtimes(
    runtime: str, providers: list[str], more: list[str], less: list[str]
) -> None:
    artifact = store.resolve("wine").opened()
    other = artifact.manifest.model_copy(
        update={"runtime": runtime, "runtime_options": {"providers": providers} if providers else {}}
    )
    usual = packages([artifact])
    found = packages([artifact, type(artifact)(artifact.path, other)])
    added, removed = set(found) - set(usual), set(usual) - set(found)
    assert len(added) == len(more) and all(any(pin.startswith(name) for pin in added) for name in more)
    assert len(removed) == len(less) and all(any(pin.startswith(name) for pin in removed) for name in less)


def test_wheel_holds_the_code_of_an_image_and_is_the_same_every_time(tmp_path: Path) -> None:
    first, second = write_wheel(tmp_path / "a"), write_wheel(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    run(tmp_path, tmp_path, sys.executable, "-m", "uv", "pip", "install", "--offline", "--no-deps", "--no-config",
        "--python", sys.executable, "--target", str(tmp_path / "code"), str(first))  # fmt: skip
    installed = {path.relative_to(tmp_path / "code") for path in (tmp_path / "code").rglob("*.py")}
    assert installed == {Path(place) for place in serving_code()}
    assert (tmp_path / "code" / "hone" / "services" / "model.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shop", "wnie"], "no model 'wnie' in .*; did you mean 'wine'?"),
        (["shop", "wine:onnx-fp16"], "no version 'onnx-fp16' of 'wine'; did you mean"),
        (["1shop", "wine"], "'1shop' can't name a service and its class: .* start with a letter"),
        (["Wine Shop", "wine"], "'Wine Shop' can't name a service"),
        (["../shop", "wine"], "'../shop' can't name a service"),
        (["none", "wine"], "no word of Python's"),
        (["shop", "wine", "wine:onnx-fp32"], "wine and wine:onnx-fp32 are versions of one model"),
        (["shop", "wine", "--out", "."], "is the folder you are in"),
        (["shop", "wine", "--out", "full"], "full is not empty; give a new folder with --out"),
        (["shop", "wine", "--out", "full/mine"], "full/mine is a file"),
    ],
)
def test_what_cannot_be_written_is_one_line_and_leaves_nothing(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from hone.cli.main import cli

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("x")
    with pytest.raises(SystemExit) as end:
        cli(["new", "service", *arguments])
    assert end.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(words.replace("?", r"\?"), line)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["full", "full/mine"]


def test_write_that_fails_leaves_no_half_of_a_folder(home: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", 'ulimit -f 100 && exec "$0" new service shop wine', HONE],  # the wheel is larger
        env={**os.environ, "BENTOML_HOME": str(home)}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, f"error: {tmp_path / 'shop'} can't be written: File too large\n")
    assert list(tmp_path.iterdir()) == []


def test_list_of_packages_is_that_of_the_bentofile() -> None:
    pins = yaml.safe_load((CODE_ROOT / "bentofile.yaml").read_text())["python"]["packages"]
    file = CODE_ROOT / "k8s" / "image" / "packages.txt"
    assert file.read_text().split() == pins, "run requirements/compile.sh"


def test_reference_that_is_no_model_raises_a_hone_error(tmp_path: Path) -> None:
    with pytest.raises(HoneError):
        write_service("shop", ["../x"], tmp_path / "shop")
    assert list(tmp_path.iterdir()) == []
