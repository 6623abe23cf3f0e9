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
from hone.runtimes.base import BASELINE, Availability, Runtime, UserCode, missing, name_outputs, register
from hone.userload import load_function

STANDARD_TYPES = frozenset(
    {
        "numpy.dtype",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.calibration._SigmoidCalibration",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.feature_selection._univariate_selection.f_classif",
        "sklearn.feature_selection._univariate_selection.f_regression",
        "sklearn.metrics._dist_metrics.EuclideanDistance64",
        "sklearn.neighbors._kd_tree.KDTree",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
    }
)
"""Inner parts of common estimators that skops lists as unknown; without them no forest could be loaded."""
METHODS = {
    "label": "predict",
    "prediction": "predict",
    "probabilities": "predict_proba",
    "score": "decision_function",
    "output": "transform",
}


class Options(UserCode):
    """Types of the user's own that a file may hold."""

    trusted: tuple[str, ...] = ()


@register("sklearn")
class SklearnRuntime(Runtime):
    """A fitted estimator or pipeline, stored with skops.

    `runtime_options` of the artifact: `trusted`, the names of the user's own types that may be loaded, and `loader`
    with `root`, whose module is imported first because it defines them.
    """

    module = "sklearn"
    baseline = True
    options = Options

    @classmethod
    def code_in(cls, artifact: Artifact) -> str:
        options = Options.model_validate(artifact.manifest.runtime_options)
        if options.loader:
            return f"imports Python code, {options.loader} in {options.root}"
        return f"lets a file bring objects of {', '.join(options.trusted)}" if options.trusted else ""

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self._model = read_estimator(artifact.entry, artifact.manifest.runtime_options)
        self._signature = artifact.signature
        self._limits: Any = None
        if threads is not None:
            self._limit_threads(threads)

    def _limit_threads(self, threads: int) -> None:
        """Limit the pools of BLAS and OpenMP, and estimators that were told to use several jobs."""
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        self._limits = threadpool_limits(threads)
        parameters = self._model.get_params(deep=True)
        jobs = [name for name, value in parameters.items() if name.endswith("n_jobs") and value is not None]
        self._model.set_params(**dict.fromkeys(jobs, threads))

    @classmethod
    def availability(cls) -> Availability:
        if absent := missing("trees", sklearn="scikit-learn", skops="skops"):
            return absent
        return Availability(True, version=version("scikit-learn"), detail=BASELINE)

    def run(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        table = as_table({name: inputs[name] for name in self._signature.input_names}, self._model)
        return name_outputs(outputs_of(self._model, table, self._signature.output_names), self._signature)

    def describe(self) -> str:
        return f"scikit-learn {version('scikit-learn')}, CPU"

    def close(self) -> None:
        if self._limits is not None:
            self._limits.restore_original_limits()


def read_estimator(file: Path, options: Mapping[str, Any]) -> Any:
    """Load a skops file; types beyond the standard ones must be in `options['trusted']`.

    Raises:
        ArtifactError: it can't be read, or holds other types.
    """
    import skops.io

    if options.get("loader"):
        load_function(options["loader"], Path(options["root"]), "source.loader")
    allowed = STANDARD_TYPES | set(options.get("trusted", []))
    try:
        unknown = sorted(set(skops.io.get_untrusted_types(file=file)) - allowed)
        if not unknown:
            return skops.io.load(file, trusted=sorted(allowed))
    except Exception as error:
        raise ArtifactError(f"{file}: not a readable skops file: {one_line(error)}") from error
    raise ArtifactError(f"{file}: holds types that are not trusted: {', '.join(unknown)}")


def as_table(inputs: Mapping[str, np.ndarray], model: Any) -> Any:
    """Return what the estimator was fitted on: a matrix, or a data frame when it was fitted on named columns.

    One input [batch, n] is the matrix. Several, each [batch, 1] or [batch], are its columns, in order.
    """
    fitted = [str(name) for name in getattr(model, "feature_names_in_", [])]
    columns = [array.reshape(len(array), -1) for array in inputs.values()]
    if fitted:
        return _data_frame(np.hsplit(columns[0], len(fitted)) if len(columns) == 1 else columns, fitted)
    if len({array.dtype.kind == "O" for array in columns}) == 1:
        return np.hstack(columns)
    return np.hstack([array.astype(object) for array in columns])


def _data_frame(columns: list[np.ndarray], names: list[str]) -> Any:
    """Return a pandas frame, or an Arrow table where pandas is missing; scikit-learn picks columns by name in both."""
    by_name = {name: column[:, 0] for name, column in zip(names, columns, strict=True)}
    if find_spec("pandas"):
        import pandas

        return pandas.DataFrame(by_name)
    if find_spec("pyarrow") is None:
        raise UnavailableError("a model fitted on named columns needs pandas or pyarrow", "pip install 'hone[trees]'")
    import pyarrow

    return pyarrow.table({name: pyarrow.array(column) for name, column in by_name.items()})


def outputs_of(model: Any, table: Any, wanted: list[str]) -> dict[str, np.ndarray]:
    """Return an estimator's outputs by name; when all wanted names are among them, only these are computed."""
    names = output_names(model)
    if wanted and set(wanted) <= set(names):
        names = [name for name in names if name in wanted]
    return {name: _plain(name, getattr(model, METHODS[name])(table)) for name in names}


def output_names(model: Any) -> list[str]:
    """Return what an estimator gives, in order.

    Classifiers: `label` and, where they have them, `probabilities` [batch, classes]. Outlier detectors: `label` (1 or
    -1) and `score`. Regressors: `prediction`, [batch] or [batch, targets]. Clusterers: `label`. Transformers: `output`.
    """
    from sklearn.base import is_classifier, is_clusterer, is_outlier_detector

    if is_classifier(model):
        return ["label", "probabilities"] if hasattr(model, "predict_proba") else ["label"]
    if is_outlier_detector(model) and hasattr(model, "decision_function"):
        return ["label", "score"]
    if hasattr(model, "predict"):
        return ["label"] if is_clusterer(model) else ["prediction"]
    if hasattr(model, "transform"):
        return ["output"]
    raise ArtifactError(f"{type(model).__name__} has neither predict nor transform, so there is nothing to run")


def _plain(name: str, value: Any) -> np.ndarray:
    """Return an output as float32, labels as int64 or strings: what the exported graph gives."""
    if isinstance(value, list):
        raise ArtifactError("the classifier predicts several targets at once; make one model and recipe per target")
    array = value.toarray() if hasattr(value, "toarray") else np.asarray(value)
    if name == "label":
        return array.astype(str).astype(object) if array.dtype.kind in "OUS" else array.astype(np.int64)
    array = array.astype(np.float32)
    return array[:, 0] if name in ("prediction", "score") and array.ndim == 2 and array.shape[1] == 1 else array
