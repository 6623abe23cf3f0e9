"""torch models as LiteRT's need a Python with litert-torch, which has other versions of packages than Hone."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from hone import runtimes
from hone.artifact import Artifact
from hone.converters.run.pass_task import PassTask, run_pass
from hone.converters.run.plan import make_plan
from hone.errors import PassError
from hone.recipe import LoadedRecipe
from tests.later import later
from tests.sources import ingest, run, write_recipe

later("torch")
later("ai_edge_litert")

CODE = """
from torch import nn

def network():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
"""
ROWS = {"x": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)}
SIGNATURE = {"inputs": {"x": {"shape": ["batch", 4]}}, "outputs": ["y"]}


def project(folder: Path) -> LoadedRecipe:
    (folder / "net.py").write_text(CODE)
    return write_recipe(folder, {"loader": "net:network"}, ROWS, signature=SIGNATURE, variants=["litert"])


def test_without_litert_torch_the_variant_is_skipped_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if find_spec("litert_torch"):
        pytest.skip("litert-torch is installed")
    loaded = project(tmp_path)
    for value, words in (("", "litert-torch is not installed"), ("/nowhere/python", "/nowhere/python is no program")):
        monkeypatch.setenv("HONE_LITERT_TORCH", value)
        (variant,) = make_plan(loaded, "torch").variants
        assert variant.unavailable is not None and words in str(variant.unavailable)


def test_a_program_without_litert_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if find_spec("litert_torch"):
        pytest.skip("litert-torch is installed")
    monkeypatch.setenv("HONE_LITERT_TORCH", sys.executable)
    work = ingest(project(tmp_path), tmp_path / "source")
    with pytest.raises(PassError, match=r"litert: litert-torch: .*No module named 'litert_torch'"):
        run_pass(PassTask("litert", {}, work.artifact.path, tmp_path / "lite", work.loaded.path))


@pytest.mark.slow
def test_a_torch_model_answers_as_its_source(tmp_path: Path) -> None:
    if not find_spec("litert_torch") and not os.environ.get("HONE_LITERT_TORCH"):
        pytest.skip("no litert-torch; HONE_LITERT_TORCH names a Python that has it")
    work = ingest(project(tmp_path), tmp_path / "source")
    task = PassTask("litert", {"rows": 3}, work.artifact.path, tmp_path / "lite", work.loaded.path)
    made = runtimes.load(Artifact.open(run_pass(task)), 1)
    np.testing.assert_allclose(made.run(ROWS)["y"], run(work.artifact, ROWS)["y"], atol=1e-5)
