"""Hone as people install it: the wheel, and what its commands do in a folder of their own, far from a checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import httpx
import numpy as np
import pytest
import yaml

from hone.services.launch import end, free_port
from tests.capacities import capacity
from tests.checkouts import copy_checkout, tracked
from tests.house import ROOMS
from tests.servers import ROOT, wait_ready

UV = (sys.executable, "-m", "uv")
NEEDED = ("hone", *ROOMS, "pyproject.toml", "README.md", "LICENSE")
"""What a build reads."""
EXTRAS = "trees,bench,ops,deploy"
"""What the commands of the tests need."""


def run(*command: str | Path, folder: Path, environment: dict[str, str] | None = None, status: int = 0) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=environment or _outside(),
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == status, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def _outside(**variables: str) -> dict[str, str]:
    """Return the environment of somebody who has no checkout on a path."""
    local = {"UV_FIND_LINKS": os.environ["PIP_FIND_LINKS"]} if os.environ.get("PIP_FIND_LINKS") else {}
    left_out = ("PYTHONPATH", "VIRTUAL_ENV", "BENTOML_HOME", "HONE_CACHE")
    return {**{name: value for name, value in os.environ.items() if name not in left_out}, **local, **variables}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel from the checkout in `wheel`, and with a source distribution and its wheel in `sdist`."""
    folder = tmp_path_factory.mktemp("built")
    source = copy_checkout(folder / "source", *NEEDED)
    run(*UV, "build", "--quiet", "--wheel", "--out-dir", folder / "wheel", source, folder=folder)
    run(*UV, "build", "--quiet", "--out-dir", folder / "sdist", source, folder=folder)
    return folder


def _names(folder: Path) -> list[str]:
    (wheel,) = folder.glob("hone-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def test_wheel_holds_every_file_of_hone_and_its_rooms_and_nothing_else(built: Path) -> None:
    links = {f"hone/{room}" for room in ROOMS}
    files = {name for name in tracked() if name.startswith(("hone/", *(f"{room}/" for room in ROOMS)))} - links
    inside = {name if name.startswith("hone/") else f"hone/{name}" for name in files}
    inside = {name for name in inside if not any(part.startswith(".") for part in PurePosixPath(name).parts)}
    names = _names(built / "wheel")
    assert {name.split("/")[0] for name in names} == {"hone", "hone-0.1.0.dist-info"}
    assert {name for name in names if name.startswith("hone/")} == inside


def test_source_distribution_gives_the_same_wheel(built: Path) -> None:
    assert _names(built / "sdist") == _names(built / "wheel")


def test_code_runs_from_the_checkout_when_it_is_installed_for_development(tmp_path: Path) -> None:
    source = copy_checkout(tmp_path / "source", *NEEDED)
    (tmp_path / "empty").mkdir()
    run(*UV, "venv", "--quiet", "--python", sys.executable, tmp_path / "env", folder=tmp_path)
    python = tmp_path / "env" / "bin" / "python"
    run(*UV, "pip", "install", "--quiet", "--no-deps", "--python", python, "-e", source, folder=tmp_path)
    code = "import hone.services, hone.k8s.tools as tools; print(tools.__file__)"
    assert Path(run(python, "-c", code, folder=tmp_path / "empty").strip()).is_relative_to(source)
    for room in ROOMS:  # those names are the user's
        assert "ModuleNotFoundError" in run(python, "-c", f"import {room}", folder=tmp_path / "empty", status=1)


def test_extras_that_messages_name_exist() -> None:
    extras = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])
    code = [(ROOT / name).read_text() for name in tracked() if name.endswith(".py") and not name.startswith("tests/")]
    named = {extra for text in code for group in re.findall(r"hone\[([\w,]+)\]", text) for extra in group.split(",")}
    assert named and named <= extras
    assert [text for text in code if re.search(r"\[\w+\] extra", text)] == []  # the one form that can be pasted


@dataclass(frozen=True)
class Installed:
    """An environment with the wheel in it, and a user's folder.

    Attributes:
        scripts: folder of the environment's programs.
        folder: in which commands run.
        environment: of the commands.
    """

    scripts: Path
    folder: Path
    environment: dict[str, str]

    def hone(self, *arguments: str | Path, status: int = 0) -> str:
        return run(self.scripts / "hone", *arguments, folder=self.folder, environment=self.environment, status=status)


FEATURES = '''
"""A user's package that has the name of a room of Hone."""
import benchmarks
import converters
import k8s
import lifecycle
import numpy as np
from sklearn.linear_model import LogisticRegression

from services import scale

assert {module.OWNER for module in (benchmarks, converters, k8s, lifecycle)} == {"me"}


def data(rows, seed):
    features = scale(np.random.default_rng(seed).normal(size=(rows, 4))).astype(np.float32)
    return {"features": features, "label": (features.sum(axis=1) > 0).astype(np.int64)}


def load():
    rows = data(256, 0)
    return LogisticRegression().fit(rows["features"], rows["label"])


def evaluation():
    return data(128, 1)
'''

