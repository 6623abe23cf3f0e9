"""Keras models: ingest, run, export, and every mistake that a recipe can make with them.

TensorFlow takes seconds to import, so everything that needs it is in this module.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone import runtimes
from hone.artifact import Artifact
from hone.converters import sources
from hone.converters.graph import onnx_graph
from hone.converters.run.pass_task import PassTask, run_pass
from hone.errors import ArtifactError, PassError, RecipeError
from hone.signature import Signature, TensorSpec
from tests.later import later
from tests.sources import Work, assert_agree, export, ingest, run, write_recipe

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
later("tensorflow")
keras = later("keras")
tf_keras = later("tf_keras")

IMAGE = np.random.default_rng(0).normal(size=(8, 8, 6, 1)).astype(np.float32)
FEATURES = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)


def convolutional(library: Any) -> Any:
    """A functional model with batch normalization, pooling and two named outputs, of Keras 2 or 3."""
    layers = library.layers
    image = library.Input((8, 6, 1), name="image")
    hidden = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    hidden = layers.GlobalAveragePooling2D()(layers.MaxPooling2D()(layers.BatchNormalization()(hidden)))
    outputs = [layers.Dense(3, activation="softmax", name="chances")(hidden), layers.Dense(1, name="size")(hidden)]
    return library.Model(image, outputs)


def saved(folder: Path, model: Any, rows: dict[str, np.ndarray], **fields: Any) -> Work:
    folder.mkdir(exist_ok=True)
    model.save(folder / "model.keras")
    return ingest(write_recipe(folder, {"file": "model.keras"}, rows, **fields), folder / "source")


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras 3", "keras 2"])
def test_channels_last_model_of_either_keras(tmp_path: Path, library: Any) -> None:
    model = convolutional(library)
    rows = {"image": IMAGE}
    work = saved(tmp_path, model, rows)
    assert work.artifact.signature.inputs[0].describe() == "float32[batch, 8, 6, 1]"
    assert work.artifact.signature.output_names == ["chances", "size"]
    for own, got in zip(model(IMAGE, training=False), run(work.artifact, rows).values(), strict=True):
        np.testing.assert_allclose(got, np.asarray(own), atol=1e-5)
    assert_agree(work, export(work, tmp_path / "onnx"), rows)


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras 3", "keras 2"])
def test_channels_first_graph_takes_the_same_rows_turned(tmp_path: Path, library: Any) -> None:
    model = convolutional(library)
    work = saved(tmp_path, model, {"image": IMAGE}, calibration="rows.npz")
    task = PassTask("export", {"layout": "nchw"}, work.artifact.path, tmp_path / "onnx", work.loaded.path)
    artifact = Artifact.open(run_pass(task))
    (image,) = artifact.signature.inputs
    assert image.shape == ("batch", 1, 8, 6)
    got = runtimes.load(artifact, 1).run({"image": image.fit(IMAGE)})
    for name, wanted in run(work.artifact, {"image": IMAGE}).items():
        np.testing.assert_allclose(got[name], wanted, atol=1e-5)
    # A later pass calibrates on rows that are turned for it.
    quantized = run_pass(PassTask("quantize_static", {}, artifact.path, tmp_path / "int8", work.loaded.path))
    assert Artifact.open(quantized).signature.inputs[0].source_axes == (0, 3, 1, 2)


def test_channels_first_needs_images(tmp_path: Path) -> None:
    work = saved(tmp_path, keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), {"keras_tensor": FEATURES},
                 signature={"inputs": {"keras_tensor": {"shape": ["batch", 4]}}})  # fmt: skip
    task = PassTask("export", {"layout": "nchw"}, work.artifact.path, tmp_path / "onnx", work.loaded.path)
    with pytest.raises(PassError, match="no input has four axes"):
        run_pass(task)


def test_sequential_model_with_names_of_the_recipe(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    signature = {"inputs": {"features": {"shape": ["batch", 4]}}, "outputs": ["logits"]}
    work = saved(tmp_path, model, {"features": FEATURES}, signature=signature)
    assert work.artifact.signature.output_names == ["logits"]
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": FEATURES})


def test_inputs_and_outputs_in_dicts_are_matched_by_name(tmp_path: Path) -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    total = keras.layers.Concatenate()([left, keras.ops.multiply(right, 2.0)])
    outputs = {"b": keras.layers.Dense(2)(total), "a": keras.layers.Dense(1)(total)}
    model = keras.Model({"left": left, "right": right}, outputs)
    rows = {"right": FEATURES, "left": FEATURES * 3}
    inputs = {name: {"shape": ["batch", 4]} for name in rows}
    work = saved(tmp_path, model, rows, signature={"inputs": inputs, "outputs": ["a"]})
    wanted = np.asarray(model({"left": rows["left"], "right": rows["right"]})["a"])
    np.testing.assert_allclose(run(work.artifact, rows)["a"], wanted, atol=1e-5)
    assert_agree(work, export(work, tmp_path / "onnx"), rows)


LOADER = """
import keras
@keras.saving.register_keras_serializable("test")
class Scale(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(1,), initializer="ones", name="factor")
    def call(self, x):
        return x * self.factor + 1.0
