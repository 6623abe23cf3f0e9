"""Can a metric tell anything? Asked of the source's own answers, before any pass has run.

A metric that gives the same number to right and to wrong answers passes every broken variant, and nobody would see it.
"""

from __future__ import annotations

import numpy as np

from hone.errors import RecipeError
from hone.evidence.bounds import shuffles
from hone.signature import Tensors

from .judge import Judge
from .metrics import Answers

FEWEST_ROWS = 8
"""With fewer rows a shuffled order may score as well by chance."""
ENOUGH_ROWS = 50
"""From so many rows on, a source that is no better than a constant answer is no accident."""
SHUFFLES = 3
ROUNDING = 1e-6


def check_metric(judge: Judge, source: Tensors, labels: np.ndarray | None, skip: bool = False) -> float:
    """Return the source's score, after checks that the metric tells its answers from wrong ones.

    Args:
        judge: the recipe's.
        source: the source's answers to the evaluation rows.
        labels: of these rows, or None.
        skip: compute the score alone; the recipe says why in `quality.skip_checks`.

    Raises:
        RecipeError: the metric fails or gives no number; shuffled answers score as well as the source's; the source is
            no better than a constant answer; or a common label is never predicted.
    """
    score = judge.score(source, source, labels)
    if skip:
        return score
    remedy = "; if that is right, say why in quality.skip_checks"
    problem = _constant(judge, source, labels, score) or _shuffled(judge, source, labels, score)
    if problem:
        raise RecipeError(f"{judge.field}: {problem}{remedy}")
    return score


def _shuffled(judge: Judge, source: Tensors, labels: np.ndarray | None, score: float) -> str:
    """Give the rows another order: each answer then belongs to another row, and most are wrong."""
    rows = len(next(iter(source.values())))
    if rows < FEWEST_ROWS:
        return ""
    orders = shuffles(rows, SHUFFLES)
    scores = [judge.score({name: _ordered(array, order, rows) for name, array in source.items()}, source, labels)
              for order in orders]  # fmt: skip
    mean = float(np.mean(scores))
    rounding = ROUNDING * max(abs(score), abs(mean))
    if judge.drop(score, mean) > rounding:
        return ""
    if all(abs(other - score) <= rounding for other in scores):
        return f"{judge.name} is {score:.4g} for the source's answers, and the same when its rows are shuffled"
    hint = "" if judge.metric else "; for an error set quality.higher_is_better: false"
    better = "higher" if judge.higher_is_better else "lower"
    return (
        f"{judge.name} is {score:.4g} for the source's answers and {mean:.4g}, no worse, when its rows are shuffled "
        f"({better} counts as better{hint})"
    )


def _ordered(array: np.ndarray, order: np.ndarray, rows: int) -> np.ndarray:
    return array[order] if array.ndim and len(array) == rows else array


def _constant(judge: Judge, source: Tensors, labels: np.ndarray | None, score: float) -> str:
    """Compare the source with the best answer that looks at no input, such as the most common class."""
    metric = judge.metric
    if labels is None or len(labels) < ENOUGH_ROWS or metric is None or metric.constant is None:
        return ""
    output = source[judge.output]
    answers = Answers(output, output, labels, judge.k)
    if doubt := metric.doubt(answers):
        return doubt
    constant = metric.constant(answers)
    if judge.drop(score, constant.score) > 0:
        return ""
    return (
        f"the source's {judge.name} of {score:.4g} is no better than answering {constant.words} to every row "
        f"({constant.score:.4g}), so it can't tell a good variant from a broken one; check the labels, or choose "
        "another metric"
    )
