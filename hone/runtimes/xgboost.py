"""XGBoost: the baseline of boosted trees, never part of a serving image."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, one_line
from hone.runtimes.base import Availability, Runtime, name_outputs, register

BINARY, MULTICLASS = "binary:logistic", "multi:softprob"


@register("xgboost")
class XgboostRuntime(Runtime):
    """A booster.

    Objectives `binary:logistic` and `multi:softprob` give `label` (int64) and `probabilities` [batch, classes]; all
    others give `prediction`: [batch], or [batch, targets] when there are several.
    """

    module = "xgboost"

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self._booster = read_booster(artifact.entry)
        if threads is not None:
            self._booster.set_param({"nthread": threads})
        self._objective = objective_of(self._booster)
        self._signature = artifact.signature

    @classmethod
    def availability(cls) -> Availability:
        if find_spec("xgboost") is None:
            return Availability(False, reason="xgboost is not installed", remedy="pip install 'hone[trees]'")
        return Availability(True, version=_version(), detail="baseline only, not served")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        columns = [inputs[name] for name in self._signature.input_names]
        matrix = np.hstack([column.reshape(len(column), -1) for column in columns])
        values = np.asarray(self._booster.inplace_predict(matrix, validate_features=False), np.float32)
        return name_outputs(_outputs(values, self._objective), self._signature)

    def describe(self) -> str:
        return f"XGBoost {_version()}, CPU"


def _outputs(values: np.ndarray, objective: str) -> dict[str, np.ndarray]:
    if objective == MULTICLASS:
        return {"label": values.argmax(axis=1).astype(np.int64), "probabilities": values}
    if objective == BINARY:
        pairs = np.stack([1 - values, values], axis=1)
        return {"label": (values > 0.5).astype(np.int64), "probabilities": pairs}
    return {"prediction": values}


def read_booster(file: Path) -> Any:
    """Load a .ubj or .json model; raises ArtifactError when it is none."""
    import xgboost

    if file.suffix == ".json":
        _check_json(file)
    try:
        return xgboost.Booster(model_file=file)
    except Exception as error:
        # XGBoost's messages start with a time and a place in its own source.
        detail = one_line(error)
        raise ArtifactError(f"{file}: not a readable XGBoost model: {detail.partition(': ')[2] or detail}") from error


def _check_json(file: Path) -> None:
    """Raise ArtifactError when a .json file is no XGBoost model: many other things end in .json."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: not readable JSON: {one_line(error)}") from error
    learner = content.get("learner") if isinstance(content, dict) else None
    if not isinstance(learner, dict) or "gradient_booster" not in learner:
        raise ArtifactError(f"{file}: JSON, but no XGBoost model; save one with booster.save_model('model.ubj')")


def objective_of(booster: Any) -> str:
    return str(json.loads(booster.save_config())["learner"]["objective"]["name"])


def _version() -> str:
    """The module comes in two packages: xgboost, and xgboost-cpu without CUDA."""
    for package in ("xgboost-cpu", "xgboost"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "?"
