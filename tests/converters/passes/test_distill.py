from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone import runtimes
from hone.artifact import Artifact
from hone.converters.run.pass_task import PassTask, run_pass
from hone.converters.run.prepare import prepare
from hone.errors import HoneError, PassError
from tests.later import later

later("torch")

CODE = """
import numpy as np, torch
from torch import nn

def teacher():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 3))

def student():
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))

def narrow():
    return nn.Sequential(nn.Linear(6, 2))

def wrong_input():
    return nn.Linear(5, 3)

def rows():
    x = np.random.default_rng(0).normal(size=(512, 6)).astype(np.float32)
    return {"x": x}

def fresh():
    return {"x": np.random.default_rng(1).normal(size=(128, 6)).astype(np.float32)}
"""

RECIPE = """
name: small
source: {loader: "net:teacher"}
signature: {inputs: {x: {dtype: float32, shape: [batch, 6]}}, outputs: [y]}
calibration: "net:rows"
evaluation: "net:fresh"
quality: {metric: METRIC}
variants: [onnx-fp32]
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(CODE)
    file = tmp_path / "recipe.yaml"
    file.write_text(RECIPE.replace("METRIC", "cosine"))
    return file


def distill(recipe: Path, **options: object) -> tuple[Artifact, Artifact]:
    prepared = prepare(recipe, recipe.parent / "sources", recipe.parent / "evaluation.npz")
    target = recipe.parent / f"distilled-{len(list(recipe.parent.iterdir()))}"
    made = run_pass(PassTask("distill", dict(options), prepared.source, target, recipe))
    return Artifact.open(prepared.source), Artifact.open(made)


@pytest.mark.parametrize("metric", ["cosine", "top_k_agreement", "module"])
def test_student_learns_the_teachers_answers(recipe: Path, metric: str) -> None:
    if metric != "module":
        recipe.write_text(RECIPE.replace("METRIC", metric))
    teacher, student = distill(recipe, student="net:student", epochs=40, learning_rate=0.02)
    details = student.manifest.lineage[-1].details
    assert details["student_parameters"] < details["teacher_parameters"] / 4
    assert details["loss_last_epoch"] < details["loss_first_epoch"] / 5
    rows = {"x": np.random.default_rng(1).normal(size=(128, 6)).astype(np.float32)}
    wanted, got = (runtimes.load(artifact).run(rows)["y"] for artifact in (teacher, student))
    assert (wanted.argmax(1) == got.argmax(1)).mean() > 0.9


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"student": "net:narrow"}, r"gives rows of shape \[\[2\]\], the teacher \[\[3\]\]"),
        ({"student": "net:wrong_input"}, "the student fails on the teacher's inputs"),
        ({"student": "net:rows"}, "returned dict, not an nn.Module"),
        ({"student": "net:studnet"}, "did you mean 'student'"),
        ({"student": "net:student", "learning_rate": 1e9, "loss": "mse"}, "lower learning_rate"),
        ({"student": "net:student", "data": "net:nothing"}, "has no 'nothing'"),
    ],
)
def test_what_cant_be_distilled_is_explained(recipe: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(HoneError, match=words):
        distill(recipe, epochs=3, **options)


def test_errors_of_the_pass_are_its_own_kind(recipe: Path) -> None:
    with pytest.raises(PassError):
        distill(recipe, student="net:narrow")
