"""How many rows a batch has: as many as the plan allows, or as the callers' time does."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

BATCH_SHARE = 1 / 3
"""Of its callers' time that a batch may take where smaller ones serve as much: one runs, one gathers, and some time is
left over."""

AS_MUCH = 0.9
"""Of the rows/s of a full batch that is as good."""


class Bucket(NamedTuple):
    """Works of one bucket may share a batch.

    Attributes:
        key: what they have in common: the sizes of their dynamic axes, rounded up where rows can be padded.
        row_size: elements of a row along those axes, for the latency model.
    """

    key: tuple[int, ...] = ()
    row_size: int = 1


def instant(_: int, __: int) -> float:
    return 0.0


class BatchSizes:
    """The rows of one model's batches.

    Args:
        rows: of one call of the runtime at most.
        cells: of one call at most, rows times the size of a row: long rows make small batches. 0: no limit.
        predict: seconds of a batch by row size and rows.
    """

    def __init__(self, rows: int, cells: int = 0, predict: Callable[[int, int], float] = instant) -> None:
        self._rows, self._cells, self._predict = rows, cells, predict
        self._least: dict[int, int] = {}
        """Rows of the smallest batch that serves as much, by the size of a row."""

    def limit(self, bucket: Bucket) -> int:
        """Return the most rows of a batch from this bucket."""
        if not self._cells:
            return self._rows
        return min(self._rows, max(1, self._cells // bucket.row_size))

    def timely(self, bucket: Bucket, time_s: float) -> int:
        """Return the most rows of a batch whose callers have so much time from their arrival to their answer.

        A full batch that takes most of that time leaves none to wait for the one before it, and each stall of the host
        makes it late. Where fewer rows serve as much, in shorter batches, they are the better batch.
        """
        rows, size = self.limit(bucket), bucket.row_size
        takes_s = self._predict(size, rows)
        least = self._least.get(size, 0)
        if not least and takes_s:
            least = self._least[size] = self._fewest(size, rows)
        while takes_s > BATCH_SHARE * time_s and rows // 2 >= least:
            rows //= 2
            takes_s = self._predict(size, rows)
        return rows

    def _fewest(self, row_size: int, rows: int) -> int:
        """Return the fewest rows of a batch that serves as much as a full one, as far as is known at first.

        Later predictions don't count: a stall of the host makes those of one size long, and others shine beside it.
        """
        enough = AS_MUCH * rows / self._predict(row_size, rows)
        while rows > 1 and rows // 2 >= enough * self._predict(row_size, rows // 2):
            rows //= 2
        return rows
