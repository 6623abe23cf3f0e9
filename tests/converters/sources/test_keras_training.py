"""Zeros and int8 by training, for Keras 2 models, with tensorflow-model-optimization."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hone import runtimes
from hone.artifact import Artifact
from hone.converters.run.pass_task import PassTask, run_pass
from hone.converters.run.prepare import prepare
from hone.errors import PassError
from tests.later import later
from tests.passes import details

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TF_USE_LEGACY_KERAS"] = "1"  # of tensorflow-model-optimization, read at its first import
later("tensorflow_model_optimization")

CODE = """
import numpy as np
import LIBRARY as keras
from sklearn.datasets import load_digits

def split():
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None]
    return images, digits.target

def network():
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential([
        keras.Input((8, 8, 1), name="image"), layers.Conv2D(16, 3, padding="same", use_bias=False),
        layers.BatchNormalization(), layers.ReLU(), layers.MaxPool2D(), layers.Flatten(),
        layers.Dense(32, activation="relu"), layers.Dense(10, name="logits"),
    ])
    return train(model, 12)

def odd():
    @keras.utils.register_keras_serializable()
    class Twice(keras.layers.Layer):
        def call(self, x):
            return x * 2
    return keras.Sequential([keras.Input((8, 8, 1), name="image"), Twice(), keras.layers.Flatten()])

def train(model, epochs):
    images, labels = split()
    model.compile(keras.optimizers.Adam(5e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(images[:1200], labels[:1200], epochs=epochs, batch_size=64, verbose=0)
    return model

def same(model, epochs):
    return model

def rows():
    return {"image": split()[0][1200:1300]}

def evaluation():
    images, labels = split()
    return {"image": images[1300:], "label": labels[1300:]}
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A recipe and its source artifact: a network that knows the digits."""
    return project(tmp_path_factory.mktemp("keras"), "tf_keras")


def project(folder: Path, library: str, loader: str = "network", train: str | None = "train") -> tuple[Path, Path]:
    module = f"net_{folder.name.replace('-', '_')}"
    (folder / f"{module}.py").write_text(CODE.replace("LIBRARY", library))
    content = {
        "name": "small",
        "source": {"loader": f"{module}:{loader}"},
        "signature": {"inputs": {"image": {"shape": ["batch", 8, 8, 1]}}, "outputs": ["logits"]},
        "calibration": f"{module}:rows",
        "evaluation": f"{module}:evaluation",
        "quality": {"metric": "accuracy"},
        "variants": ["onnx-fp32"],
        **({"train": f"{module}:{train}"} if train else {}),
    }
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    return recipe, prepare(recipe, folder / "source", folder / "evaluation").source


def run(work: tuple[Path, Path], name: str, target: Path, **options: Any) -> Artifact:
    recipe, source = work
    return Artifact.open(run_pass(PassTask(name, options, source, target, recipe)))


def accuracy(artifact: Artifact) -> float:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[..., None][1300:]
    answers = runtimes.load(artifact, 1).run({"image": images})["logits"].argmax(axis=1)
    return float((answers == digits.target[1300:]).mean())


def test_polynomial_decay_ends_at_the_sparsity_and_keeps_the_quality(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    sparse = run(trained, "sparsify", tmp_path / "sparse", sparsity=0.6, epochs=4)
    layers = details(sparse)["layers"]
    assert layers == pytest.approx(dict.fromkeys(layers, 0.6), abs=0.02)
    assert len(layers) == 3
    assert accuracy(sparse) > accuracy(Artifact.open(trained[1])) - 0.05
    exported = Artifact.open(run_pass(PassTask("export", {}, sparse.path, tmp_path / "onnx", trained[0])))
    assert accuracy(exported) == pytest.approx(accuracy(sparse), abs=0.005)


def test_zeros_without_training(trained: tuple[Path, Path], tmp_path: Path) -> None:
    sparse = run(trained, "sparsify", tmp_path / "sparse", sparsity=0.3, epochs=0)
    layers = details(sparse)["layers"]
    assert layers == pytest.approx(dict.fromkeys(layers, 0.3), abs=0.02)
    assert details(sparse)["fine_tuned_epochs"] == 0


def test_threshold_counts_in_each_layer(trained: tuple[Path, Path], tmp_path: Path) -> None:
    layers = details(run(trained, "sparsify", tmp_path / "sparse", threshold=0.05, epochs=0))["layers"]
    assert all(0 < share < 1 for share in layers.values())
    assert len(set(layers.values())) == len(layers) == 3
    for threshold, words in ((1e-9, "no weight is below"), (100.0, "every weight of layer 'conv2d")):
        with pytest.raises(PassError, match=f"sparsify: {words}"):
            run(trained, "sparsify", tmp_path / f"sparse-{threshold:g}", threshold=threshold, epochs=0)


def test_two_of_four(trained: tuple[Path, Path], tmp_path: Path) -> None:
    layers = details(run(trained, "sparsify", tmp_path / "sparse", pattern="2:4", epochs=1))["layers"]
    assert max(layers.values()) == pytest.approx(0.5, abs=0.02)


def test_quantization_aware_training_gives_an_int8_graph(trained: tuple[Path, Path], tmp_path: Path) -> None:
    artifact = run(trained, "qat", tmp_path / "qat", epochs=2)
    assert artifact.manifest.precision == "int8"
    assert details(artifact)["by_operator"]["Conv"] == 1
    assert details(artifact)["quantized"] == 3
    assert accuracy(artifact) > accuracy(Artifact.open(trained[1])) - 0.03
    assert artifact.entry.stat().st_size < 0.5 * Artifact.open(trained[1]).entry.stat().st_size


def test_global_scope_is_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(PassError, match="set scope: layer"):
        run(trained, "sparsify", tmp_path / "sparse", scope="global")


def test_keras_3_is_told_what_to_do(tmp_path: Path) -> None:
    work = project(tmp_path, "keras")
    with pytest.raises(PassError, match="takes Keras 2 models, this one was saved by Keras 3"):
        run(work, "qat", tmp_path / "qat")


def test_hook_that_never_trains_is_named(tmp_path: Path) -> None:
    work = project(tmp_path, "tf_keras", train="same")
    with pytest.raises(PassError, match=r"no weight is zero: .* the train hook doesn't call fit"):
        run(work, "sparsify", tmp_path / "sparse")


def test_layer_that_cannot_be_quantized_is_named(tmp_path: Path) -> None:
    work = project(tmp_path, "tf_keras", loader="odd")
    with pytest.raises(PassError, match=r"qat: .*Twice"):
        run(work, "qat", tmp_path / "qat")
