"""Figures of a value over many batches, in memory that doesn't grow with the rows."""

from __future__ import annotations

import numpy as np

SAMPLE = 50_000
"""Values that percentiles are taken from."""
NEAR = 0.01
"""Of the ends of a sigmoid and of tanh: a value so near has hardly a slope left."""
PERCENTILES = ("0.1", "1", "50", "99", "99.9")
STEPS = 255


class Statistics:
    """Sums, ends and a sample of a value.

    Args:
        axis: that units lie on, of arrays with the batch on axis 0; None: there are none.
        ends: of a function that saturates.
    """

    def __init__(self, axis: int | None, ends: tuple[float, float] | None = None) -> None:
        self._axis, self._ends = axis, ends
        self.shape: tuple[int, ...] = ()
        self.count = self.zero = self.near = self.not_finite = 0
        self.least, self.most = np.inf, -np.inf
        self._sum = self._squares = 0.0
        self.largest: np.ndarray | None = None
        """Of each channel, its largest magnitude."""
        self._sample: list[np.ndarray] = []
        self._every = 1

    def add(self, array: np.ndarray) -> None:
        """Take in a batch of floats."""
        self.shape = array.shape[1:]
        values = array.astype(np.float64, copy=False)
        finite = np.isfinite(values)
        if not finite.all():
            self.not_finite += int((~finite).sum())
            values = np.where(finite, values, 0.0)
            flat = values[finite]
        else:
            flat = values.ravel()
        self._add_channels(values)
        if not flat.size:
            return
        self.count += flat.size
        self.zero += int((flat == 0).sum())
        self.least, self.most = min(self.least, float(flat.min())), max(self.most, float(flat.max()))
        self._sum += float(flat.sum())
        self._squares += float(np.square(flat).sum())
        if self._ends is not None:
            low, high = self._ends
            self.near += int(((flat < low + NEAR) | (flat > high - NEAR)).sum())
        self._add_sample(flat)

    def _add_channels(self, values: np.ndarray) -> None:
        axis = self._channel_axis(values.ndim)
        if axis is None:
            return
        rest = tuple(other for other in range(values.ndim) if other != axis)
        found = np.abs(values).max(rest)
        if self.largest is None or len(self.largest) == len(found):
            self.largest = found if self.largest is None else np.maximum(self.largest, found)

    def _channel_axis(self, rank: int) -> int | None:
        """Return the axis of units; a value of one axis beside the batch has them there."""
        if rank == 2:
            return 1
        return None if self._axis is None or rank < 2 else self._axis % rank

    def _add_sample(self, flat: np.ndarray) -> None:
        """Keep every n-th value; once that is too many, every second of them, and so on."""
        self._sample.append(flat[:: self._every].astype(np.float32))
        while sum(map(len, self._sample)) > SAMPLE:
            self._sample = [np.concatenate(self._sample)[::2]]
            self._every *= 2

    @property
    def mean(self) -> float:
        return self._sum / self.count

    @property
    def std(self) -> float:
        return float(np.sqrt(max(0.0, self._squares / self.count - self.mean**2)))

    def percentiles(self) -> dict[str, float]:
        found = np.percentile(np.concatenate(self._sample), [float(name) for name in PERCENTILES])
        return dict(zip(PERCENTILES, map(float, found), strict=True))

    def noise(self, least: float, most: float) -> float | None:
        """Return the error of int8 steps over a range, and of what is cut off by it, as a share of the deviation."""
        if self.std <= 1e-6 * max(abs(self.least), abs(self.most)):
            return None  # one value, but for rounding
        least, most = min(least, 0.0), max(most, 0.0)  # zero has a step of its own
        step = (most - least) / STEPS
        sample = np.concatenate(self._sample).astype(np.float64)
        cut = float(np.square(sample - np.clip(sample, least, most)).mean())
        return float(np.sqrt(step**2 / 12 + cut)) / self.std
