"""Keras models that carry a payload: neither Keras runs or imports what a file names."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.converters.run.prepare import prepare
from hone.errors import ArtifactError, HoneError
from hone.runtimes.keras import read_model
from tests.later import later
from tests.sources import write_recipe

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
later("tensorflow")
keras = later("keras")
tf_keras = later("tf_keras")

Layer = dict[str, Any]


def layer(module: str, name: str, config: Any, **more: Any) -> Layer:
    return {"module": module, "class_name": name, "config": config, "registered_name": None, **more}


def function(module: str, name: str) -> Layer:
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def dense(activation: Any) -> Layer:
    return layer("keras.layers", "Dense", {"name": "evil", "units": 2, "activation": activation})


def file_with(library: Any, folder: Path, change: Layer) -> Path:
    """A saved model whose last layer is another one, or holds another activation; or which is all another."""
    library.Sequential([library.layers.Input((4,)), library.layers.Dense(2)]).save(folder / "plain.keras")
    with zipfile.ZipFile(folder / "plain.keras") as source, zipfile.ZipFile(folder / "model.keras", "w") as out:
        for item in source.infolist():
            data = source.read(item)
            if item.filename == "config.json":
                config = json.loads(data)
                config["config"]["layers"][-1] = change
                config = change if change is WHOLE else config
                data = json.dumps(config).encode()
            out.writestr(item, data)
    return folder / "model.keras"


WHOLE = layer("evilmod", "Evil", {})
PAYLOADS: dict[str, Layer] = {
    "model": WHOLE,
    "module": dense(layer("evilmod", "Evil", {})),
    "function of the system": dense(function("os", "system")),
    "function of a module": dense(function("evilmod", "touch")),
    "type description": dense({**layer("evilmod", "__typespec__", []), "spec_name": "Evil"}),
    "download": dense(function("keras.utils", "get_file")),
    "saving": dense(function("keras.saving", "load_model")),
    "configuration": dense(function("keras.config", "enable_unsafe_deserialization")),
    "inner module": dense(function("keras.src.utils.file_utils", "get_file")),
    "module beside Keras": layer("keras_evil.layers", "Evil", {}),
    "path in a module": layer("keras.layers.x-y/../evilmod", "Evil", {}),
    "lambda": layer("keras.layers", "Lambda", {"name": "l", "function": {"class_name": "__lambda__", "config": {}}}),
    "old lambda": layer("keras.layers", "Lambda", {"name": "l", "function": ["4wEA", None, None],
                                                   "function_type": "lambda", "module": "evilmod"}),
    "program of TensorFlow": layer("keras.layers", "TFSMLayer", {"filepath": "/tmp/x", "name": "t"}),
    "program of torch": layer("keras.src.utils.torch_utils", "TorchModuleWrapper", {"module": "x", "name": "t"}),
    "file of the host": layer("keras.layers", "StringLookup", {"name": "s", "vocabulary": "/etc/passwd"}),
    "function as a layer": layer("builtins", "eval", {}),
    "function of Python": dense(function("builtins", "eval")),
    "function of Python beside it": dense({**function("builtins", "none"), "registered_name": "exec"}),
    "function under a registered name": dense({**function("evilmod", "touch"), "registered_name": "Custom>Adam"}),
    "function by another name": dense({**function("keras.activations", "none"), "registered_name": "deserialize"}),
    "part of a module": dense(function("keras.losses", "backend.eval")),
    "function that loads": dense(layer("keras.models", "load_model", {})),
    "type of any module": {**layer("evilmod", "__typespec__", []), "spec_name": "TensorSpec"},
    "type that is a function": {**layer("builtins", "__typespec__", ["1"]), "spec_name": "eval"},
    "layer by another name": layer("keras.src.layers", "None_", {"name": "t", "function": "io.write_file"},
                                   registered_name="TFOpLambda"),
    "module of a registered layer": layer("keras", "TFOpLambda", {"name": "t", "function": "io.write_file"},
                                          registered_name="Custom>Adam"),
    "file of the host by a registered name": layer("keras", "StringLookup", {"name": "s", "vocabulary": "/etc/passwd"},
                                                   registered_name="Custom>Adam"),
    "library": layer("keras.layers", "TFOpLambda", {"name": "t", "function": "load_op_library"}),
    "download by TensorFlow": layer("keras.layers", "TFOpLambda", {"name": "t", "function": "keras.utils.get_file"}),
    "method of a class": layer("keras.layers", "ClassMethod", {"name": "t", "cls_symbol": "keras.Model",
                                                               "method_name": "from_config"}),
    "unknown form": dense(layer("keras", "__import__", "evilmod")),
    "lambda in a cell": layer("keras.layers", "ResidualWrapper", {"name": "t", "residual_fn": ["4wEA", None, None],
                                                                  "residual_fn_type": "lambda"}),
    "no name": layer("keras.layers", ["Dense"], {}),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras 3", "keras 2"])
@pytest.mark.parametrize("kind", PAYLOADS)
def test_payload_in_a_model_does_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, library: Any
) -> None:
    mark = tmp_path / "PWNED"
    (tmp_path / "evilmod.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = file_with(library, tmp_path, PAYLOADS[kind])
    loaded = write_recipe(tmp_path, {"file": "model.keras"}, {"input": np.ones((3, 4), np.float32)})
    with pytest.raises(HoneError, match=r"model\.keras") as error:
        prepare(loaded.path, tmp_path / "sources", tmp_path / "evaluation.npz")
    assert "\n" not in str(error.value)
    with pytest.raises(ArtifactError):
        read_model(file, {})
    for command in (
        ["init", str(file), "--out", str(tmp_path / "r.yaml")],
        ["optimize", str(loaded.path), "--dry-run"],
    ):
        CliRunner().invoke(cli, command)
    assert not mark.exists()
    assert "evilmod" not in sys.modules


def test_keras_2_would_import_what_a_file_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The payload above is no dud: Keras's own safe mode lets it through."""
    mark = tmp_path / "PWNED"
    (tmp_path / "evilmod.py").write_text(f"open({str(mark)!r}, 'w')\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = file_with(tf_keras, tmp_path, WHOLE)
    with pytest.raises(Exception, match="Evil"):
        tf_keras.models.load_model(file, compile=False, safe_mode=True)
    sys.modules.pop("evilmod", None)
    assert mark.exists()


def calls_tensorflow(folder: Path, function: str, arguments: Any, **more: Any) -> Path:
    """A model of Keras 2 with a layer that calls a function of TensorFlow with what the file gives it."""
    inputs = tf_keras.Input((4,))
    tf_keras.Model(inputs, tf_keras.layers.Dense(2)(inputs)).save(folder / "plain.keras")
    with zipfile.ZipFile(folder / "plain.keras") as source, zipfile.ZipFile(folder / "model.keras", "w") as out:
        for item in source.infolist():
            data = source.read(item)
            if item.filename == "config.json":
                config = json.loads(data)
                node = [["_CONSTANT_VALUE", -1, arguments, more]]
                call = {"module": "keras.layers", "class_name": "TFOpLambda", "registered_name": "TFOpLambda"}
                call |= {"config": {"name": "call", "function": function}, "name": "call", "inbound_nodes": node}
                config["config"]["layers"].append(call)
                data = json.dumps(config).encode()
            out.writestr(item, data)
    return folder / "model.keras"


def test_layer_does_not_write_files(tmp_path: Path) -> None:
    mark = tmp_path / "PWNED"
    file = calls_tensorflow(tmp_path, "io.write_file", str(mark), contents="x")
    with pytest.raises(ArtifactError, match=r"holds a TFOpLambda of 'io\.write_file', which may do anything"):
        read_model(file, {})
    assert not mark.exists()


def test_keras_2_would_write_files(tmp_path: Path) -> None:
    """The payload above is no dud."""
    mark = tmp_path / "PWNED"
    file = calls_tensorflow(tmp_path, "io.write_file", str(mark), contents="x")
    with pytest.raises(AttributeError):  # afterwards: the call gives nothing
        tf_keras.models.load_model(file, compile=False, safe_mode=True)
    assert mark.exists()


def test_file_that_keras_takes_for_an_older_format_is_not_opened(tmp_path: Path) -> None:
    """It may be HDF5 before the archive begins, and HDF5 models hold code that no check of the archive sees."""
    keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "model.keras")
    for name in ("model.h5", "model.KERAS", "model"):
        (tmp_path / "model.keras").rename(tmp_path / name)
        with pytest.raises(ArtifactError, match=r"must end in \.keras"):
            read_model(tmp_path / name, {})
        (tmp_path / name).rename(tmp_path / "model.keras")


