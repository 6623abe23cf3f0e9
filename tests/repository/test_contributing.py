"""CONTRIBUTING.md, followed: each file is put where the text says, into a copy of the checkout, and used for real."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.checkouts import copy_checkout
from tests.documents import written_files
from tests.models import weights

GUIDE = written_files("CONTRIBUTING.md")
FILES = {path: text for section in GUIDE.values() for path, text in section.items()}
RECIPE = {
    "name": "sums",
    "source": {"file": "sums.linear.npz"},
    "evaluation": "rows.npz",
    "budget": {"quality_drop": 0.2},
    "variants": ["onnx-fp32", {"name": "rounded", "passes": ["export", {"round_weights": {"digits": 2}}]}],
    "measure": {"batches": [1], "threads": [1, "all"], "rounds": 2, "round_ms": 5},
}


@dataclass(frozen=True)
class Copy:
    """A copy of the checkout with the guide's files in it, and a folder of a user's."""

    root: Path
    folder: Path

    def run(self, *arguments: str | Path, cwd: Path | None = None, status: int = 0) -> str:
        """Run a Python program with the copy's code; return what it prints."""
        home = self.folder / "home"
        own = {"PYTHONPATH": self.root, "BENTOML_HOME": home / "bentoml", "HONE_CACHE": home / "cache"}
        variables = {name: str(place) for name, place in own.items()}
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=cwd or self.folder, env={**os.environ, **variables},
            capture_output=True, text=True, timeout=280, check=False,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def hone(self, *arguments: str) -> str:
        return self.run("-c", "from hone.cli.main import main; main()", *arguments)


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
    np.savez(folder / "rows.npz", features=np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32))
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
    copy.run("-m", "pytest", "-p", "no:cacheprovider", "tests/repository/test_house.py", cwd=copy.root)


def test_what_has_no_row_in_the_documents_is_said(copy: Copy) -> None:
    listed = ("-m", "pytest", "-p", "no:cacheprovider", "tests/repository/test_docs.py", "-k", "readme_lists")
    said = copy.run(*listed, cwd=copy.root, status=1)
    for name in ("round_weights", "linear", ".linear.npz"):
        assert f"'{name}'" in said


@pytest.mark.slow
def test_recipe_uses_source_runtime_and_pass(copy: Copy) -> None:
    assert "linear" in copy.hone("doctor")
    said = copy.hone("optimize", "recipe.yaml")
    assert "rounded" in said
    assert "sums:rounded" in copy.hone("models", "list") or "sums:onnx-fp32" in copy.hone("models", "list")
