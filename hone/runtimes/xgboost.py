"""XGBoost: the baseline of XGBoost models, never part of a serving image."""

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


@register("xgboost")
class XgboostRuntime(Runtime):
    """A booster. Outputs: `label` and `probabilities` of a classifier, `prediction` [batch, 1] of a regressor."""

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
            return Availability(False, reason="xgboost is not installed", remedy="install the [trees] extra")
        return Availability(True, version=_version(), detail="baseline only, not served")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        (features,) = inputs.values()
        values = np.asarray(self._booster.inplace_predict(features), np.float32)
        return name_outputs(_outputs(values, self._objective), self._signature)

    def describe(self) -> str:
        return f"XGBoost {_version()}, CPU"


def _outputs(values: np.ndarray, objective: str) -> dict[str, np.ndarray]:
    if objective == "multi:softprob":
        return {"label": values.argmax(axis=1).astype(np.int64), "probabilities": values}
    if objective == "binary:logistic":
        pairs = np.stack([1 - values, values], axis=1)
        return {"label": (values > 0.5).astype(np.int64), "probabilities": pairs}
    return {"prediction": values.reshape(len(values), -1)}


def read_booster(file: Path) -> Any:
    """Load a .ubj or .json model; raises ArtifactError when it is none."""
    import xgboost

    booster = xgboost.Booster()
    try:
        booster.load_model(str(file))
    except Exception as error:
        raise ArtifactError(f"{file}: not an XGBoost model: {one_line(error)}") from error
    return booster


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
