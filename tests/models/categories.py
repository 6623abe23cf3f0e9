"""Tables with columns of categories, and what trees learn from them."""

from __future__ import annotations

import numpy as np


def categories(rows: int, count: int, missing: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return float32[rows, 3] (one of `count` categories, a number, one of 7 categories) and what to learn: 0 or 1."""
    generator = np.random.default_rng(7)
    many, few = generator.integers(0, count, rows), generator.integers(0, 7, rows)
    number = generator.normal(size=rows)
    target = (many * 7 % 11 > 5) ^ (number > 0) ^ (few % 3 == 1)
    matrix = np.stack([many, number, few], axis=1).astype(np.float32)
    if missing:
        matrix[generator.random(matrix.shape) < 0.1] = np.nan
    return matrix, target.astype(int)


def odd_categories(count: int) -> np.ndarray:
    """Return rows as of `categories`, with values that are no category, or none that was seen."""
    odd = [np.nan, -0.5, -1, -3, 0.5, 2.7, count, count + 64, 1e6, 3e9, -3e9, 1e30, np.inf, -np.inf]
    rows = [categories(20, count, False)[0] for _ in odd]
    for column in (0, 2):
        for value, matrix in zip(odd, rows, strict=True):
            matrix[column::2, column] = value
    return np.concatenate(rows)
