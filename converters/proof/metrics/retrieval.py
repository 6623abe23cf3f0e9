"""Whether the nearest row is one of the same kind: for embeddings that are searched."""

from __future__ import annotations

import numpy as np

from hone.errors import RecipeError

from .registry import Answers, Loss, Metric, register

CHUNK = 1024
"""Rows that are compared with all others at a time."""


def nearest(output: np.ndarray) -> np.ndarray:
    """Return for each row the number of the other row whose direction is nearest (largest cosine).

    Raises:
        RecipeError: the output is no vector a row, or there is one row only.
    """
    if output.dtype.kind != "f" or output.ndim < 2 or len(output) < 2:
        raise RecipeError("quality.metric: rank1 needs two rows or more, and vectors of shape [batch, size]")
    flat = output.reshape(len(output), -1).astype(np.float64)
    units = flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    found = []
    for start in range(0, len(units), CHUNK):
        likeness = units[start : start + CHUNK] @ units.T
        likeness[np.arange(len(likeness)), start + np.arange(len(likeness))] = -np.inf
        found.append(likeness.argmax(axis=1))
    return np.concatenate(found)


def _by_row(answers: Answers) -> np.ndarray:
    labels = answers.wanted
    if labels.ndim != 1:
        raise RecipeError(f"quality: labels have shape {list(labels.shape)}; rank1 needs one a row")
    hits: np.ndarray = (labels[nearest(answers.output)] == labels).astype(np.float64)
    return hits


register(
    Metric(
        "rank1",
        "Share of rows whose nearest other row, by cosine, has the same label (rank-1 of retrieval).",
        lambda answers: float(_by_row(answers).mean()),
        Loss(
            "share of rows whose nearest other row changes",
            lambda got, own: float((nearest(got) != nearest(own)).mean()),
        ),
        (0.0, 1.0),
        reads="classes",
        teaches="cosine",
        by_row=_by_row,
        together=True,
    )
)
