"""Can a metric tell anything? Asked of the source's own answers, before any pass has run.

A metric that gives the same number to right and to wrong answers passes every broken variant, and nobody would see it.
"""

from __future__ import annotations

import numpy as np

from hone.errors import RecipeError
from hone.evidence.bounds import shuffles

from .labels import pairs, shown
from .metrics import Metric, Outputs, errors, macro_f1

FEWEST_ROWS = 8
"""With fewer rows a shuffled order may score as well by chance."""
ENOUGH_ROWS = 50
"""From so many rows on, a source that is no better than a constant answer is no accident."""
SHUFFLES = 3
ROUNDING = 1e-6
NEVER_PREDICTED = 0.05
"""A class with this share of the rows that the source never gives is most likely no class of the model's."""


def check_metric(metric: Metric, source: Outputs, labels: np.ndarray | None, skip: bool = False) -> float:
    """Return the source's score, after checks that the metric tells its answers from wrong ones.

    Args:
        metric: the recipe's.
        source: the source's answers to the evaluation rows.
        labels: of these rows, or None.
        skip: compute the score alone; the recipe says why in `quality.skip_checks`.

    Raises:
        RecipeError: the metric fails or gives no number; shuffled answers score as well as the source's; the source is
            no better than a constant answer; or a common label is never predicted.
    """
    score = metric.score(source, source, labels)
    if skip:
        return score
    remedy = "; if that is right, say why in quality.skip_checks"
    problem = _constant(metric, source, labels, score) or _shuffled(metric, source, labels, score)
    if problem:
        raise RecipeError(f"{metric.field}: {problem}{remedy}")
    return score


def _shuffled(metric: Metric, source: Outputs, labels: np.ndarray | None, score: float) -> str:
    """Give the rows another order: each answer then belongs to another row, and most are wrong."""
    rows = len(next(iter(source.values())))
    if rows < FEWEST_ROWS:
        return ""
    orders = shuffles(rows, SHUFFLES)
    scores = [metric.score({name: _ordered(array, order, rows) for name, array in source.items()}, source, labels)
              for order in orders]  # fmt: skip
    mean = float(np.mean(scores))
    rounding = ROUNDING * max(abs(score), abs(mean))
    if metric.drop(score, mean) > rounding:
        return ""
    if all(abs(other - score) <= rounding for other in scores):
        return f"{metric.name} is {score:.4g} for the source's answers, and the same when its rows are shuffled"
    hint = "" if metric.output else "; for an error set quality.higher_is_better: false"
    better = "higher" if metric.higher_is_better else "lower"
    return (
        f"{metric.name} is {score:.4g} for the source's answers and {mean:.4g}, no worse, when its rows are shuffled "
        f"({better} counts as better{hint})"
    )


def _ordered(array: np.ndarray, order: np.ndarray, rows: int) -> np.ndarray:
    return array[order] if array.ndim and len(array) == rows else array


def _constant(metric: Metric, source: Outputs, labels: np.ndarray | None, score: float) -> str:
    """Compare the source with a constant: the most common class, or the mean (for mae the median) of the labels."""
    if labels is None or len(labels) < ENOUGH_ROWS or not metric.output:
        return ""
    output = source[metric.output]
    if metric.name in ("rmse", "mae"):
        middle = np.mean if metric.name == "rmse" else np.median
        wanted = labels.reshape(output.shape).astype(np.float64)
        gaps = errors(np.broadcast_to(middle(wanted, axis=0), wanted.shape), wanted)
        chance = float(np.sqrt(np.mean(gaps**2)) if metric.name == "rmse" else np.mean(np.abs(gaps)))
        return _no_better(metric, score, chance, f"the {middle.__name__} of the labels")
    if metric.name not in ("accuracy", "f1"):
        return ""
    predicted, classes = pairs(output, output, labels)
    names, counts = np.unique(classes, return_counts=True)
    for name, count in zip(names, counts, strict=True):
        if count >= NEVER_PREDICTED * classes.size and not (predicted == name).any():
            return (
                f"label {shown(np.asarray([name]))} ({count} of {classes.size}) is never predicted; "
                f"the source gives {shown(predicted)}"
            )
    common = names[counts.argmax()]
    always = np.full_like(classes, common)
    chance = float((always == classes).mean()) if metric.name == "accuracy" else macro_f1(always, classes)
    return _no_better(metric, score, chance, shown(np.asarray([common])))


def _no_better(metric: Metric, score: float, chance: float, answer: str) -> str:
    if metric.drop(score, chance) > 0:
        return ""
    return (
        f"the source's {metric.name} of {score:.4g} is no better than answering {answer} to every row ({chance:.4g}), "
        "so it can't tell a good variant from a broken one; check the labels, or choose another metric"
    )
