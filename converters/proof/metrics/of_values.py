"""Metrics of values: the output and the labels hold numbers, a label for each number of the output."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

import numpy as np

from hone.errors import RecipeError
from hone.evidence.bounds import r_squared

from .registry import Answers, Constant, Loss, Metric, register, summary_of

ValueRows = Callable[[np.ndarray, np.ndarray], np.ndarray]
ValueScore = Callable[[np.ndarray, np.ndarray], float]
"""(values, wanted), float64 and of one shape with rows on axis 0, to the number."""


def value_metric(
    name: str,
    *,
    bounds: tuple[float, float] = (0.0, inf),
    higher_is_better: bool = False,
    constant: Callable[..., np.ndarray] = np.mean,
    loss: Loss | None = None,
    usual: bool = False,
    by_row: ValueRows | None = None,
) -> Callable[[ValueScore], ValueScore]:
    """Register a function of values and the right ones as a metric; its docstring is the metric's description.

    Args:
        name: for recipes.
        bounds: as of `Metric`.
        higher_is_better: False for errors.
        constant: makes the best constant answer of the labels, as `numpy.mean` and `numpy.median` do.
        loss: as of `Metric`; default: the metric itself, against the model's own answers. An error grows by at most
            the distance between them.
        usual: as of `Metric`.
        by_row: of the same values, a number for each row, whose mean is the metric.
    """

    def add(function: ValueScore) -> ValueScore:
        def score(answers: Answers) -> float:
            return function(*numbers(answers.output, answers.wanted))

        def best_constant(answers: Answers) -> Constant:
            _, wanted = numbers(answers.source, answers.wanted)
            same = np.broadcast_to(constant(wanted, axis=0), wanted.shape)
            return Constant(function(same, wanted), f"the {constant.__name__} of the labels")

        register(
            Metric(
                name,
                summary_of(function),
                score,
                loss or _against_the_model(name, function),
                bounds,
                higher_is_better,
                reads="values",
                constant=best_constant,
                usual=usual,
                by_row=lambda answers: by_row(*numbers(answers.output, answers.wanted)) if by_row else None,
                of_rows=partial(_of_rows, function),
            )
        )
        return function

    return add


def _of_rows(function: ValueScore, answers: Answers) -> Callable[[np.ndarray], float]:
    values, wanted = numbers(answers.output, answers.wanted)
    return lambda rows: function(values[rows], wanted[rows])


def _against_the_model(name: str, function: ValueScore) -> Loss:
    return Loss(
        f"{name} against the float model",
        lambda got, own: function(got.astype(np.float64), own.astype(np.float64)),
        lambda own: float(np.abs(own).mean()),
    )


def numbers(output: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return output and labels as float64, in the output's shape.

    Raises:
        RecipeError: shapes differ by more than axes of one, or either holds NaN or no numbers.
    """
    shapes = [array.shape[:1] + tuple(size for size in array.shape[1:] if size != 1) for array in (output, labels)]
    if shapes[0] != shapes[1]:
        raise RecipeError(
            f"quality: the output has shape {list(output.shape)}, labels have {list(labels.shape)}; give a value of "
            "labels for each of the output"
        )
    for what, array in (("the output", output), ("labels", labels)):
        if array.dtype.kind not in "biuf":
            raise RecipeError(f"quality: {what} are no numbers but {array.dtype}; this metric takes numbers")
        if np.isnan(array.astype(np.float64)).any():
            raise RecipeError(f"quality: {what} hold NaN")
    return output.astype(np.float64), labels.reshape(output.shape).astype(np.float64)


def _row_means(values: np.ndarray) -> np.ndarray:
    means: np.ndarray = values.reshape(len(values), -1).mean(axis=1)
    return means


@value_metric("rmse", usual=True)
def rmse(values: np.ndarray, wanted: np.ndarray) -> float:
    """Root of the mean squared error, in the labels' unit."""
    return float(np.sqrt(np.mean((values - wanted) ** 2)))


@value_metric("mae", constant=np.median, by_row=lambda values, wanted: _row_means(np.abs(values - wanted)))
def mae(values: np.ndarray, wanted: np.ndarray) -> float:
    """Mean absolute error, in the labels' unit."""
    return float(np.mean(np.abs(values - wanted)))


@value_metric(
    "r2",
    bounds=(-inf, 1.0),
    higher_is_better=True,
    loss=Loss("1 - R squared to the float model", lambda got, own: 1 - _r_squared(got, own)),
)
def r2(values: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the labels' variance that the output explains (R squared): 1 for equal values, 0 for their mean; columns
    count by their variance."""
    return _r_squared(values, wanted)


def _r_squared(values: np.ndarray, wanted: np.ndarray) -> float:
    try:
        return r_squared(values, wanted)
    except ValueError:
        raise RecipeError(
            f"quality: what should be explained is the same in all {len(wanted)} row(s); give rows that differ, or "
            "take an error"
        ) from None
