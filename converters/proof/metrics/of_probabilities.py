"""Metrics of probabilities: the output holds a score for each class, or one of the second class; labels hold the right
classes. Scores that are no probabilities are made into some, as a softmax or a logistic function does."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np

from hone.errors import RecipeError

from ..labels import pairs
from .registry import Answers, Loss, Metric, register, summary_of

LEAST = 1e-15
"""Probabilities are cut here: a class that was held impossible and came would cost without limit."""

BINS = 15

ProbabilityScore = Callable[[np.ndarray, np.ndarray], float]
"""(probabilities [rows, classes], right classes as int64 [rows]) to the number."""


def probabilities(output: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Return the probability of each class, [rows, classes]; the source's output tells how both are read.

    Raises:
        RecipeError: there is no score for each class, or a value is NaN.
    """
    if source.dtype.kind != "f" or source.ndim > 2:
        raise RecipeError(
            f"quality.metric: the output is {source.dtype} of shape {list(source.shape)}; metrics of "
            "probabilities need scores of shape [batch, classes] or [batch]"
        )
    if np.isnan(output).any():
        raise RecipeError("quality: the output holds NaN")
    own, scores = (array.reshape(len(array), -1).astype(np.float64) for array in (source, output))
    bounded = own.min(initial=0) >= 0 and own.max(initial=0) <= 1
    if own.shape[1] == 1:
        second = np.clip(scores, 0, 1) if bounded else 1 / (1 + np.exp(-np.clip(scores, -700, 700)))
        return np.hstack([1 - second, second])
    if bounded and np.allclose(own.sum(axis=1), 1, atol=1e-3):
        return np.clip(scores, 0, 1)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def _read(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    _, wanted = pairs(answers.output, answers.source, answers.wanted)
    return probabilities(answers.output, answers.source), wanted.astype(np.int64)


def _apart(got: np.ndarray, own: np.ndarray) -> float:
    return float(np.abs(probabilities(got, own) - probabilities(own, own)).sum(axis=1).mean() / 2)


APART = Loss("mean distance of probabilities to the float model's (total variation)", _apart)


def probability_metric(
    name: str,
    bounds: tuple[float, float],
    *,
    higher_is_better: bool = False,
    by_row: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Callable[[ProbabilityScore], ProbabilityScore]:
    """Register a function of probabilities and right classes as a metric; its docstring is the description.

    Args:
        name, bounds, higher_is_better: as of `Metric`.
        by_row: of the same, a number for each row, whose mean is the metric.
    """

    def add(function: ProbabilityScore) -> ProbabilityScore:
        def of_rows(answers: Answers) -> Callable[[np.ndarray], float]:
            shares, wanted = _read(answers)
            return lambda rows: function(shares[rows], wanted[rows])

        register(
            Metric(
                name,
                summary_of(function),
                lambda answers: function(*_read(answers)),
                APART,
                bounds,
                higher_is_better,
                reads="probabilities",
                teaches="kl",
                by_row=lambda answers: by_row(*_read(answers)) if by_row else None,
                of_rows=of_rows,
            )
        )
        return function

    return add


@probability_metric("roc_auc", (0.0, 1.0), higher_is_better=True)
def roc_auc(shares: np.ndarray, wanted: np.ndarray) -> float:
    """How often a row of a class has a larger score for it than a row of another (area under the ROC curve): 0.5 for
    chance; of more than two classes the mean over those that labels hold, each against the rest."""
    names = np.unique(wanted)
    if len(names) < 2:
        raise RecipeError(f"quality.metric: all {len(wanted)} labels are of one class, so there is no ROC curve")
    if shares.shape[1] == 2:
        return _area(shares[:, 1], wanted == 1)
    return float(np.mean([_area(shares[:, name], wanted == name) for name in names]))


def _area(scores: np.ndarray, own: np.ndarray) -> float:
    others = np.sort(scores[~own])
    below = np.searchsorted(others, scores[own], "left") + np.searchsorted(others, scores[own], "right")
    return float(below.mean() / 2 / len(others))


def _surprises(shares: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    surprises: np.ndarray = -np.log(np.clip(shares[np.arange(len(wanted)), wanted], LEAST, 1))
    return surprises


@probability_metric("log_loss", (0.0, inf), by_row=_surprises)
def log_loss(shares: np.ndarray, wanted: np.ndarray) -> float:
    """Mean of minus the logarithm of the right class's probability (cross entropy, nats)."""
    return float(_surprises(shares, wanted).mean())


@probability_metric("calibration_error", (0.0, 1.0))
def calibration_error(shares: np.ndarray, wanted: np.ndarray) -> float:
    """How far the probability of the class that is given is from how often it is right: the mean over 15 bins of equal
    width, by their rows (ECE; Guo et al., On calibration of modern neural networks, ICML 2017)."""
    sure, right = shares.max(axis=1), shares.argmax(axis=1) == wanted
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    apart = np.bincount(bins, weights=sure - right, minlength=BINS)
    return float(np.abs(apart).sum() / len(wanted))
