"""LightGBM: the baseline of boosted trees, never part of a serving image."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, one_line
from hone.runtimes.base import Availability, Runtime, name_outputs, register

CLASSIFIERS = ("binary", "multiclass", "multiclassova")


@register("lightgbm")
class LightgbmRuntime(Runtime):
    """A booster.

    Objectives `binary`, `multiclass` and `multiclassova` give `label` (int64) and `probabilities` [batch, classes];
    all others give `prediction` [batch].
    """

    module = "lightgbm"

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self._booster = read_booster(artifact.entry)
        self._threads = threads or 0
        self._objective = objective_of(self._booster)
        self._signature = artifact.signature

    @classmethod
    def availability(cls) -> Availability:
        if find_spec("lightgbm") is None:
            return Availability(False, reason="lightgbm is not installed", remedy="pip install 'hone[trees]'")
        return Availability(True, version=version("lightgbm"), detail="baseline only, not served")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        columns = [inputs[name] for name in self._signature.input_names]
        matrix = np.hstack([column.reshape(len(column), -1) for column in columns])
        values = np.asarray(self._booster.predict(matrix, num_threads=self._threads), np.float32)
        return name_outputs(_outputs(values, self._objective), self._signature)

    def describe(self) -> str:
        return f"LightGBM {version('lightgbm')}, CPU"


def _outputs(values: np.ndarray, objective: str) -> dict[str, np.ndarray]:
    if objective == "binary":
        pairs = np.stack([1 - values, values], axis=1)
        return {"label": (values > 0.5).astype(np.int64), "probabilities": pairs}
    if objective in CLASSIFIERS:
        return {"label": values.argmax(axis=1).astype(np.int64), "probabilities": values}
    return {"prediction": values}


def read_booster(file: Path) -> Any:
    """Load a model's text file; raises ArtifactError when it is none."""
    import lightgbm

    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{file}: can't be read: {one_line(error)}") from error
    if not text.startswith("tree\n"):
        raise ArtifactError(f"{file}: not a LightGBM model; save one with booster.save_model('model.txt')")
    try:
        return lightgbm.Booster(model_str=text)
    except Exception as error:
        raise ArtifactError(f"{file}: not a readable LightGBM model: {one_line(error)}") from error


def objective_of(booster: Any) -> str:
    """Return the objective's name, without its parameters; empty for a custom one."""
    return str(booster.dump_model(num_iteration=1).get("objective", "")).split(" ", 1)[0]
