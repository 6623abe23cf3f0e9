"""Quality metrics: how good a variant's outputs are, against labels or against the source's outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hone.errors import RecipeError, did_you_mean
from hone.recipe import LoadedRecipe
from hone.userload import call, load_function

Outputs = dict[str, np.ndarray]


@dataclass(frozen=True)
class Metric:
    """A metric by name.

    Attributes:
        name: as in the recipe.
        higher_is_better: False for errors such as rmse.
        score: (outputs, source's outputs, labels or None) to a number.
    """

    name: str
    higher_is_better: bool
    score: Callable[[Outputs, Outputs, np.ndarray | None], float]

    def drop(self, source: float, variant: float) -> float:
        """How much worse the variant is than the source; negative when it is better."""
        return source - variant if self.higher_is_better else variant - source


def accuracy(output: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose class is right."""
    return float((classes(output).astype(str) == labels.reshape(-1).astype(str)).mean())


def f1(output: np.ndarray, labels: np.ndarray) -> float:
    """Macro-averaged F1: the mean over the classes that occur, so that rare classes count as much as common ones."""
    predicted, wanted = classes(output).astype(str), labels.reshape(-1).astype(str)
    scores = []
    for name in np.union1d(predicted, wanted):
        hits = float(((predicted == name) & (wanted == name)).sum())
        scores.append(2 * hits / float((predicted == name).sum() + (wanted == name).sum()))
    return float(np.mean(scores))


def rmse(output: np.ndarray, labels: np.ndarray) -> float:
    """Root of the mean squared error."""
    return float(np.sqrt(np.mean((_like(output, labels) - labels.astype(np.float64)) ** 2)))


def mae(output: np.ndarray, labels: np.ndarray) -> float:
    """Mean absolute error."""
    return float(np.mean(np.abs(_like(output, labels) - labels.astype(np.float64))))


def cosine(output: np.ndarray, source: np.ndarray) -> float:
    """Mean cosine similarity of rows; rows that are zero in both count as equal."""
    a, b = (array.reshape(len(array), -1).astype(np.float64) for array in (output, source))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    return float(np.where(both_zero, 1.0, products / np.where(norms == 0, 1.0, norms)).mean())


def top_k_agreement(output: np.ndarray, source: np.ndarray, k: int) -> float:
    """Mean share of the source's k largest classes that are among the variant's k largest."""
    if output.ndim < 2:
        raise RecipeError("quality.metric: top_k_agreement needs an output of shape [batch, classes]")
    k = min(k, output.shape[-1])
    a, b = (np.argsort(-array.reshape(-1, array.shape[-1]), axis=1)[:, :k] for array in (output, source))
    return float(np.mean([len(np.intersect1d(left, right)) / k for left, right in zip(a, b, strict=True)]))


def classes(output: np.ndarray) -> np.ndarray:
    """Return the class of each row: integers and strings are classes, one score is cut at zero (or a probability at a
    half), several scores go to the largest."""
    if output.dtype.kind in "iuUOS":
        return output.reshape(-1)
    if output.ndim == 1 or output.shape[-1] == 1:
        flat = output.reshape(-1)
        probabilities = flat.min(initial=0) >= 0 and flat.max(initial=0) <= 1
        return (flat > (0.5 if probabilities else 0.0)).astype(np.int64)
    return output.argmax(axis=-1).reshape(-1)


def _like(output: np.ndarray, labels: np.ndarray) -> np.ndarray:
    if output.size != labels.size:
        raise RecipeError(f"quality: output has shape {list(output.shape)}, labels have {list(labels.shape)}")
    return output.reshape(labels.shape).astype(np.float64)


_AGAINST_LABELS: dict[str, tuple[bool, Callable[[np.ndarray, np.ndarray], float]]] = {
    "accuracy": (True, accuracy),
    "f1": (True, f1),
    "rmse": (False, rmse),
    "mae": (False, mae),
}
NAMES = (*_AGAINST_LABELS, "cosine", "top_k_agreement")


def make_metric(loaded: LoadedRecipe, output_names: list[str], *, has_labels: bool) -> Metric:
    """Return the recipe's metric.

    Raises:
        RecipeError: unknown metric or output, or labels are missing.
    """
    spec, field = loaded.recipe.quality, f"{loaded.path}: quality"
    output = spec.output or output_names[0]
    if output not in output_names:
        raise RecipeError(f"{field}.output: the model has no output '{output}'{did_you_mean(output, output_names)}")
    if spec.metric in _AGAINST_LABELS:
        if not has_labels:
            raise RecipeError(f"{field}.metric: {spec.metric} needs labels; let evaluation give 'label', or use cosine")
        higher, function = _AGAINST_LABELS[spec.metric]
        return Metric(spec.metric, higher, lambda got, _, labels: function(got[output], _present(labels)))
    if spec.metric == "cosine":
        return Metric("cosine", True, lambda got, source, _: cosine(got[output], source[output]))
    if spec.metric == "top_k_agreement":
        return Metric(spec.metric, True, lambda got, source, _: top_k_agreement(got[output], source[output], spec.k))
    if ":" not in spec.metric:
        raise RecipeError(f"{field}.metric: unknown metric '{spec.metric}'{did_you_mean(spec.metric, NAMES)}")
    user = load_function(spec.metric, loaded.root, f"{field}.metric")
    return Metric(
        spec.metric,
        spec.higher_is_better,
        lambda got, _, labels: float(call(user, spec.metric, f"{field}.metric", got, labels)),
    )


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
