"""Whether a variant's vectors point where the source's do: for embeddings, which are compared by their angle."""

from __future__ import annotations

import numpy as np

from hone.errors import RecipeError

from .registry import DEFAULT, Answers, Loss, Metric, register


def cosine(output: np.ndarray, source: np.ndarray) -> float:
    """Return the mean of `cosines`."""
    return float(cosines(output, source).mean())


def cosines(output: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Cosine similarity of each row; rows that are zero in both count as equal.

    Raises:
        RecipeError: rows hold one value, whose cosine is its sign, or text.
    """
    a, b = (array.reshape(len(array), -1) for array in (output, source))
    if b.dtype.kind in "UOS" or b.shape[1] < 2:
        what = "text" if b.dtype.kind in "UOS" else "one value a row, and the cosine of one value is its sign"
        raise RecipeError(f"quality.metric: the output has {what}; use {DEFAULT}, or a metric against labels")
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    products = (a * b).sum(axis=1)
    both_zero = ~a.any(axis=1) & ~b.any(axis=1)
    similar: np.ndarray = np.where(both_zero, 1.0, products / np.where(norms == 0, 1.0, norms))
    return similar


def _score(answers: Answers) -> float:
    return cosine(answers.output, answers.source)


register(
    Metric(
        "cosine",
        "Mean cosine similarity to the source's rows, which need two values or more: for embeddings.",
        _score,
        Loss("1 - cosine to the float model", lambda got, own: 1 - cosine(got, own)),
        (-1.0, 1.0),
        needs_labels=False,
        teaches="cosine",
        by_row=lambda answers: cosines(answers.output, answers.source),
    )
)
