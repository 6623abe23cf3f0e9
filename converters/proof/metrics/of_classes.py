"""Metrics of classes: the output holds classes, or scores that a class is read from; the labels hold the right ones.

Labels may be numbers of any dtype, names or one-hot, one a row, pixel or token; `proof/labels.py` brings both to one
form.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..labels import class_ids, pairs, shown
from .registry import Answers, Constant, Loss, Metric, register, summary_of

NEVER_PREDICTED = 0.05
"""A class with this share of the rows that the source never gives is most likely no class of the model's."""

ClassScore = Callable[[np.ndarray, np.ndarray], float]
"""(predicted, wanted) classes, flat, both float64 or both text, to the number."""

CHANGED = Loss("share of rows whose class changes", lambda got, own: float((class_ids(got) != class_ids(own)).mean()))
"""It bounds the drop on any labels: a class that didn't change can't have become wrong."""


def class_metric(
    name: str, *, usual: bool = False, by_row: Callable[[Answers], np.ndarray | None] = lambda _: None
) -> Callable[[ClassScore], ClassScore]:
    """Register a function of predicted and wanted classes as a metric between 0 and 1, where 1 is best; its docstring
    is the metric's description.

    Args:
        name: for recipes.
        usual, by_row: as of `Metric`.
    """

    def add(function: ClassScore) -> ClassScore:
        def score(answers: Answers) -> float:
            return function(*pairs(answers.output, answers.source, answers.wanted))

        def of_rows(answers: Answers) -> Callable[[np.ndarray], float]:
            predicted, wanted = by_rows(answers)
            return lambda rows: function(predicted[rows].reshape(-1), wanted[rows].reshape(-1))

        def constant(answers: Answers) -> Constant:
            _, wanted = pairs(answers.source, answers.source, answers.wanted)
            names, counts = np.unique(wanted, return_counts=True)
            common = names[counts.argmax()]
            return Constant(function(np.full_like(wanted, common), wanted), shown(np.asarray([common])))

        register(
            Metric(
                name,
                summary_of(function),
                score,
                CHANGED,
                (0.0, 1.0),
                reads="classes",
                teaches="kl",
                constant=constant,
                doubt=never_predicted,
                usual=usual,
                by_row=by_row,
                of_rows=of_rows,
                classes=by_rows,
            )
        )
        return function

    return add


def by_rows(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    """Return predicted and wanted classes as [rows, pixels or tokens]; the latter is 1 for a class a row."""
    predicted, wanted = pairs(answers.output, answers.source, answers.wanted)
    rows = len(answers.output)
    return predicted.reshape(rows, -1), wanted.reshape(rows, -1)


def right(answers: Answers) -> np.ndarray:
    """Return for each row the share of its classes that are right: 0 or 1 where a row has one."""
    predicted, wanted = by_rows(answers)
    shares: np.ndarray = (predicted == wanted).mean(axis=1)
    return shares


def never_predicted(answers: Answers) -> str:
    """Name a common label that the source never gives; empty when there is none."""
    predicted, wanted = pairs(answers.source, answers.source, answers.wanted)
    for name, count in zip(*np.unique(wanted, return_counts=True), strict=True):
        if count >= NEVER_PREDICTED * wanted.size and not (predicted == name).any():
            return (
                f"label {shown(np.asarray([name]))} ({count} of {wanted.size}) is never predicted; "
                f"the source gives {shown(predicted)}"
            )
    return ""


@class_metric("accuracy", usual=True, by_row=right)
def accuracy(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Share of rows whose class is right."""
    return float((predicted == wanted).mean())


@class_metric("f1")
def macro_f1(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Mean F1 of the classes that occur in either, so that rare ones count as much as common ones (macro average)."""
    return _mean_by_class(predicted, wanted, lambda hits, given, right: 2 * hits / (given + right))


@class_metric("precision")
def macro_precision(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the rows given a class that are of it, the mean over the classes that occur in either (macro average);
    0 for a class that is never given."""
    return _mean_by_class(predicted, wanted, lambda hits, given, _: hits / max(given, 1))


@class_metric("recall")
def macro_recall(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the rows of a class that are given it, the mean over the classes that occur in either (macro average);
    0 for a class that no row is of."""
    return _mean_by_class(predicted, wanted, lambda hits, _, right: hits / max(right, 1))


@class_metric("balanced_accuracy")
def balanced_accuracy(predicted: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the rows of a class that are given it, the mean over the classes that labels hold."""
    return float(np.mean([(predicted[wanted == name] == name).mean() for name in np.unique(wanted)]))


def _mean_by_class(predicted: np.ndarray, wanted: np.ndarray, of: Callable[[float, float, float], float]) -> float:
    """Return the mean of a function of each class's counts: rows that are of it and given it, given it, of it."""
    scores = []
    for name in np.union1d(predicted, wanted):
        given, right = predicted == name, wanted == name
        scores.append(of(float((given & right).sum()), float(given.sum()), float(right.sum())))
    return float(np.mean(scores))
