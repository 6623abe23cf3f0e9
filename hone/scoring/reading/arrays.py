"""NumPy's files: .npz with an array an input, .npy with that of a model's one input; the rows are on axis 0."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import ScoreError
from .base import RowFile, Rows, register


@register(".npz")
class Npz(RowFile):
    """An archive of arrays; the ones that are asked for are in memory."""

    def _load(self, names: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in (archive.files if names is None else names)}
        except Exception as error:  # noqa: BLE001 - zip, zlib, pickle and header errors alike
            raise self.broken(error, self.suffixes[0]) from None
        for name, array in arrays.items():
            if not array.ndim:
                raise ScoreError(f"{self.path}: '{name}' is one value; give an array with the rows on axis 0")
        lengths = {name: len(array) for name, array in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise ScoreError(f"{self.path}: rows differ: {', '.join(f'{name} {n}' for name, n in lengths.items())}")
        return arrays

    @cached_property
    def _names(self) -> list[str]:
        try:
            with np.load(self.path, allow_pickle=False) as archive:
                return list(archive.files)
        except Exception as error:  # noqa: BLE001 - likewise
            raise self.broken(error, self.suffixes[0]) from None

    @property
    def names(self) -> list[str]:
        return self._names

    def count(self) -> int:
        names = self.names
        return len(self._load(names[:1])[names[0]]) if names else 0

    def read(self, columns: Sequence[str], start: int, stop: int | None, size: int) -> Iterator[Rows]:
        arrays = self._load(columns)
        yield from _sliced(arrays, start, stop, size)


ONLY = "rows"
"""What the one array of an .npy file is called."""


@register(".npy")
class Npy(RowFile):
    """One array, mapped rather than read."""

    def _load(self) -> np.ndarray:
        try:
            array: np.ndarray = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except Exception as error:  # noqa: BLE001 - header and pickle errors alike
            raise self.broken(error, ".npy") from None
        if not array.ndim:
            raise ScoreError(f"{self.path}: it is one value; give an array with the rows on axis 0")
        return array

    @property
    def names(self) -> list[str]:
        return [ONLY]

    @property
    def rows(self) -> int:
        return self.count()

    def count(self) -> int:
        return len(self._load())

    def read(self, columns: Sequence[str], start: int, stop: int | None, size: int) -> Iterator[Rows]:
        yield from _sliced({ONLY: self._load()}, start, stop, size)


def _sliced(arrays: dict[str, np.ndarray], start: int, stop: int | None, size: int) -> Iterator[Rows]:
    import pyarrow as pa

    rows = len(next(iter(arrays.values()))) if arrays else 0
    stop = rows if stop is None else min(stop, rows)
    for first in range(start, stop, size):
        parts = {name: array[first : min(first + size, stop)] for name, array in arrays.items()}
        yield Rows(first, pa.table({name: as_arrow(array) for name, array in parts.items()}))


def as_arrow(array: np.ndarray) -> Any:
    """Return an array [rows, …] as Arrow has it: a value a row, or fixed-size lists, one in another an axis."""
    import pyarrow as pa

    if array.dtype.kind in "OUS":
        flat = array.reshape(-1).tolist()
        if flat and isinstance(flat[0], bytes) and array.dtype.kind == "S":
            flat = [item.decode() for item in flat]
        found = pa.array(flat, None if flat else pa.string())
    else:
        found = pa.array(np.ascontiguousarray(array).reshape(-1))
    for size in reversed(array.shape[1:]):
        found = pa.FixedSizeListArray.from_arrays(found, size)
    return found