def test_description_that_is_nested_deeply_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.0"}')
        archive.writestr("config.json", '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}")
    with pytest.raises(ArtifactError, match=r"model\.keras"):
        read_model(tmp_path / "model.keras", {})


@pytest.mark.parametrize("member", ["config.json", "metadata.json"])
def test_description_that_unpacks_to_too_much_is_not_read(tmp_path: Path, member: str) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.0"}')
        archive.writestr("config.json", "{}")
        archive.writestr(member, b" " * 101_000_000)
    with pytest.raises(ArtifactError, match=f"{member} is too large"):
        read_model(tmp_path / "model.keras", {})


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras 3", "keras 2"])
def test_parts_of_keras_itself_load(tmp_path: Path, library: Any) -> None:
    layers = library.layers
    inputs = library.Input((8, 8, 3), name="image")
    hidden = layers.Conv2D(4, 3, kernel_regularizer="l2", kernel_constraint="max_norm", activation="gelu")(inputs)
    hidden = layers.BatchNormalization()(layers.Rescaling(0.5)(hidden))
    hidden = layers.Bidirectional(layers.LSTM(3))(layers.Reshape((-1, 4))(hidden))
    hidden = layers.Dropout(0.1)(layers.Dense(4, kernel_initializer="he_normal")(hidden)) * 2 + 1
    library.Model(inputs, [layers.LeakyReLU()(hidden), layers.Softmax()(hidden)]).save(tmp_path / "model.keras")
    read_model(tmp_path / "model.keras", {})
