"""SavedModels: ingest, run, export, and what may not be loaded."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.artifact import Artifact
from hone.converters import sources
from hone.converters.run.pass_task import PassTask, run_pass
from hone.errors import ArtifactError, RecipeError
from hone.runtimes.savedmodel import folder_signature
from tests.converters.sources.test_keras import IMAGE, convolutional
from tests.later import later
from tests.sources import Work, assert_agree, export, ingest, run, write_recipe

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tf = later("tensorflow")
keras = later("keras")

ROWS = {"x": np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)}


def module(folder: Path, work: Any, *, names: tuple[str, ...] = ("serving_default",)) -> Path:
    """Save a module whose call does some work on `x` beside a matrix product."""
    made = tf.Module()
    made.weights = tf.Variable(np.eye(4, 2, dtype=np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="x")])
    def call(x: Any) -> dict[str, Any]:
        return {"y": tf.matmul(work(x), made.weights)}

    made.call = call
    tf.saved_model.save(made, str(folder), signatures=dict.fromkeys(names, call.get_concrete_function()))
    return folder


def ingested(folder: Path, rows: dict[str, np.ndarray], **fields: Any) -> Work:
    return ingest(write_recipe(folder, {"file": "saved"}, rows, **fields), folder / "source")


def test_an_exported_keras_model_answers_as_the_model_does(tmp_path: Path) -> None:
    model = convolutional(keras)
    model.export(str(tmp_path / "saved"), verbose=False)
    work = ingested(tmp_path, {"image": IMAGE})
    assert work.artifact.runtime == "savedmodel"
    assert work.artifact.signature.inputs[0].describe() == "float32[batch, 8, 6, 1]"
    for own, got in zip(model(IMAGE, training=False), run(work.artifact, {"image": IMAGE}).values(), strict=True):
        np.testing.assert_allclose(got, np.asarray(own), atol=1e-5)
    assert_agree(work, export(work, tmp_path / "onnx"), {"image": IMAGE})
    if find_spec("ai_edge_litert"):
        task = PassTask("litert", {}, work.artifact.path, tmp_path / "lite", work.loaded.path)
        assert_agree(work, Artifact.open(run_pass(task)), {"image": IMAGE})


def test_names_of_the_recipe_stand_for_the_models_own(tmp_path: Path) -> None:
    module(tmp_path / "saved", lambda x: x * 2, names=("mine",))
    signature = {"inputs": {"features": {"shape": ["batch", 4]}}, "outputs": ["sums"]}
    work = ingested(tmp_path, {"features": ROWS["x"]}, signature=signature)
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": ROWS["x"]})
    np.testing.assert_allclose(run(work.artifact, {"features": ROWS["x"]})["sums"], ROWS["x"][:, :2] * 2, rtol=1e-6)


def test_what_reaches_outside_is_refused_before_it_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    def writes(x: Any) -> Any:
        tf.io.write_file(str(mark), "here")
        return x

    def reads(x: Any) -> Any:
        return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)

    def python(x: Any) -> Any:
        return tf.ensure_shape(tf.py_function(lambda value: value, [x], tf.float32), [None, 4])

    def inside(x: Any) -> Any:
        return tf.cond(tf.reduce_sum(x) > 0, lambda: writes(x), lambda: x)

    cases = {"WriteFile": writes, "ReadFile": reads, "EagerPyFunc": python}
    for operator, work in cases.items():
        folder = module(tmp_path / operator, work)
        with pytest.raises(ArtifactError, match=f"the operator '{operator}' in .* can reach outside the model, so"):
            folder_signature(folder)
    module(tmp_path / "saved", inside)
    with pytest.raises(RecipeError, match=rf"source\.file: {tmp_path}/saved: the operator 'WriteFile' in") as error:
        ingested(tmp_path, ROWS)
    assert "\n" not in str(error.value) and not mark.exists()


def test_a_table_of_a_file_and_other_graphs_are_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("a\nb\n")
    made = tf.Module()
    made.words = tf.saved_model.Asset(str(tmp_path / "words.txt"))
    tf.saved_model.save(made, str(tmp_path / "asset"))
    two = module(tmp_path / "two", lambda x: x, names=("first", "second"))
    (tmp_path / "none").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "saved_model.pb").write_bytes(b"\xff" * 30)
    for folder, message in (
        (tmp_path / "asset", "reads 'words.txt', a file beside it"),
        (two, r"has the signatures \['first', 'second'\]; save the one to use as 'serving_default'"),
        (tmp_path / "none", "not a readable SavedModel"),
        (tmp_path / "broken", "not a readable SavedModel"),
    ):
        with pytest.raises(ArtifactError, match=message):
            folder_signature(folder)


def test_only_the_graph_and_its_variables_are_taken(tmp_path: Path) -> None:
    module(tmp_path / "saved", lambda x: x)
    shutil.copyfile(tmp_path / "saved" / "saved_model.pb", tmp_path / "saved" / "saved_model.cpb")
    work = ingested(tmp_path, ROWS)
    assert sorted(work.artifact.manifest.files) == [
        "saved_model.pb",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    ]
    assert "give its folder" in sources.refused(tmp_path / "saved" / "saved_model.pb")