RECIPE = {
    "name": "sums",
    "source": {"loader": "services.features:load"},
    "evaluation": "services.features:evaluation",
    "quality": {"metric": "accuracy"},
    "budget": {"quality_drop": 0.05},
    "variants": ["onnx-fp32"],
    "measure": {"batches": [1], "threads": [1, "all"], "rounds": 2, "round_ms": 5},
}


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a new environment, and a folder of a user whose packages are named as the rooms are."""
    place, folder = tmp_path_factory.mktemp("installed"), tmp_path_factory.mktemp("mine")
    scripts = place / "env" / "bin"
    (wheel,) = (built / "wheel").glob("*.whl")
    run(*UV, "venv", "--quiet", "--python", sys.executable, place / "env", folder=place)
    run(*UV, "pip", "install", "--quiet", "--python", scripts / "python",
        "-c", ROOT / "requirements/constraints.txt", "--overrides", ROOT / "requirements/cpu.txt",
        f"{wheel}[{EXTRAS}]", "pytest", folder=place)  # fmt: skip
    for room in ROOMS:
        (folder / room).mkdir()
        (folder / room / "__init__.py").write_text("OWNER = 'me'\n")
    (folder / "services" / "__init__.py").write_text("def scale(rows):\n    return rows * 2\n")
    (folder / "services" / "features.py").write_text(FEATURES)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    home = place / "home"
    environment = _outside(
        PATH=f"{scripts}{os.pathsep}{os.environ['PATH']}", HOME=str(home),
        BENTOML_HOME=str(home / "bentoml"), HONE_CACHE=str(home / "cache"),
    )  # fmt: skip
    return Installed(scripts, folder, environment)


@pytest.fixture(scope="module")
def optimized(installed: Installed) -> Installed:
    installed.hone("optimize", "recipe.yaml")
    return installed


@pytest.fixture(scope="module")
def url(optimized: Installed) -> Iterator[str]:
    """A service of the model that `hone serve` runs."""
    port = free_port()
    log = optimized.scripts.parent / "serve.log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [optimized.scripts / "hone", "serve", "sums", "--port", str(port)],
            cwd=optimized.folder, env=optimized.environment, stdout=stream, stderr=stream,
        )  # fmt: skip
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_ready(client, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)


@pytest.mark.slow
def test_loader_in_a_package_named_as_a_room_gives_the_model(optimized: Installed) -> None:
    assert {file.name for file in (optimized.folder / "out" / "sums").iterdir()} >= {"report.json", "report.html"}
    assert "sums:onnx-fp32" in optimized.hone("models", "list")


@pytest.mark.slow
def test_model_is_served(url: str) -> None:
    rows = np.array([[1, 2, 3, 4], [-1, -2, -3, -4]], np.float32)
    answer = httpx.post(f"{url}/predict", json={"inputs": {"features": rows.tolist()}})
    assert answer.status_code == 200, answer.text
    outputs = answer.json()["outputs"]
    (label,) = (values for values in outputs.values() if np.shape(values) == (2,))
    assert label == [1, 0]


@pytest.mark.slow
def test_load_is_measured(optimized: Installed, url: str) -> None:
    optimized.hone("bench", "sums", "--url", url, "--rate", "20", "--duration", "2", "--out", "load")
    assert {file.name for file in (optimized.folder / "load").iterdir()} >= {"load.json", "load.html"}
    python = optimized.scripts / "python"
    locust = (python, "-m", "hone.benchmarks.locustfile", "--help")
    assert "--protocol" in run(*locust, folder=optimized.folder, environment=optimized.environment)


@pytest.mark.slow
def test_manifests_are_rendered(optimized: Installed) -> None:
    tag = next(word for word in optimized.hone("models", "list").split() if word.startswith("sums:"))
    (optimized.folder / "capacity.json").write_text(capacity(model=tag).model_dump_json())
    given = ("--capacity", "capacity.json", "--image", "r.example/sums:1")
    optimized.hone("k8s", "render", "sums", *given, "--out", "deploy")
    assert yaml.safe_load((optimized.folder / "deploy" / "kustomization.yaml").read_text())


@pytest.mark.slow
def test_context_of_an_image_is_written(optimized: Installed) -> None:
    optimized.hone("containerize", "sums", "--context", "context")
    build = optimized.folder / "context" / "build"
    assert (build / "bento" / "src" / "hone" / "services" / "model.py").is_file()
    assert not [file for file in build.rglob("*") if file.name in ("converters", "benchmarks", "features.py")]


@pytest.mark.slow
def test_new_service_passes_its_test(optimized: Installed) -> None:
    optimized.hone("new", "service", "shop", "sums")
    said = run("pytest", "-p", "no:cacheprovider", folder=optimized.folder / "shop", environment=optimized.environment)
    assert "1 passed" in said


@pytest.mark.slow
def test_commands_that_lack_a_package_say_how_to_install_it(optimized: Installed) -> None:
    said = optimized.hone("optimize", "recipe.yaml", "--search", status=1)
    assert said.splitlines()[-1].endswith("pip install 'hone[search]'")
    assert "pip install 'hone[torch]'" in optimized.hone("doctor")
