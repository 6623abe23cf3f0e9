"""What boosted trees of every framework take and give: a matrix of features; labels and probabilities, or a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def feature_matrix(inputs: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Return the inputs beside each other, in the order of their names: [rows, features]."""
    columns = [inputs[name] for name in names]
    return np.hstack([column.reshape(len(column), -1) for column in columns])


def binary_outputs(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return `label` (int64) and `probabilities` [rows, 2] of the second class's probabilities [rows]."""
    pairs = np.stack([1 - values, values], axis=1)
    return {"label": (values > 0.5).astype(np.int64), "probabilities": pairs}


def class_outputs(values: np.ndarray) -> dict[str, np.ndarray]:
    """Return `label` (int64) and `probabilities` of the classes' probabilities [rows, classes]."""
    return {"label": values.argmax(axis=1).astype(np.int64), "probabilities": values}
