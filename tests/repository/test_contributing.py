"""CONTRIBUTING.md, followed: each file is put where the text says, into a copy of the checkout, and used for real."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.checkouts import copy_checkout
from tests.documents import written_files
from tests.models.dense import dense_answer, weights
from tests.servers import server

GUIDE = written_files("CONTRIBUTING.md")
FILES = {path: text for section in GUIDE.values() for path, text in section.items()}
HONE = "from hone.cli.main import main; main()"
RECIPE = {
    "name": "sums",
    "source": {"file": "sums.linear.npz"},
    "evaluation": "rows.npz",
    "quality": {"metric": "worst_recall"},
    "budget": {"quality_drop": 0.01},
    "variants": ["onnx-fp32", {"name": "rounded", "passes": ["export", {"round_weights": {"digits": 0}}]}],
    "measure": {"batches": [1], "threads": [1, "all"], "rounds": 2, "round_ms": 5},
}


@dataclass(frozen=True)
class Copy:
    """A copy of the checkout with the guide's files in it, and a folder of a user's."""

    root: Path
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        home = self.folder / "home"
        own = {"PYTHONPATH": self.root, "BENTOML_HOME": home / "bentoml", "HONE_CACHE": home / "cache"}
        # Of pytest's plugins, the one that its options need: the others take seconds to import, each time.
        quick = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_timeout"}
        return {name: str(place) for name, place in {**own, **quick}.items()}

    def start(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a Python program with the copy's code to its end."""
        return subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=cwd or self.folder, env={**os.environ, **self.variables},
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip

    def run(self, *arguments: str | Path, cwd: Path | None = None, status: int = 0) -> str:
        """Run a Python program with the copy's code; return what it prints."""
        done = self.start(*arguments, cwd=cwd)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def hone(self, *arguments: str) -> str:
        return self.run("-c", HONE, *arguments)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    root = copy_checkout(tmp_path_factory.mktemp("checkout") / "hone")
    for path, text in FILES.items():
        file = root / path
        assert file.parent.is_dir(), f"{path}: there is no such folder"
        assert not file.exists(), f"{path}: is there already"
        file.write_text(text)
    folder = tmp_path_factory.mktemp("project")
    matrix, bias = weights()
    np.savez(folder / "sums.linear.npz", weights=matrix, bias=bias)
    rows = np.random.default_rng(0).normal(size=(1024, 4)).astype(np.float32)
    np.savez(folder / "rows.npz", features=rows, label=dense_answer(rows).argmax(axis=1))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE, sort_keys=False))
    return Copy(root, folder)


def test_every_section_has_one_file_and_its_test() -> None:
    for title, files in GUIDE.items():
        if title.startswith("Add "):
            assert [path.startswith("tests/") for path in files] == [False, True], title


def test_files_are_found_and_pass_their_tests(copy: Copy) -> None:
    tests = [path for path in FILES if path.startswith("tests/")]
    said = copy.run("-m", "pytest", "-p", "no:cacheprovider", *tests, cwd=copy.root)
    assert f"{len(tests)} passed" in said


def test_files_keep_to_the_floors_and_to_the_style(copy: Copy) -> None:
    copy.run("-m", "ruff", "check", "--no-cache", *FILES, cwd=copy.root)
    copy.run("-m", "ruff", "format", "--no-cache", "--check", *FILES, cwd=copy.root)
    house = ("-m", "pytest", "-vv", "-p", "no:cacheprovider", "tests/repository/test_house.py")
    done = copy.start(*house, cwd=copy.root)
    assert "passed" in done.stdout
    assert [path for path in FILES if path in done.stdout] == []


def test_what_has_no_row_in_the_documents_is_said(copy: Copy) -> None:
    pages = ("tests/repository/test_docs.py", "tests/services/protocols/test_registering.py")
    listed = ("-m", "pytest", "-vv", "-p", "no:cacheprovider", *pages, "-k", "readme_lists or in_the_docs")
    said = copy.run(*listed, cwd=copy.root, status=1)
    for name in ("round_weights", "linear", ".linear.npz", "worst_recall", "stdlib", "digest", "/lines/NAME"):
        assert f"'{name}'" in said


def test_peer_is_one_of_those_that_are_measured(copy: Copy) -> None:
    code = "from hone.benchmarks.peers.description import servers; print(*(peer.name for peer in servers()))"
    assert "stdlib" in copy.run("-c", code).split()


@pytest.fixture(scope="module")
def optimized(copy: Copy) -> Copy:
    """The guide's runtime, source, pass and metric, used by one recipe."""
    assert re.search(r"^linear +yes", copy.hone("doctor"), re.MULTILINE)
    copy.hone("optimize", "recipe.yaml")
    return copy


@pytest.mark.slow
def test_recipe_uses_source_runtime_pass_and_metric(optimized: Copy) -> None:
    report = json.loads((optimized.folder / "out" / "sums" / "report.json").read_text())
    variants = {variant["name"]: variant for variant in report["variants"]}
    assert (variants["linear"]["baseline"], variants["linear"]["quality"]) == (True, 1.0)
    assert variants["rounded"]["passes"][-1]["details"] == {"digits": 0}
    assert variants["rounded"]["quality"] < variants["onnx-fp32"]["quality"] == 1.0
    assert report["winner"] == "onnx-fp32"


@pytest.mark.slow
def test_command_is_listed_and_runs(optimized: Copy) -> None:
    assert re.search(r"^ +digest +Print the digest", optimized.hone("--help"), re.MULTILINE)
    assert optimized.hone("digest", "sums").strip() in optimized.hone("models", "show", "sums")


@pytest.mark.slow
def test_service_answers_in_the_protocol(optimized: Copy) -> None:
    rows = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)
    command = [sys.executable, "-c", HONE, "serve", "sums", "--port", "{port}"]
    with server(command, optimized.folder, optimized.folder, **optimized.variables) as running:
        body = "\n".join(" ".join(map(str, row)) for row in rows)
        answer = running.client.post("/lines/sums", content=body)
        assert answer.status_code == 200, answer.text
        assert "/lines/sums" in running.client.get("/docs.json").json()["paths"]
    scores = np.array([line.split() for line in answer.text.splitlines()], np.float32)
    np.testing.assert_allclose(scores, dense_answer(rows), rtol=1e-4)
