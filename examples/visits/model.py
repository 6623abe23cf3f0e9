"""How often somebody will see a doctor in a year: the mean, and a number that nine of ten such people don't exceed.

A negative binomial model of counts. Its quantiles need the inverse of an incomplete beta function, which no operator of
ONNX computes, and a rule on top: who had no visit in the model's view of nine of ten gets the word for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import nbinom

Tensors = dict[str, np.ndarray]
BANDS = np.array(["none", "few", "many"], dtype=object)
MANY = 10


def load(folder: Path) -> Callable[[Tensors], Tensors]:
    """Read the coefficients, once a process, and return the function that answers batches."""
    fitted = json.loads((folder / "coefficients.json").read_text())
    weights, spread = np.array(fitted["weights"]), fitted["alpha"]

    def predict(rows: Tensors) -> Tensors:
        expected = np.exp(rows["person"].astype(np.float64) @ weights[1:] + weights[0])
        size = 1 / spread
        most = nbinom.ppf(0.9, size, size / (size + expected)).astype(np.int64)
        return {"expected": expected, "most": most, "band": BANDS[(most > 0).astype(int) + (most >= MANY)]}

    return predict
