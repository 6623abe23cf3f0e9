"""Keras on TensorFlow: the baseline of Keras models, never part of a serving image."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, UnavailableError, one_line
from hone.runtimes.base import Availability, Runtime, name_outputs, register


@register("keras")
class KerasRuntime(Runtime):
    """A `.keras` file of Keras 3, or of Keras 2 (tf_keras)."""

    module = "tensorflow"
    threads_adjustable = False

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self._model = read_model(artifact.entry)
        self._signature = artifact.signature

    @classmethod
    def availability(cls) -> Availability:
        if find_spec("tensorflow") is None:
            return Availability(False, reason="tensorflow is not installed", remedy="install the [tensorflow] extra")
        return Availability(True, version=version("keras"), detail="baseline only, not served")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        result = self._model(model_arguments(self._model, inputs), training=False)
        return name_outputs({name: np.asarray(value) for name, value in named_outputs(result).items()}, self._signature)

    def describe(self) -> str:
        return f"Keras {version('keras')} on TensorFlow, CPU"


def read_model(file: Path) -> Any:
    """Load a `.keras` file with the Keras that wrote it; code in it (Lambda layers) is refused.

    Raises:
        ArtifactError: it can't be read, or holds code.
        UnavailableError: that Keras is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        with zipfile.ZipFile(file) as archive:
            written_by = str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (OSError, zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ArtifactError(f"{file}: not a .keras file: {one_line(error)}") from error
    try:
        if written_by.startswith("2."):
            from tf_keras.models import load_model
        else:
            from keras.models import load_model
    except ImportError as error:
        raise UnavailableError(f"{error.name} is not installed", "install the [tensorflow] extra") from None
    try:
        return load_model(file, compile=False, safe_mode=True)
    except Exception as error:
        raise ArtifactError(f"{file}: Keras {written_by} can't load it: {one_line(error)}") from error


def model_arguments(model: Any, inputs: Mapping[str, Any]) -> Any:
    """Return inputs as the model takes them: alone, by name where the names are its own, else in order."""
    if len(inputs) == 1:
        return next(iter(inputs.values()))
    own = list(getattr(model, "input_names", []))
    return dict(inputs) if set(own) == set(inputs) else list(inputs.values())


def named_outputs(result: Any) -> dict[str, Any]:
    if isinstance(result, Mapping):
        return dict(result)
    if isinstance(result, list | tuple):
        return {f"output_{index}": value for index, value in enumerate(result)}
    return {"output": result}
