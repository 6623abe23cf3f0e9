"""Rows that stand for those of a data set that must not be copied."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hone.signature import Tensors


def synthetic(data: Mapping[str, np.ndarray], count: int) -> Tensors | None:
    """Return random rows between each input's smallest and largest value, always the same; None: one is text."""
    generator = np.random.default_rng(0)
    made: Tensors = {}
    for name, array in data.items():
        shape = (count, *array.shape[1:])
        if array.dtype.kind == "f":
            finite = array[np.isfinite(array)]
            low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
            made[name] = generator.uniform(low, high, shape).astype(array.dtype)
        elif array.dtype.kind in "iu":
            made[name] = generator.integers(array.min(), array.max(), shape, array.dtype, endpoint=True)
        elif array.dtype.kind == "b":
            made[name] = generator.random(shape) < 0.5
        else:
            return None
    return made
