"""SavedModels on TensorFlow: the baseline of models that come as such, never part of a serving image."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, one_line
from hone.formats.saved_model import read_graph
from hone.hardware import tool_versions
from hone.runtimes.base import BASELINE, Availability, Runtime, missing, name_outputs, register
from hone.runtimes.keras import import_tensorflow
from hone.runtimes.silence import silent
from hone.signature import BATCH, Signature, TensorSpec

USUAL = "serving_default"
NOT_CALLED = "__saved_model_init_op"


@register("savedmodel")
class SavedModelRuntime(Runtime):
    """A folder of `saved_model.pb` and `variables/`, called by its signature `serving_default`, or its only one."""

    module = "tensorflow"
    baseline = True
    threads_adjustable = False

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self._signature = artifact.signature
        self._names: list[str] = []
        self._call = called(artifact.entry.parent, artifact.signature.input_names, self._names)

    @classmethod
    def code_in(cls, artifact: Artifact) -> str:
        """Its operators are checked, but TensorFlow's kernels were not made for models of strangers."""
        return "is a SavedModel, a program of TensorFlow"

    @classmethod
    def availability(cls) -> Availability:
        if absent := missing("tensorflow", tensorflow="tensorflow"):
            return absent
        found = next(iter(tool_versions("tensorflow-cpu", "tensorflow").values()), "?")
        return Availability(True, version=found, detail=BASELINE)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        result = self._call(*(inputs[name] for name in self._signature.input_names))
        values = {name: value.numpy() for name, value in zip(self._names, result, strict=True)}
        return name_outputs(values, self._signature)

    def describe(self) -> str:
        import tensorflow as tf

        return f"SavedModel, TensorFlow {tf.__version__}, CPU"


def folder_signature(folder: Path) -> Signature:
    """Return the inputs and outputs that a SavedModel declares; a dynamic axis 0 is `batch`.

    Raises:
        ArtifactError: it can't be read, or may not be loaded; see `read_graph`.
        UnavailableError: TensorFlow is not installed.
    """
    tf = import_tensorflow()
    graph = read_graph(folder)
    ends = graph.signature_def[_named(folder, list(graph.signature_def))]

    def spec(name: str, info: Any) -> TensorSpec:
        if info.tensor_shape.unknown_rank:
            raise ArtifactError(f"{folder}: '{name}' has any number of axes; save the model with an input_signature")
        sizes = [size.size for size in info.tensor_shape.dim]
        shape = tuple(size if size >= 0 else BATCH if place == 0 else f"dim{place}" for place, size in enumerate(sizes))
        return TensorSpec(name=name, dtype=tf.dtypes.as_dtype(info.dtype).name, shape=shape)

    return Signature(inputs=tuple(spec(name, info) for name, info in sorted(ends.inputs.items())))


def called(folder: Path, names: list[str], found: list[str]) -> Any:
    """Return a `tf.function` that takes the inputs in the order of `names` and gives the outputs as a list.

    Args:
        folder: of the SavedModel; its operators are looked at before it is loaded.
        names: inputs of the signature; matched by name when they are the model's own, else in the order of those.
        found: is filled with the outputs' names when the function is first called.

    Raises:
        ArtifactError: it can't be loaded, may not be, or has other inputs.
    """
    tf = import_tensorflow()
    graph = read_graph(folder)
    try:
        with silent():
            loaded = tf.saved_model.load(str(folder))
        function = loaded.signatures[_named(folder, list(graph.signature_def))]
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(f"{folder}: TensorFlow can't load it: {one_line(error)}") from error
    own = sorted(function.structured_input_signature[1])
    if len(own) != len(names):
        raise ArtifactError(f"signature.inputs: the model has {len(own)} inputs {own}, the signature names {names}")
    given = names if set(own) == set(names) else own

    @tf.function(autograph=False, reduce_retracing=True)
    def call(*tensors: Any) -> list[Any]:
        outputs = function(**dict(zip(given, tensors, strict=True)))
        found[:] = [re.sub(r"\W", "_", name) for name in sorted(outputs)]
        return [tf.identity(outputs[name]) for name in sorted(outputs)]

    call.keeps = loaded  # its variables live as long
    return call


def _named(folder: Path, signatures: list[str]) -> str:
    """Return the signature that is called."""
    names = [name for name in signatures if name != NOT_CALLED]
    if USUAL in names:
        return USUAL
    if len(names) != 1:
        raise ArtifactError(f"{folder}: has the signatures {sorted(names)}; save the one to use as '{USUAL}'")
    return names[0]
