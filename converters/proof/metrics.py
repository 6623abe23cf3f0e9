"""Quality metrics: how good a variant's outputs are, against labels or against the source's outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.errors import RecipeError, did_you_mean
from hone.evidence.bounds import r_squared
from hone.recipe import LoadedRecipe
from hone.userload import call, load_function

from .labels import pairs

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    Attributes:
        name: as in the recipe.
        higher_is_better: False for errors such as rmse.
        score: (outputs, source's outputs, labels or None) to a finite number.
        field: of the recipe, for messages.
        output: the output that it reads; empty for a metric of the user's, which sees all.
    """

    name: str
    higher_is_better: bool
    score: Callable[[Outputs, Outputs, np.ndarray | None], float]
    field: str = "quality.metric"
    output: str = ""

    def drop(self, source: float, variant: float) -> float:
        """How much worse the variant is than the source; negative when it is better."""
        return source - variant if self.higher_is_better else variant - source


def accuracy(output: np.ndarray, labels: np.ndarray, source: np.ndarray | None = None) -> float:
    """Share of rows whose class is right; the source's output, if given, decides how classes are read."""
    predicted, wanted = pairs(output, output if source is None else source, labels)
    return float((predicted == wanted).mean())


def f1(output: np.ndarray, labels: np.ndarray, source: np.ndarray | None = None) -> float:
    """Macro-averaged F1: the mean over the classes that occur, so that rare classes count as much as common ones."""
    return macro_f1(*pairs(output, output if source is None else source, labels))


def macro_f1(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Mean F1 of the classes that occur in either."""
    scores = []
    for name in np.union1d(predicted, wanted):
        hits = float(((predicted == name) & (wanted == name)).sum())
        scores.append(2 * hits / float((predicted == name).sum() + (wanted == name).sum()))
    return float(np.mean(scores))


def rmse(output: np.ndarray, labels: np.ndarray, source: np.ndarray | None = None) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean(errors(output, labels) ** 2)))


def mae(output: np.ndarray, labels: np.ndarray, source: np.ndarray | None = None) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(errors(output, labels))))


def errors(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return output - labels, in the output's shape.

    Raises:
        RecipeError: shapes differ by more than axes of one, or labels are no numbers.
    """
    shapes = [array.shape[:1] + tuple(size for size in array.shape[1:] if size != 1) for array in (output, labels)]
    if shapes[0] != shapes[1]:
        raise RecipeError(
            f"quality: the output has shape {list(output.shape)}, labels have {list(labels.shape)}; give a value of "
            "labels for each of the output"
        )
    for what, array in (("the output", output), ("labels", labels)):
        if array.dtype.kind not in "biuf":
            raise RecipeError(f"quality: {what} are no numbers but {array.dtype}; rmse and mae take numbers")
        if np.isnan(array.astype(np.float64)).any():
            raise RecipeError(f"quality: {what} hold NaN")
    difference: np.ndarray = output.astype(np.float64) - labels.reshape(output.shape).astype(np.float64)
    return difference


def likeness(output: np.ndarray, source: np.ndarray) -> float:
    """Share of the variance of the source's outputs over the rows that the variant's explain (R squared against the
    source): 1 for equal outputs, 0 for a constant. Classes and texts have no variance: the share that is equal.

    Raises:
        RecipeError: the source gives the same for every row.
    """
    if source.dtype.kind in "biuUOS":
        return float((output.astype(source.dtype) == source).mean())
    try:
        return r_squared(output, source)
    except ValueError:
        raise RecipeError(
            f"quality.metric: the source gives the same output for all {len(source)} evaluation row(s), so a likeness "
            "to it says nothing; give rows that differ"
        ) from None


def cosine(output: np.ndarray, source: np.ndarray) -> float:
    """Mean cosine similarity of rows; rows that are zero in both count as equal.

    Raises:
        RecipeError: rows hold one value, whose cosine is its sign, or text.
    """
    a, b = (array.reshape(len(array), -1) for array in (output, source))
    if b.dtype.kind in "UOS" or b.shape[1] < 2:
        what = "text" if b.dtype.kind in "UOS" else "one value a row, and the cosine of one value is its sign"
        raise RecipeError(f"quality.metric: the output has {what}; use likeness, or a metric against labels")
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return float(np.where(both_zero, 1.0, products / np.where(norms == 0, 1.0, norms)).mean())


def top_k_agreement(output: np.ndarray, source: np.ndarray, k: int) -> float:
    """Mean share of the source's k largest classes that are among the variant's k largest."""
    if output.ndim < 2 or output.dtype.kind not in "biuf":
        raise RecipeError("quality.metric: top_k_agreement needs numbers of shape [batch, classes]")
    if k >= output.shape[-1]:
        raise RecipeError(f"quality.k: {k} of {output.shape[-1]} classes always agree; set a smaller k")
    a, b = (np.argsort(-array.reshape(-1, array.shape[-1]), axis=1)[:, :k] for array in (output, source))
    return float(np.mean([len(np.intersect1d(left, right)) / k for left, right in zip(a, b, strict=True)]))


_AGAINST_LABELS: dict[str, tuple[bool, Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]]] = {
    "accuracy": (True, accuracy),
    "f1": (True, f1),
    "rmse": (False, rmse),
    "mae": (False, mae),
}
NAMES = (*_AGAINST_LABELS, "likeness", "cosine", "top_k_agreement")


