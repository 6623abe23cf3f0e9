"""How far a variant's answers are from the source's, whatever the recipe's metric."""

from __future__ import annotations

import numpy as np

from hone.signature import Tensors


def differences(outputs: Tensors, source: Tensors) -> tuple[float, float]:
    """Return (largest, mean) absolute difference over all numeric outputs; differing strings count as 1."""
    largest, total, count = 0.0, 0.0, 0
    for name, wanted in source.items():
        got = outputs[name]
        if wanted.dtype.kind in "UOS":
            gap = (got.astype(str) != wanted.astype(str)).astype(np.float64)
        else:
            gap = np.abs(got.astype(np.float64) - wanted.astype(np.float64))
        largest = max(largest, float(gap.max(initial=0.0)))
        total, count = total + float(gap.sum()), count + gap.size
    return largest, total / max(count, 1)
