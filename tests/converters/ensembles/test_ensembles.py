"""Stored models as one graph: what it answers, and what doesn't fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import yaml
from onnx import TensorProto, helper

from hone import store
from hone.artifact import seal
from hone.converters.ensembles.source import merged_source
from hone.converters.run.prepare import prepare
from hone.errors import PassError, RecipeError
from hone.recipe import load_recipe
from tests.models.dense import CLASSES, FEATURES, dense_answer, dense_artifact, dense_onnx
from tests.models.words import words_artifact

ROWS = np.random.default_rng(1).normal(size=(200, 4)).astype(np.float32)
SIDES = [dense_answer(ROWS, seed) for seed in (0, 1, 2)]


@pytest.fixture
def recipe(tmp_path: Path) -> Any:
    """Return a function that writes a recipe of an ensemble of three stored models."""
    for seed in range(3):
        store.put(dense_artifact(tmp_path / str(seed), name=f"m{seed}", seed=seed), f"m{seed}", "onnx-fp32-1")

    def write(labels: np.ndarray | None = None, **ensemble: Any) -> Path:
        label = {} if labels is None else {"label": labels}
        np.savez(tmp_path / "rows.npz", features=ROWS, **label)
        content = {
            "name": "together",
            "source": {"ensemble": {"models": ["m0", "m1", "m2"], **ensemble}},
            "calibration": "rows.npz",
            "evaluation": "rows.npz",
            "quality": {"metric": "likeness"},
            "variants": ["onnx-fp32"],
        }
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "recipe.yaml"

    return write


def answered(recipe: Path) -> np.ndarray:
    with merged_source(load_recipe(recipe)) as (local, told):
        assert told.endswith(" of m0:onnx-fp32-1, m1:onnx-fp32-1, m2:onnx-fp32-1")
        session = onnxruntime.InferenceSession(local.recipe.source.file)
        (scores,) = session.run(["scores"], {"features": ROWS})
    return np.asarray(scores)


def test_the_average_is_that_of_the_outputs_by_weight(recipe: Any) -> None:
    np.testing.assert_allclose(answered(recipe()), np.mean(SIDES, axis=0), rtol=1e-4, atol=1e-5)
    weighted = answered(recipe(weights=[2, 1, 1]))
    np.testing.assert_allclose(weighted, np.average(SIDES, axis=0, weights=[2, 1, 1]), rtol=1e-4, atol=1e-5)


def test_a_vote_is_the_share_of_models_for_each_class(recipe: Any) -> None:
    votes = np.mean([np.eye(3)[side.argmax(axis=1)] for side in SIDES], axis=0)
    np.testing.assert_allclose(answered(recipe(combine="vote")), votes, atol=1e-6)


def test_a_stack_tells_what_none_of_its_models_does(recipe: Any) -> None:
    labels = (SIDES[0][:, 0] - SIDES[1][:, 1] > 0).astype(np.int64) * 2
    stacked = answered(recipe(labels, combine="stacked"))
    assert (stacked.argmax(axis=1) == labels).mean() > 0.95
    assert max((side.argmax(axis=1) == labels).mean() for side in SIDES) < 0.9


def test_an_ensemble_is_a_source_as_any_other(recipe: Any, tmp_path: Path) -> None:
    prepared = prepare(recipe(), tmp_path / "sources", tmp_path / "evaluation.npz")
    assert prepared.framework == "onnx"
    assert prepared.note.startswith("the source is the average of m0:onnx-fp32-1")


@pytest.mark.parametrize(
    ("ensemble", "message"),
    [
        ({"models": ["m0", "m9"]}, "ensemble.models: no model 'm9'"),
        ({"models": ["m0", "words"]}, "words:onnx-fp32-1 takes input_ids int64.*m0:onnx-fp32-1 takes features"),
        ({"output": "score"}, "m0:onnx-fp32-1 has no 'score'; it has scores"),
        ({"combine": "stacked"}, "a stacked ensemble is fitted on labels, and there are none"),
        ({"weights": [1, 2]}, "weights: 2 for 3 models"),
        ({"weights": [1, 1, 1], "combine": "stacked"}, "those of a stacked ensemble are fitted"),
        ({"models": ["m0"]}, "ensemble.models"),
    ],
)
def test_what_doesnt_fit_is_named(recipe: Any, tmp_path: Path, ensemble: dict[str, Any], message: str) -> None:
    store.put(words_artifact(tmp_path / "words"), "words", "onnx-fp32-1")
    with pytest.raises(RecipeError, match=message), merged_source(load_recipe(recipe(**ensemble))):
        pass


def tree(version: int) -> onnx.ModelProto:
    """Return a tree for each class that asks whether a feature is above zero, in a version of `ai.onnx.ml`."""
    trees = range(CLASSES)
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["features"],
        ["scores"],
        domain="ai.onnx.ml",
        n_targets=CLASSES,
        nodes_treeids=[one for one in trees for _ in range(3)],
        nodes_nodeids=[0, 1, 2] * CLASSES,
        nodes_featureids=[feature for one in trees for feature in (one, 0, 0)],
        nodes_modes=["BRANCH_GT", "LEAF", "LEAF"] * CLASSES,
        nodes_values=[0.0] * 3 * CLASSES,
        nodes_truenodeids=[1, 0, 0] * CLASSES,
        nodes_falsenodeids=[2, 0, 0] * CLASSES,
        target_treeids=[one for one in trees for _ in range(2)],
        target_nodeids=[1, 2] * CLASSES,
        target_ids=[one for one in trees for _ in range(2)],
        target_weights=[1.0, 0.0] * CLASSES,
    )
    graph = helper.make_graph(
        [node],
        "tree",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
    )
    versions = [helper.make_opsetid("", 20), helper.make_opsetid("ai.onnx.ml", version)]
    return helper.make_model(graph, opset_imports=versions, ir_version=10)


def put(folder: Path, name: str, model: onnx.ModelProto) -> None:
    """Store a graph in the place of the dense model."""
    artifact = dense_artifact(folder, name=name)
    onnx.save(model, artifact.entry)
    store.put(seal(folder, artifact.manifest), name, "onnx-fp32-1")


def saved_by_onnxruntime(file: Path) -> onnx.ModelProto:
    """Return a graph that names every domain which ONNX Runtime knows."""
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(file.with_name("saved.onnx"))
    settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    onnxruntime.InferenceSession(file, settings)
    model = onnx.load(file.with_name("saved.onnx"))
    assert {item.domain: item.version for item in model.opset_import}["ai.onnx.ml"] > 3
    return model


@pytest.mark.parametrize("models", [["trees", "net"], ["net", "trees"]])
def test_trees_and_nets_go_together_in_any_order(recipe: Any, tmp_path: Path, models: list[str]) -> None:
    put(tmp_path / "trees", "trees", tree(3))
    put(tmp_path / "net", "net", saved_by_onnxruntime(dense_onnx(tmp_path / "net.onnx")))
    with merged_source(load_recipe(recipe(models=models))) as (local, _):
        model = onnx.load(local.recipe.source.file)
        session = onnxruntime.InferenceSession(local.recipe.source.file)
        (scores,) = session.run(["scores"], {"features": ROWS})
    assert {item.domain: item.version for item in model.opset_import} == {"": 20, "ai.onnx.ml": 3}
    np.testing.assert_allclose(scores, (SIDES[0] + (ROWS[:, :CLASSES] > 0)) / 2, rtol=1e-4, atol=1e-5)


def test_versions_that_differ_are_told(recipe: Any, tmp_path: Path) -> None:
    put(tmp_path / "new", "new", tree(3))
    put(tmp_path / "old", "old", tree(1))
    words = "model 1 needs version 3 of the operators of ai.onnx.ml, model 3 needs 1; export them with one version"
    with pytest.raises(PassError, match=words), merged_source(load_recipe(recipe(models=["new", "m0", "old"]))):
        pass
