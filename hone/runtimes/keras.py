"""Keras on TensorFlow: the baseline of Keras models, never part of a serving image."""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, UnavailableError, one_line
from hone.formats.keras import LAMBDA, check_config
from hone.runtimes.base import (
    BASELINE,
    Availability,
    Runtime,
    UserCode,
    missing,
    name_outputs,
    picked_outputs,
    register,
)
from hone.runtimes.silence import silent
from hone.signature import BATCH, Signature
from hone.userload import load_function

INSTALL = "pip install 'hone[tensorflow]'"
LARGEST_MEMBER = 100_000_000


@register("keras")
class KerasRuntime(Runtime):
    """A `.keras` file of Keras 3, or of Keras 2 (tf_keras), called through one traced `tf.function`.

    TensorFlow fixes its threads when it starts, so a measurement limits the process's cores instead.
    `runtime_options` of the artifact: `loader` with `root`, whose module is imported first because it registers the
    user's own layers.
    """

    module = "tensorflow"
    baseline = True
    options = UserCode
    threads_adjustable = False

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        import_tensorflow()
        self._version = written_by(artifact.entry)
        model = read_model(artifact.entry, artifact.manifest.runtime_options)
        self._signature = artifact.signature
        self._names: list[str] = []
        self._call = traced(model, artifact.signature.input_names, self._names)

    @classmethod
    def code_in(cls, artifact: Artifact) -> str:
        """Keras's own check of what a file may name has been got around before, so its word alone isn't taken."""
        options = UserCode.model_validate(artifact.manifest.runtime_options)
        own = f", and imports {options.loader} in {options.root}" if options.loader else ""
        return f"is a Keras model, whose layers are Python{own}"

    @classmethod
    def availability(cls) -> Availability:
        if absent := missing("tensorflow", tensorflow="tensorflow"):
            return absent
        return Availability(True, version=version("keras"), detail=BASELINE)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        result = self._call(*(inputs[name] for name in self._signature.input_names))
        values = {name: value.numpy() for name, value in zip(self._names, result, strict=True)}
        return name_outputs(values, self._signature)

    def describe(self) -> str:
        import tensorflow as tf

        return f"Keras {self._version}, TensorFlow {tf.__version__}, CPU"


def import_tensorflow() -> Any:
    """Return TensorFlow, with its start-up log silenced; it reads the settings when it is first imported.

    Raises:
        UnavailableError: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    try:
        with silent():  # TensorFlow's first lines come before its log level counts
            import tensorflow
    except ImportError as error:
        raise UnavailableError(f"{error.name or 'tensorflow'} is not installed", INSTALL) from None
    return tensorflow


def read_member(file: Path, member: str) -> dict[str, Any]:
    """Return a JSON member of a `.keras` archive; raises ArtifactError when the file is no such archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            if archive.getinfo(member).file_size > LARGEST_MEMBER:
                raise ArtifactError(f"{file}: not a .keras file: {member} is too large")
            content = json.loads(archive.read(member))
    except (OSError, KeyError, ValueError, RecursionError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"{file}: not a .keras file: {one_line(error)}") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{file}: not a .keras file: {member} holds no object")
    return content


def written_by(file: Path) -> str:
    """Return the version of Keras that wrote a file; raises ArtifactError when it is no `.keras` file."""
    return str(read_member(file, "metadata.json").get("keras_version", "3"))


def read_model(file: Path, options: Mapping[str, Any]) -> Any:
    """Load a `.keras` file with the Keras that wrote it; code in it (Lambda layers) is refused.

    Raises:
        ArtifactError: it can't be read, or holds code.
        UnavailableError: that Keras is not installed, or not on TensorFlow.
    """
    if not file.name.endswith(".keras"):  # Keras takes such a file for an older format, which runs what it holds
        raise ArtifactError(f"{file}: a Keras model's file must end in .keras")
    return _checked(file, read_member(file, "config.json"), written_by(file), options)


def read_h5(file: Path) -> Any:
    """Load a whole model of the older format, HDF5, with the Keras that wrote it; code in it is refused as in `.keras`.

    Raises:
        ArtifactError: it can't be read, holds weights alone, or code.
        UnavailableError: that Keras is not installed.
    """
    config, written = read_h5_config(file)
    return _checked(file, config, written, {})


def read_h5_config(file: Path) -> tuple[dict[str, Any], str]:
    """Return what an HDF5 file says of its model, and the version of Keras that wrote it; raises as `read_h5`."""
    try:
        import h5py
    except ImportError:
        raise UnavailableError("h5py is not installed", INSTALL) from None
    try:
        with h5py.File(file) as content:
            about = {name: content.attrs.get(name) for name in ("model_config", "keras_version")}
        texts = {name: text.decode() if isinstance(text, bytes) else text for name, text in about.items()}
        config = json.loads(texts["model_config"]) if texts["model_config"] else None
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: not an .h5 file of Keras: {one_line(error)}") from error
    if not isinstance(config, dict):
        raise ArtifactError(
            f"{file}: holds weights and no model; name the function that builds it in source.loader, or save the whole "
            "model as .keras"
        )
    return config, str(texts["keras_version"] or "2.")


