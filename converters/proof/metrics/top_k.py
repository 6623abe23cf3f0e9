"""Whether a variant's k largest classes are those that they should be."""

from __future__ import annotations

import numpy as np

from hone.errors import RecipeError

from .of_classes import CHANGED
from .registry import Answers, Metric, register


def largest(output: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the k largest of the last axis, [rows, k], the largest first.

    Raises:
        RecipeError: they aren't scores of classes, or as few as k.
    """
    if output.ndim < 2 or output.dtype.kind not in "biuf":
        raise RecipeError("quality.metric: metrics of the k largest classes need numbers of shape [batch, classes]")
    if k >= output.shape[-1]:
        raise RecipeError(f"quality.k: {k} of {output.shape[-1]} classes always agree; set a smaller k")
    return np.argsort(-output.reshape(-1, output.shape[-1]), axis=1)[:, :k]


def top_k_agreement(output: np.ndarray, source: np.ndarray, k: int) -> np.ndarray:
    """Return the share of the source's k largest classes that are among the variant's k largest, of each row."""
    both = np.hstack([largest(output, k), largest(source, k)])
    both.sort(axis=1)
    shares: np.ndarray = (both[:, 1:] == both[:, :-1]).sum(axis=1) / k  # a class that is in both is there twice
    return shares.reshape(len(output), -1).mean(axis=1)


def _score(answers: Answers) -> float:
    return float(_by_row(answers).mean())


def _by_row(answers: Answers) -> np.ndarray:
    return top_k_agreement(answers.output, answers.source, answers.k)


register(
    Metric(
        "top_k_agreement",
        "Mean share of the source's `k` largest classes that are among the variant's `k` largest.",
        _score,
        CHANGED,
        (0.0, 1.0),
        needs_labels=False,
        reads="classes",
        teaches="kl",
        by_row=_by_row,
    )
)
