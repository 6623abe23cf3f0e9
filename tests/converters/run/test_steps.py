"""Recipes with steps: raw rows are evaluated, and what is stored takes them, and is checked with them elsewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from hone import store
from hone.artifact import Artifact, seal
from hone.converters.run.prepare import prepare
from hone.describe.deployment import answers_here
from hone.errors import RecipeError
from hone.golden.rows import read_rows
from hone.recipe import load_recipe
from tests.converters.run.test_optimize import hone
from tests.models.words import TOKENIZE, WORDS, mean_of, write_model, write_tokenizer

LABELS = ["joy", "anger", "boredom"]

DATA = """
import numpy as np

WORDS = {words}
LABELS = {labels}
VECTORS = np.array({vectors})


def evaluation():
    generator = np.random.default_rng(5)
    texts, labels = [], []
    for _ in range(200):
        picked = generator.integers(2, len(WORDS), generator.integers(1, 9))
        texts.append(" ".join(WORDS[index] for index in picked))
        labels.append(LABELS[shout(VECTORS[picked].mean(axis=0)).argmax()])
    return {{"text": texts, "label": labels}}


def shout(scores):
    return scores * 2


def loudly(columns):
    return {{"loud": columns["scores"] * 2}}
"""


def write_project(folder: Path, **changes: Any) -> Path:
    """Write a model of words whose evaluation gives texts and names, and return its recipe."""
    folder.mkdir()
    write_tokenizer(folder)
    write_model(folder / "model.onnx", "scores")
    vectors = [mean_of(word).tolist() for word in WORDS]
    (folder / "data.py").write_text(DATA.format(words=WORDS, labels=LABELS, vectors=vectors))
    declared = {"dtype": "int64", "shape": ["batch", "sequence"], "pad_value": 0}
    loud = {"scores": {"shape": ["batch", 3]}}, {"loud": {"shape": ["batch", 3]}}
    content = {
        "name": "words",
        "source": {"file": "model.onnx"},
        "signature": {"inputs": {"input_ids": declared, "attention_mask": declared}, "outputs": ["scores"]},
        "preprocess": [TOKENIZE],
        "postprocess": [
            {"function": {"call": "data:loudly", "inputs": loud[0], "outputs": loud[1]}},
            "softmax",
            {"labels": {"names": LABELS}},
        ],
        "evaluation": "data:evaluation",
        "quality": {"metric": "accuracy", "output": "label"},
        "budget": {"quality_drop": 0.05},
        "variants": ["onnx-fp32"],
        "measure": {"batches": [1], "threads": ["all"], "rounds": 2, "round_ms": 5},
        **changes,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return folder / "recipe.yaml"


@pytest.mark.slow
def test_texts_in_and_names_out_are_proven_and_stored(tmp_path: Path) -> None:
    file = write_project(tmp_path / "project")
    hone("optimize", file, cwd=tmp_path)
    report = json.loads((tmp_path / "out" / "words" / "report.json").read_text())
    assert report["winner"] == "onnx-fp32"
    assert {variant["quality"] for variant in report["variants"]} == {1.0}
    artifact = store.resolve("words").opened()
    assert artifact.manifest.steps is not None
    assert artifact.manifest.steps.files == ["steps/pre-0-tokenizer.json", "steps/post-0-data.py"]
    assert set(artifact.manifest.steps.files) <= set(artifact.manifest.files)
    assert artifact.manifest.golden is not None
    rows = read_rows(artifact.path, artifact.manifest.golden, artifact.signature)
    assert len(rows.raw["text"]) == 32
    assert set(rows.answers["label"]) <= set(LABELS)
    assert answers_here(artifact)[1] is False
    shown = hone("models", "show", "words", cwd=tmp_path).stdout
    assert "takes     tokenize(file=steps/pre-0-tokenizer.json, max_length=64)" in shown
    assert "code      it runs data:loudly of its own around the model; trusted on this host" in shown

    other = _with_another_tokenizer(artifact, tmp_path / "other")
    said, wrong = answers_here(other)
    assert wrong
    assert re.search("its steps make another 'input_ids' of the same rows than in its proof", said)


def _with_another_tokenizer(artifact: Artifact, folder: Path) -> Artifact:
    """Return a copy whose tokenizer numbers two words the other way round."""
    for name in artifact.manifest.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((artifact.path / name).read_bytes())
    file = folder / "steps" / "pre-0-tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words["good"], words["bad"] = words["bad"], words["good"]
    file.write_text(json.dumps(content))
    return seal(folder, artifact.manifest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preprocess": [{"tokenise": {}}]}, "preprocess[0].tokenise: unknown field; did you mean 'tokenize'?"),
        ({"preprocess": [{"tokenize": {"file": "t.json"}}]}, "preprocess[0].tokenize.max_length: is required"),
        ({"postprocess": [{"softmax": {}, "sigmoid": {}}]}, "postprocess[0]: give one step: softmax, sigmoid,"),
        (
            {"preprocess": [{"tokenize": {"file": "t.json", "max_length": 8, "ids": "ids"}}]},
            "preprocess[0].tokenize: the model has no input 'ids'; name its input of token ids in 'ids'",
        ),
        (
            {"preprocess": [TOKENIZE, {"scale": {"input": "age", "mean": [1], "std": [1]}}]},
            "preprocess[1].scale: nothing takes what it gives: age",
        ),
        (
            {"preprocess": [{"image": {"output": "input_ids", "size": [2, 2]}}]},
            "preprocess[0].image: gives 'input_ids' as float32[batch, 3, 2, 2], the model takes int64[batch, sequence]",
        ),
    ],
)
def test_steps_that_do_not_fit_are_told_when_the_recipe_is_read(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    file = write_project(tmp_path / "project", **changes)
    with pytest.raises(RecipeError, match=re.escape(message)):
        load_recipe(file)


def test_what_is_behind_the_model_is_told_before_any_pass(tmp_path: Path) -> None:
    file = write_project(tmp_path / "project", postprocess=[{"labels": {"names": ["one", "two"]}}])
    message = "postprocess[0].labels: 'scores' has 3 scores, there are 2 names"
    with pytest.raises(RecipeError, match=re.escape(message)):
        prepare(file, tmp_path / "sources", tmp_path / "evaluation.npz")


def test_rows_that_the_steps_cannot_use_are_told(tmp_path: Path) -> None:
    file = write_project(tmp_path / "project", evaluation="data:nothing")
    with (tmp_path / "project" / "data.py").open("a") as stream:
        stream.write('\n\ndef nothing():\n    return {"text": ["good", ""], "label": ["joy", "joy"]}\n')
    with pytest.raises(RecipeError, match=re.escape("evaluation: input 'text': row 1 has no tokens")):
        prepare(file, tmp_path / "sources", tmp_path / "evaluation.npz")