def _checked(file: Path, config: dict[str, Any], written: str, options: Mapping[str, Any]) -> Any:
    """Load a file whose configuration names no code."""
    old = written.startswith("2.")
    import_tensorflow()
    try:
        if old:
            import tf_keras as library
            from tf_keras.models import load_model
            from tf_keras.saving import get_registered_object
        else:
            import keras as library
            from keras import backend
            from keras.models import load_model
            from keras.saving import get_registered_object
    except ImportError as error:
        raise UnavailableError(f"{error.name} is not installed", INSTALL) from None
    if not old and backend.backend() != "tensorflow":
        raise UnavailableError(f"Keras runs on {backend.backend()} here", "set KERAS_BACKEND=tensorflow")
    if options.get("loader"):
        load_function(options["loader"], Path(options["root"]), "source.loader")
    check_config(file, config, library, lambda name: get_registered_object(name) is not None)
    try:
        return load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        raise ArtifactError(f"{file}: {_explain(error)}") from error


def _explain(error: Exception) -> str:
    """Say in one line why Keras refuses a file; its own messages are pages that print the layer's whole config."""
    text = " ".join(str(error).split())
    if "lambda" in text.lower() and "arbitrary code" in text:
        return LAMBDA
    unknown = re.search(r"(?:Could not locate class|Could not locate function|Unknown layer:?) '?(\w+)'?", text)
    if unknown:
        return (
            f"uses '{unknown.group(1)}', which Keras doesn't know; decorate it with "
            "@keras.saving.register_keras_serializable() in the module that source.loader names"
        )
    return f"Keras can't load it: {text[:300]}"


def traced(model: Any, names: list[str], found: list[str]) -> Any:
    """Return a `tf.function` that takes the inputs in the order of `names` and gives the outputs as a list.

    Args:
        model: a Keras model.
        names: inputs of the signature; matched by name when they are the model's own, else by position.
        found: is filled with the outputs' names when the function is first called.
    """
    tf = import_tensorflow()
    own = input_names(model)
    if own and len(own) != len(names):
        raise ArtifactError(f"signature.inputs: the model has {len(own)} inputs {own}, the signature names {names}")
    order = [names.index(name) for name in own] if set(own) == set(names) else list(range(len(names)))

    @tf.function(autograph=False, reduce_retracing=True)  # Keras converts the code of layers itself
    def call(*tensors: Any) -> list[Any]:
        arguments = [tensors[index] for index in order]
        outputs = named_outputs(model, model(_packed(model, own, arguments), training=False))
        found[:] = outputs
        return [tf.identity(value) for value in outputs.values()]

    return call


def frozen(function: Any, names: list[str], signature: Signature, rows: int) -> tuple[Any, Any]:
    """Return a traced call with the model's weights as constants, and the module that has to live as long.

    Args:
        function: a `tf.function` of the inputs, that gives a list of outputs.
        names: of the outputs, filled when the function is traced.
        signature: with the names of inputs, and of outputs.
        rows: that it is traced for; 0: any number.
    """
    tf = import_tensorflow()
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    def size(axis: int | str) -> int | None:
        return axis if isinstance(axis, int) else (rows or None) if axis == BATCH else None

    specs = [
        tf.TensorSpec([size(axis) for axis in each.shape], each.dtype, name=each.name) for each in signature.inputs
    ]
    constant = convert_variables_to_constants_v2(function.get_concrete_function(*specs))
    module = tf.Module()

    @tf.function(input_signature=specs, autograph=False)
    def call(*tensors: Any) -> dict[str, Any]:
        given = dict(zip(names, constant(*tensors), strict=True))
        own = picked_outputs(names, signature)
        return {name: given[other] for name, other in zip(signature.output_names or names, own, strict=True)}

    module.call = call
    return module, call.get_concrete_function()


def input_names(model: Any) -> list[str]:
    """Return the names of a model's inputs; none for a subclassed model."""
    return [tensor.name.split(":", 1)[0] for tensor in getattr(model, "inputs", None) or []]


def _packed(model: Any, own: list[str], arguments: list[Any]) -> Any:
    """Give the inputs the structure that the model was made with: a dict, one tensor or a list."""
    structure = getattr(model, "_inputs_struct", getattr(model, "_nested_inputs", None))
    if isinstance(structure, Mapping):
        keys = {tensor.name.split(":", 1)[0]: key for key, tensor in structure.items()}
        return {keys[name]: argument for name, argument in zip(own, arguments, strict=True)}
    return arguments[0] if len(arguments) == 1 else arguments


def named_outputs(model: Any, result: Any) -> dict[str, Any]:
    """Return what a model gave by name: a dict's keys, the names of its output layers, or `output`, `output_0`, …"""
    if isinstance(result, Mapping):
        return {re.sub(r"\W", "_", str(name)): value for name, value in result.items()}
    values = list(result) if isinstance(result, tuple | list) else [result]
    own = [re.sub(r"\W", "_", name) for name in getattr(model, "output_names", None) or []]
    if len(own) == len(values) == len(set(own)):
        return dict(zip(own, values, strict=True))
    return {"output" if len(values) == 1 else f"output_{index}": value for index, value in enumerate(values)}