def make_metric(loaded: LoadedRecipe, output_names: list[str], *, has_labels: bool) -> Metric:
    """Return the recipe's metric; its `score` raises RecipeError for anything but a finite number.

    Raises:
        RecipeError: unknown metric or output, or labels are missing.
    """
    spec, field = loaded.recipe.quality, f"{loaded.path}: quality"
    output = spec.output or output_names[0]
    if output not in output_names:
        raise RecipeError(f"{field}.output: the model has no output '{output}'{did_you_mean(output, output_names)}")
    if spec.metric in _AGAINST_LABELS and not has_labels:
        raise RecipeError(f"{field}.metric: {spec.metric} needs labels; let evaluation give 'label', or use likeness")
    if spec.metric not in NAMES and ":" not in spec.metric:
        raise RecipeError(f"{field}.metric: unknown metric '{spec.metric}'{did_you_mean(spec.metric, NAMES)}")
    score, higher = _score(loaded, output)

    def checked(got: Outputs, source: Outputs, labels: np.ndarray | None) -> float:
        try:
            value = score(got, source, labels)
        except RecipeError as error:
            text = str(error)
            raise RecipeError(text if text.startswith(str(loaded.path)) else f"{loaded.path}: {text}") from error
        return _number(value, f"{field}.metric: {spec.metric}")

    return Metric(spec.metric, higher, checked, f"{field}.metric", "" if ":" in spec.metric else output)


def _score(loaded: LoadedRecipe, output: str) -> tuple[Callable[[Outputs, Outputs, np.ndarray | None], object], bool]:
    """Return the function of the recipe's metric, and whether more is better."""
    spec, field = loaded.recipe.quality, f"{loaded.path}: quality.metric"
    if spec.metric in _AGAINST_LABELS:
        higher, function = _AGAINST_LABELS[spec.metric]
        return (lambda got, source, labels: function(got[output], _present(labels), source[output])), higher
    if spec.metric == "top_k_agreement":
        return (lambda got, source, _: top_k_agreement(got[output], source[output], spec.k)), True
    if spec.metric in NAMES:
        against = cosine if spec.metric == "cosine" else likeness
        return (lambda got, source, _: against(got[output], source[output])), True
    user = load_function(spec.metric, loaded.root, field)

    def own(got: Outputs, _: Outputs, labels: np.ndarray | None) -> object:
        # Copies: what a user's function changes in place must not change what the next variant is compared with.
        copies = {name: array.copy() for name, array in got.items()}
        return call(user, spec.metric, field, copies, None if labels is None else labels.copy())

    return own, spec.higher_is_better


def _number(value: Any, where: str) -> float:
    """Return a metric's value; anything but one finite number would pass or fail every variant alike."""
    array = np.asarray(value.item() if hasattr(value, "item") and np.ndim(value) == 0 else value)
    if array.ndim or array.dtype.kind not in "biuf":
        shape = f" of shape {list(array.shape)}" if array.ndim else ""
        raise RecipeError(f"{where} returned {type(value).__name__}{shape}; return one number")
    if not np.isfinite(array):
        raise RecipeError(f"{where} returned {float(array):g}; return a finite number")
    return float(array)


def _present(labels: np.ndarray | None) -> np.ndarray:
    assert labels is not None
    return labels


def differences(outputs: Outputs, source: Outputs) -> tuple[float, float]:
    """Return (largest, mean) absolute difference over all numeric outputs; differing strings count as 1."""
    largest, total, count = 0.0, 0.0, 0
    for name, wanted in source.items():
        got = outputs[name]
        if wanted.dtype.kind in "UOS":
            gap = (got.astype(str) != wanted.astype(str)).astype(np.float64)
        else:
            gap = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        largest = max(largest, float(gap.max(initial=0.0)))
        total, count = total + float(gap.sum()), count + gap.size
    return largest, total / max(count, 1)
