"""What is counted in plain Python between two flushes: the bins of a histogram, and figures of sampled requests."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import numpy as np

from hone.signature import Tensors

from ..protocols.tensors import row_count

MAX_CLASSES = 100
"""Of an output with more classes the predicted ones aren't counted: each would be a time series."""


class Tally:
    """A histogram's counts since the last flush."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    @property
    def total(self) -> tuple[int, float]:
        """How many values came since the last flush, and their sum."""
        return sum(self._counts), self._sum

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def observe_many(self, values: np.ndarray) -> None:
        """Count values [n] at once."""
        places = np.searchsorted(self._bounds, values, "left")
        found = np.bincount(places, minlength=len(self._counts)).tolist()
        self._counts = [old + new for old, new in zip(self._counts, found, strict=True)]
        self._sum += float(values.sum())

    def flush(self, histogram: Any) -> None:
        """Add the counts to a client library's histogram of the same bounds, and start anew.

        The library adds one observation at a time only; its buckets are counters, so many are added at once there
        (a test compares the exposition with observations made one by one).
        """
        if not any(self._counts):
            return
        for bucket, count in zip(histogram._buckets, self._counts, strict=True):
            if count:
                bucket.inc(count)
        histogram._sum.inc(self._sum)
        self._counts = [0] * len(self._counts)
        self._sum = 0.0


class DriftSample:
    """What is summed up of sampled requests: mean and spread of each input, counts of the classes predicted.

    Attributes:
        rows: in it. `/metrics` is open, and of a few rows a mean would tell what somebody's row held.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._inputs: dict[str, tuple[int, float, float]] = {}
        self._classes: dict[tuple[str, int], int] = {}

    def add(self, inputs: Tensors, outputs: Tensors) -> None:
        """Add a request."""
        self.rows += row_count(inputs)
        for name, array in inputs.items():
            if array.dtype.kind not in "biuf":
                continue
            values = array[np.isfinite(array)].astype(np.float64) if array.dtype.kind == "f" else array.astype(float)
            if values.size:
                self._inputs[name] = _joined(
                    self._inputs.get(name, (0, 0.0, 0.0)),
                    (values.size, float(values.mean()), float(np.square(values - values.mean()).sum())),
                )
        for name, array in outputs.items():
            if array.ndim == 2 and 1 < array.shape[1] <= MAX_CLASSES and array.dtype.kind == "f":
                for chosen, count in zip(*np.unique(array.argmax(axis=1), return_counts=True), strict=True):
                    key = (name, int(chosen))
                    self._classes[key] = self._classes.get(key, 0) + int(count)

    def show(self, families: dict[str, Any], labels: dict[str, str]) -> None:
        """Set the gauges and add to the counters."""
        for name, (count, mean, squares) in self._inputs.items():
            families["mean"].labels(**labels, input=name).set(mean)
            families["deviation"].labels(**labels, input=name).set((squares / count) ** 0.5)
        for (name, chosen), count in self._classes.items():
            families["classes"].labels(**labels, output=name, choice=str(chosen)).inc(count)


def _joined(first: tuple[int, float, float], second: tuple[int, float, float]) -> tuple[int, float, float]:
    """Return (count, mean, sum of squared deviations) of two samples together (Chan, Golub and LeVeque, 1979)."""
    (n, mean, squares), (m, other_mean, other_squares) = first, second
    gap, total = other_mean - mean, n + m
    return total, mean + gap * m / total, squares + other_squares + gap * gap * n * m / total
