"""How much of what the source's answers tell is in a variant's: for models without labels."""

from __future__ import annotations

import numpy as np

from hone.errors import RecipeError
from hone.evidence.bounds import r_squared

from .registry import Answers, Loss, Metric, register


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


def _score(answers: Answers) -> float:
    return likeness(answers.output, answers.source)


def _equal(answers: Answers) -> np.ndarray | None:
    """Classes and texts are equal or not, a row at a time; what is explained of numbers is no mean over rows."""
    if answers.source.dtype.kind not in "biuUOS":
        return None
    same = answers.output.astype(answers.source.dtype) == answers.source
    shares: np.ndarray = same.reshape(len(same), -1).mean(axis=1)
    return shares


register(
    Metric(
        "likeness",
        "Share of the variance of the source's outputs over the rows that the variant's explain (R squared); for "
        "classes and text the share that is equal.",
        _score,
        Loss("1 - likeness to the float model", lambda got, own: 1 - likeness(got, own)),
        (-np.inf, 1.0),
        needs_labels=False,
        usual=True,
        by_row=_equal,
    )
)
