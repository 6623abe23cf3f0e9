"""scikit-learn: the baseline of scikit-learn models, never part of a serving image."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, UnavailableError, one_line
from hone.runtimes.base import Availability, Runtime, name_outputs, register


@register("sklearn")
class SklearnRuntime(Runtime):
    """A fitted estimator or pipeline, stored with skops.

    Outputs: `label` and `probabilities` of a classifier, `prediction` [batch, targets] of a regressor, `label` and
    `score` [batch, 1] of an outlier detector, `output` of a transformer.
    """

    module = "sklearn"
    threads_adjustable = False

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self._model = read_estimator(artifact.entry, artifact.manifest.runtime_options.get("trusted", []))
        self._signature = artifact.signature

    @classmethod
    def availability(cls) -> Availability:
        for module, package in (("sklearn", "scikit-learn"), ("skops", "skops")):
            if find_spec(module) is None:
                return Availability(False, reason=f"{package} is not installed", remedy="install the [trees] extra")
        return Availability(True, version=version("scikit-learn"), detail="baseline only, not served")

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        table = as_table(inputs, self._model)
        return name_outputs(outputs_of(self._model, table), self._signature)

    def describe(self) -> str:
        return f"scikit-learn {version('scikit-learn')}, CPU"


def read_estimator(file: Path, trusted: list[str]) -> Any:
    """Load a skops file; types beyond numpy's and scikit-learn's own must be in `trusted`.

    Raises:
        ArtifactError: it can't be read, or holds other types.
    """
    import skops.io

    try:
        unknown = sorted(set(skops.io.get_untrusted_types(file=file)) - set(trusted))
        if unknown:
            raise ArtifactError(f"{file}: holds types that skops doesn't trust: {', '.join(unknown)}")
        return skops.io.load(file, trusted=list(trusted))
    except ArtifactError:
        raise
    except Exception as error:
        raise ArtifactError(f"{file}: not a readable skops file: {one_line(error)}") from error


def as_table(inputs: Mapping[str, np.ndarray], model: Any) -> Any:
    """Return what the estimator was fitted on: the one matrix, or a data frame of one column an input."""
    arrays = list(inputs.values())
    if len(arrays) == 1 and arrays[0].ndim == 2:
        return arrays[0]
    if not hasattr(model, "feature_names_in_"):
        return np.column_stack([array.reshape(len(array), -1) for array in arrays])
    try:
        import pandas as pd
    except ImportError:
        raise UnavailableError("the model was fitted on a data frame", "install pandas") from None
    return pd.DataFrame({name: array.reshape(len(array)) for name, array in inputs.items()})


def outputs_of(model: Any, table: Any) -> dict[str, np.ndarray]:
    """Return the estimator's outputs in the shapes and dtypes that skl2onnx gives them."""
    from sklearn.base import is_classifier, is_outlier_detector

    if is_classifier(model):
        labels = np.asarray(model.predict(table))
        outputs = {"label": labels.astype(object if labels.dtype.kind in "OU" else np.int64)}
        if hasattr(model, "predict_proba"):
            outputs["probabilities"] = np.asarray(model.predict_proba(table), np.float32)
        return outputs
    if is_outlier_detector(model):
        labels = np.asarray(model.predict(table), np.int64).reshape(-1, 1)
        return {"label": labels, "score": np.asarray(model.decision_function(table), np.float32).reshape(-1, 1)}
    if hasattr(model, "predict"):
        values = np.asarray(model.predict(table))
        kind = np.int64 if values.dtype.kind in "iu" else np.float32
        shape = (len(values),) if kind is np.int64 else (len(values), -1)
        return {"prediction": values.astype(kind).reshape(shape)}
    values = model.transform(table)
    dense = values.toarray() if hasattr(values, "toarray") else np.asarray(values)
    return {"output": dense.astype(np.float32)}
