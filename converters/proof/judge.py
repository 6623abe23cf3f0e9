"""The judge of a run: the recipe's metric, bound to an output of the model, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.errors import RecipeError, did_you_mean
from hone.recipe import LoadedRecipe, MetricSpec
from hone.signature import Tensors
from hone.userload import call, load_function

from .metrics import Answers, Metric, all_metrics
from .metrics.registry import DEFAULT


@dataclass(frozen=True)
class Judge:
    """How good outputs are.

    Attributes:
        name: of the metric, as in the recipe.
        higher_is_better: False for errors such as rmse.
        score: (outputs, source's outputs, labels or None) to a finite number; raises RecipeError for anything else.
        field: of the recipe, for messages.
        metric: None for a function of the user's.
        output: that the metric reads; empty for a function of the user's, which sees all.
        k: of the recipe.
    """

    name: str
    higher_is_better: bool
    score: Callable[[Tensors, Tensors, np.ndarray | None], float]
    field: str = "quality.metric"
    metric: Metric | None = None
    output: str = ""
    k: int = 5

    @property
    def tells_classes(self) -> bool:
        """True where a row is right or wrong, and most rows are answered as the source does."""
        return self.metric is not None and self.metric.reads == "classes"

    def by_row(self, got: Tensors, source: Tensors, labels: np.ndarray | None) -> np.ndarray | None:
        """Return a number for each row, whose mean is the score; None where the score is no mean over rows."""
        return self.metric.by_row(self.answers(got, source, labels)) if self.metric else None

    def over_rows(self, got: Tensors, source: Tensors, labels: np.ndarray | None) -> Callable[[np.ndarray], float]:
        """Return the score of any rows, by their numbers; NaN where there is none, as where a class is missing."""
        if self.metric is None:
            return _or_nan(lambda rows: self.score(at(got, rows), at(source, rows), labels_at(labels, rows)))
        return _or_nan(self.metric.scorer(self.answers(got, source, labels)))

    def answers(self, got: Tensors, source: Tensors, labels: np.ndarray | None) -> Answers:
        """Return what the metric sees of outputs."""
        return Answers(got[self.output], source[self.output], labels, self.k)

    def drop(self, source: float, variant: float) -> float:
        """How much worse the variant is than the source; negative when it is better."""
        return source - variant if self.higher_is_better else variant - source


def at(tensors: Tensors, rows: np.ndarray) -> Tensors:
    """Return these rows of outputs; one that has no rows as it is."""
    count = max((len(array) for array in tensors.values() if array.ndim), default=0)
    return {name: array[rows] if array.ndim and len(array) == count else array for name, array in tensors.items()}


def labels_at(labels: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if labels is None else labels[rows]


def _or_nan(score: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    def scored(rows: np.ndarray) -> float:
        try:
            return score(rows)
        except RecipeError:
            return float("nan")

    return scored


def make_judge(loaded: LoadedRecipe, output_names: list[str], *, has_labels: bool) -> Judge:
    """Return the judge of a recipe's first metric.

    Raises:
        RecipeError: unknown metric or output, or labels are missing.
    """
    return _make(loaded, loaded.recipe.quality, f"{loaded.path}: quality", output_names, has_labels)


def make_judges(loaded: LoadedRecipe, output_names: list[str], *, has_labels: bool) -> list[Judge]:
    """Return the judges of all of a recipe's metrics, in its order.

    Raises:
        RecipeError: as `make_judge`.
    """
    quality = loaded.recipe.quality
    specs = [quality, *quality.also]
    fields = [f"{loaded.path}: quality" + (f"[{place}]" if quality.also else "") for place in range(len(specs))]
    return [_make(loaded, spec, field, output_names, has_labels) for spec, field in zip(specs, fields, strict=True)]


def _make(loaded: LoadedRecipe, spec: MetricSpec, field: str, output_names: list[str], has_labels: bool) -> Judge:
    output = spec.output or output_names[0]
    if output not in output_names:
        raise RecipeError(f"{field}.output: the model has no output '{output}'{did_you_mean(output, output_names)}")
    metrics = all_metrics()
    metric = metrics.get(spec.metric)
    if metric is None and ":" not in spec.metric:
        raise RecipeError(f"{field}.metric: unknown metric '{spec.metric}'{did_you_mean(spec.metric, metrics)}")
    if metric is None:
        score = _checked(_own(loaded, spec.metric), loaded, spec.metric)
        return Judge(spec.metric, spec.higher_is_better, score, f"{field}.metric", k=spec.k)
    if metric.needs_labels and not has_labels:
        raise RecipeError(f"{field}.metric: {spec.metric} needs labels; let evaluation give 'label', or use {DEFAULT}")

    def read(got: Tensors, source: Tensors, labels: np.ndarray | None) -> float:
        return metric.score(Answers(got[output], source[output], labels, spec.k))

    score = _checked(read, loaded, spec.metric)
    return Judge(metric.name, metric.higher_is_better, score, f"{field}.metric", metric, output, spec.k)


def _own(loaded: LoadedRecipe, name: str) -> Callable[[Tensors, Tensors, np.ndarray | None], object]:
    """Return the user's function as a metric's."""
    field = f"{loaded.path}: quality.metric"
    user = load_function(name, loaded.root, field)

    def score(got: Tensors, _: Tensors, labels: np.ndarray | None) -> object:
        # Copies: what a user's function changes in place must not change what the next variant is compared with.
        copies = {key: array.copy() for key, array in got.items()}
        return call(user, name, field, copies, None if labels is None else labels.copy())

    return score


def _checked(
    score: Callable[[Tensors, Tensors, np.ndarray | None], object], loaded: LoadedRecipe, name: str
) -> Callable[[Tensors, Tensors, np.ndarray | None], float]:
    """Return a score whose errors name the recipe, and that gives nothing but finite numbers."""

    def checked(got: Tensors, source: Tensors, labels: np.ndarray | None) -> float:
        try:
            value = score(got, source, labels)
        except RecipeError as error:
            text = str(error)
            raise RecipeError(text if text.startswith(str(loaded.path)) else f"{loaded.path}: {text}") from error
        return _number(value, f"{loaded.path}: quality.metric: {name}")

    return checked


def _number(value: Any, where: str) -> float:
    """Return a metric's value; anything but one finite number would pass or fail every variant alike."""
    array = np.asarray(value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value)
    if array.ndim or array.dtype.kind not in "biuf":
        shape = f" of shape {list(array.shape)}" if array.ndim else ""
        raise RecipeError(f"{where} returned {type(value).__name__}{shape}; return one number")
    if not np.isfinite(array):
        raise RecipeError(f"{where} returned {float(array):g}; return a finite number")
    return float(array)
