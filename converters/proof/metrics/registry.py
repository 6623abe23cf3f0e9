"""What a metric is: a function from answers to one number, and what has to be known about it to use it in a proof.

A metric of a family is a few lines in a file of its own (or in the family's):

    @class_metric("accuracy")
    def accuracy(predicted: np.ndarray, wanted: np.ndarray) -> float:
        \"\"\"Share of rows whose class is right.\"\"\"
        return float((predicted == wanted).mean())

One that compares with the source's answers, or needs more than a family gives, uses `register`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Literal, Protocol

import numpy as np

from hone.recipe import QualitySpec

DEFAULT = QualitySpec().metric
"""What a recipe without a metric takes; for messages that say what else to use."""


@dataclass(frozen=True)
class Answers:
    """What a metric sees of a proof.

    Attributes:
        output: a variant's answers, rows on axis 0, in the shape and dtype of the signature.
        source: the source model's, which decide how both are read; of the same shape.
        labels: of these rows; None where the evaluation has none.
        k: of the recipe, for metrics of the k largest classes.
    """

    output: np.ndarray
    source: np.ndarray
    labels: np.ndarray | None = None
    k: int = 5

    def rows(self, rows: np.ndarray) -> Answers:
        """Return the answers to the rows of these numbers."""
        labels = None if self.labels is None else self.labels[rows]
        return Answers(self.output[rows], self.source[rows], labels, self.k)

    @property
    def wanted(self) -> np.ndarray:
        """The labels, for a metric that needs them: it is never asked without."""
        assert self.labels is not None
        return self.labels


@dataclass(frozen=True)
class Constant:
    """The best answer that looks at no input: a source that is no better can't tell a good variant from a broken one.

    Attributes:
        score: of that answer to every row.
        words: the answer, for messages.
    """

    score: float
    words: str


@dataclass(frozen=True)
class Loss:
    """What a metric may lose at most when a model is changed, where there are no labels: a distance between the changed
    model's answers and the model's own.

    Attributes:
        words: what is measured, for reports.
        of: (changed, own) outputs to the distance, 0 for equal ones, in the metric's unit.
        scale: a model's own output to the quality that a relative budget ('1%') is a share of.
    """

    words: str
    of: Callable[[np.ndarray, np.ndarray], float]
    scale: Callable[[np.ndarray], float] = lambda _: 1.0


class Score(Protocol):
    __doc__: str | None

    def __call__(self, answers: Answers, /) -> float: ...


@dataclass(frozen=True)
class Metric:
    """A registered metric.

    Attributes:
        name: how recipes call it.
        summary: what it measures, for the reference.
        score: gives the number; raises RecipeError, its text beginning with `quality` and the field, for answers or
            labels that it can't read.
        loss: how `quantize_mixed` measures what a change costs, without labels.
        bounds: the least and the largest number that it gives; infinite where there is none.
        higher_is_better: False for errors.
        needs_labels: False for those that compare with the source's answers.
        reads: what an output holds for it: `classes` (or scores of them), `probabilities` (of classes),
            `values`, or `any`.
        teaches: the loss that a student is trained with when a recipe has this metric: `kl` of softened classes, `mse`
            of values, `cosine` of directions.
        constant: the best constant answer to these labels; None where none makes sense.
        doubt: says what makes labels and the source's answers unlikely to belong together; empty when nothing does.
        usual: `hone init` writes it for models whose first output is of its kind.
        by_row: gives a number for each row, whose mean is the score; None where the score is no mean over rows.
        together: a row's number depends on the answers to other rows, too.
        classes: gives predicted and wanted classes, [rows, classes of a row]; None for a metric without.
        of_rows: reads answers once, and returns the score of any of their rows; by default each is read again.
    """

    name: str
    summary: str
    score: Score
    loss: Loss
    bounds: tuple[float, float] = (-inf, inf)
    higher_is_better: bool = True
    needs_labels: bool = True
    reads: Literal["classes", "probabilities", "values", "any"] = "any"
    teaches: Literal["kl", "mse", "cosine"] = "mse"
    constant: Callable[[Answers], Constant] | None = None
    doubt: Callable[[Answers], str] = lambda _: ""
    usual: bool = False
    by_row: Callable[[Answers], np.ndarray | None] = lambda _: None
    together: bool = False
    of_rows: Callable[[Answers], Callable[[np.ndarray], float]] | None = None
    classes: Callable[[Answers], tuple[np.ndarray, np.ndarray]] | None = None

    def scorer(self, answers: Answers) -> Callable[[np.ndarray], float]:
        """Return the score of any rows of the answers."""
        if self.of_rows is not None:
            return self.of_rows(answers)
        return lambda rows: self.score(answers.rows(rows))

    @property
    def best(self) -> float:
        """The number of a perfect model."""
        return self.bounds[1 if self.higher_is_better else 0]


_REGISTER: dict[str, Metric] = {}


def register(metric: Metric) -> None:
    """Add a metric.

    Raises:
        ValueError: another has its name.
    """
    if metric.name in _REGISTER:
        raise ValueError(f"metric '{metric.name}' is registered twice")
    _REGISTER[metric.name] = metric


def summary_of(function: Callable[..., object]) -> str:
    """Return the first paragraph of a function's docstring, in one line."""
    return " ".join((function.__doc__ or "").strip().split("\n\n")[0].split())


def registered() -> dict[str, Metric]:
    return _REGISTER