class Unregistered(keras.layers.Layer):
    def call(self, x):
        return x * 2.0
def _of(layer):
    return keras.Sequential([keras.Input((4,), name="features"), keras.layers.Dense(2), layer])
def model():
    return _of(Scale())
def unregistered():
    return _of(Unregistered())
def anonymous():
    return _of(keras.layers.Lambda(lambda x: x * 2))
def wrong():
    return [1, 2]
"""


def from_loader(folder: Path, name: str, **source: str) -> Any:
    (folder / "keras_models.py").write_text(LOADER)
    signature = {"inputs": {"features": {"shape": ["batch", 4]}}, "outputs": ["scores"]}
    rows = {"features": FEATURES}
    return write_recipe(folder, {"loader": f"keras_models:{name}", **source}, rows, signature=signature)


def test_registered_layer_of_the_loaders_module(tmp_path: Path) -> None:
    work = ingest(from_loader(tmp_path, "model"), tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": FEATURES})


def test_weights_of_a_file_are_loaded_into_the_loaders_model(tmp_path: Path) -> None:
    loaded = from_loader(tmp_path, "model", file="trained.weights.h5", framework="keras")
    from hone.userload import load_function

    trained = load_function("keras_models:model", tmp_path, "source.loader")()
    trained.layers[0].set_weights([np.ones((4, 2)), np.array([1.0, -1.0])])
    trained.save_weights(tmp_path / "trained.weights.h5")
    work = ingest(loaded, tmp_path / "source")
    np.testing.assert_allclose(
        run(work.artifact, {"features": FEATURES})["scores"], np.asarray(trained(FEATURES)), atol=1e-5
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("unregistered", "uses 'Unregistered', which Keras doesn't know"),
        ("anonymous", "holds a Lambda layer"),
        ("wrong", "no model of"),
    ],
)
def test_loader_mistakes_are_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        ingest(from_loader(tmp_path, name), tmp_path / "source")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras 3", "keras 2"])
def test_file_with_a_lambda_layer_is_refused(tmp_path: Path, library: Any) -> None:
    model = library.Sequential([library.Input((4,)), library.layers.Lambda(lambda x: x * 2)])
    with pytest.raises(RecipeError, match=r"source\.file: .*model\.keras: holds a Lambda layer"):
        saved(tmp_path, model, {"features": FEATURES})


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras 3", "keras 2"])
def test_whole_model_of_the_older_format_is_read_by_the_keras_that_wrote_it(tmp_path: Path, library: Any) -> None:
    model = library.Sequential([library.Input((4,), name="x"), library.layers.Dense(2, activation="relu")])
    model.save(tmp_path / "model.h5")
    signature = sources.get("keras").inspect(tmp_path / "model.h5")
    assert signature is not None and [spec.describe() for spec in signature.inputs] == ["float32[batch, 4]"]
    rows = {signature.input_names[0]: FEATURES}
    work = ingest(write_recipe(tmp_path, {"file": "model.h5"}, rows), tmp_path / "source")
    (answer,) = run(work.artifact, rows).values()
    np.testing.assert_allclose(answer, np.asarray(model(FEATURES)), atol=1e-5)


def test_older_format_with_code_or_weights_alone_is_refused(tmp_path: Path) -> None:
    for library in (keras, tf_keras):
        model = library.Sequential([library.Input((4,)), library.layers.Lambda(lambda x: x * 2)])
        model.save(tmp_path / "model.h5")
        with pytest.raises(RecipeError, match=r"source\.file: .*model\.h5: holds a Lambda layer"):
            ingest(write_recipe(tmp_path, {"file": "model.h5"}, {"x": FEATURES}), tmp_path / library.__name__)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(tmp_path / "net.weights.h5")
    with pytest.raises(RecipeError, match=r"net\.weights\.h5: holds weights and no model; name the function"):
        ingest(write_recipe(tmp_path, {"file": "net.weights.h5"}, {"x": FEATURES}), tmp_path / "source")


@pytest.mark.parametrize("content", [b"", b"no archive"])
def test_corrupt_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.keras").write_bytes(content)
    with pytest.raises(RecipeError, match=r"not a \.keras file"):
        ingest(write_recipe(tmp_path, {"file": "model.keras"}, {"x": FEATURES}), tmp_path / "source")


def test_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("readme.txt", "no model")
    with pytest.raises(RecipeError, match=r"not a \.keras file"):
        ingest(write_recipe(tmp_path, {"file": "model.keras"}, {"x": FEATURES}), tmp_path / "source")


def test_wrong_number_of_inputs_and_outputs_is_named(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    inputs = {"features": {"shape": ["batch", 4]}}
    with pytest.raises(RecipeError, match=r"\['a', 'b'\] don't match"):
        saved(tmp_path / "one", model, {"features": FEATURES}, signature={"inputs": inputs, "outputs": ["a", "b"]})
    signature = {"inputs": {**inputs, "more": {"shape": ["batch", 4]}}}
    with pytest.raises(RecipeError, match="the model has 1 inputs"):
        saved(tmp_path / "two", model, {"features": FEATURES, "more": FEATURES}, signature=signature)


def test_operation_without_onnx_counterpart_is_named(tmp_path: Path) -> None:
    features = keras.Input((4,), name="features")
    model = keras.Model(features, keras.ops.erfinv(keras.ops.tanh(features)))
    work = saved(tmp_path, model, {"features": FEATURES})
    with pytest.raises(PassError, match=r"Erfinv in layer .erfinv. has no ONNX counterpart"):
        export(work, tmp_path / "onnx")


def test_a_model_over_the_limit_of_one_file_has_its_weights_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_graph, "LIMIT", 1)
    work = saved(
        tmp_path,
        keras.Sequential([keras.Input((4,), name="features"), keras.layers.Dense(400)]),
        {"features": FEATURES},
    )
    made = export(work, tmp_path / "onnx")
    assert (made.path / "model.onnx.data").is_file()
    assert_agree(work, made, {"features": FEATURES})


def test_inspect_reads_the_inputs_without_loading_the_model(tmp_path: Path) -> None:
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    mask = keras.Input((None, 2), name="mask")
    hidden = keras.layers.Embedding(10, 2)(tokens)
    keras.Model([mask, tokens], keras.layers.Add()([hidden, mask])).save(tmp_path / "model.keras")
    signature = sources.get("keras").inspect(tmp_path / "model.keras")
    assert signature is not None
    described = {spec.name: spec.describe() for spec in signature.inputs}
    assert described == {"mask": "float32[batch, dim1, 2]", "tokens": "int32[batch, dim1]"}


def test_inspect_refuses_what_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_bytes(b"no archive")
    with pytest.raises(ArtifactError, match=r"not a \.keras file"):
        sources.get("keras").inspect(tmp_path / "model.keras")


def test_gelu_and_normalization_are_exported() -> None:
    import onnxruntime as ort

    from hone.converters.sources.keras.source import to_onnx

    rows = np.random.default_rng(0).normal(3, 5, size=(64, 200)).astype(np.float32)
    normalization = keras.layers.Normalization()
    normalization.adapt(rows)
    network = keras.Sequential(
        [keras.Input((200,), name="x"), normalization, keras.layers.Dense(8, activation="gelu"), keras.layers.Dense(3)]
    )
    spec = TensorSpec(name="x", shape=("batch", 200))
    signature = Signature(inputs=(spec,), outputs=(TensorSpec(name="scores", shape=("batch", 3)),))
    graph, _ = to_onnx(network, signature, 20)
    session = ort.InferenceSession(graph.SerializeToString())
    (answer,) = session.run(None, {"x": rows})
    np.testing.assert_allclose(answer, network(rows).numpy(), rtol=0, atol=1e-4)
