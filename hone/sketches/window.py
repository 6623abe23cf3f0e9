"""Sketches of the rows of an hour: they merge, take no more room for more rows, and their files tell when broken.

They are those of Apache DataSketches: quantiles by KLL (Karnin, Lang and Liberty, Optimal quantile approximation in
streams, FOCS 2016), exact for the first few hundred rows, and frequent items for categories.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hone.errors import HoneError, UnavailableError, one_line
from hone.signature import Tensors

from .columns import Column, taken, texts
from .reference import Reference, References

MAGIC = b"HONE-DRIFT 1\n"
K = 256
"""Of KLL: a share is off by less than 1 %, 99 times of 100."""
LOG_ITEMS = 7
"""Logarithm of the slots for categories: 96 distinct ones are exact."""


class BrokenSketchError(HoneError):
    """A file of sketches that was cut off or changed. The message names it."""


@dataclass(frozen=True)
class About:
    """Whose rows a window's are.

    Attributes:
        model, version: that answered them.
        hour: since 1970, UTC.
        reference: sha256 of the artifact's reference, which says what its columns are.
    """

    model: str
    version: str
    hour: int
    reference: str = ""


@dataclass
class Window:
    """Sketches of rows, a column each.

    Attributes:
        about: whose they are.
        columns: in order.
        rows, requests: how many.
        squares: sum over requests of their rows squared.
        missing: [columns] rows without a value.
        sums: [columns, 3] of values, of their squares, and over requests of (their sum) squared / their rows.
    """

    about: About
    columns: tuple[Column, ...]
    rows: int = 0
    requests: int = 0
    squares: float = 0.0
    missing: np.ndarray = field(default_factory=lambda: np.zeros(0))
    sums: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    sketches: list[Any] = field(default_factory=list)

    @classmethod
    def empty(cls, about: About, columns: Sequence[Column]) -> Window:
        made = [new_sketch(column) for column in columns]
        return cls(
            about, tuple(columns), missing=np.zeros(len(columns)), sums=np.zeros((len(columns), 3)), sketches=made
        )

    def add(self, references: References, requests: Sequence[tuple[Tensors, Tensors]]) -> None:
        """Add the rows of requests, given as inputs and outputs."""
        for inputs, outputs, sizes in _joined(requests):
            numbers, words = taken(self.columns, inputs, outputs), iter(texts(self.columns, inputs, outputs))
            marks = np.zeros_like(numbers)
            for place, (column, reference) in enumerate(zip(self.columns, references.columns, strict=True)):
                if column.category:
                    marks[:, place] = self._add_words(place, next(words), reference)
                else:
                    values = numbers[:, place]
                    present = values[~np.isnan(values)]
                    self.missing[place] += len(values) - len(present)
                    self.sketches[place].update(np.ascontiguousarray(present))
                    marks[:, place] = np.clip(np.nan_to_num(values), reference.low, reference.high)
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(int)
            together = np.add.reduceat(marks, starts, axis=0) ** 2 / sizes[:, None]
            self.sums += np.stack([marks.sum(axis=0), (marks**2).sum(axis=0), together.sum(axis=0)], axis=1)
            self.rows += int(sizes.sum())
            self.requests += len(sizes)
            self.squares += float((sizes.astype(float) ** 2).sum())

    def _add_words(self, place: int, words: np.ndarray, reference: Reference) -> np.ndarray:
        """Add categories; return where they are the most frequent one."""
        present = words[words != ""]
        self.missing[place] += len(words) - len(present)
        for name, count in zip(*np.unique(present, return_counts=True), strict=True):
            self.sketches[place].update(str(name), int(count))
        first = reference.categories[0] if reference.categories else ""
        return (words == first).astype(float)

    def merge(self, other: Window) -> None:
        """Add the rows of another window.

        Raises:
            ValueError: it has other columns.
        """
        if other.columns != self.columns:
            raise ValueError("windows of other columns can't be merged")
        for ours, theirs in zip(self.sketches, other.sketches, strict=True):
            ours.merge(theirs)
        self.missing = self.missing + other.missing
        self.sums = self.sums + other.sums
        self.rows += other.rows
        self.requests += other.requests
        self.squares += other.squares

    def quantiles(self, place: int, levels: np.ndarray) -> np.ndarray:
        """Return quantiles of a column of numbers; empty where it has no value."""
        sketch = self.sketches[place]
        return np.array([]) if sketch.is_empty() else np.array(sketch.get_quantiles(levels.tolist(), True))

    def most_frequent(self, place: int, count: int) -> list[tuple[str, int]]:
        """Return the most frequent categories of a column with their rows."""
        kind = _library().frequent_items_error_type.NO_FALSE_POSITIVES
        return [(item[0], int(item[1])) for item in self.sketches[place].get_frequent_items(kind)[:count]]

    def encode(self) -> bytes:
        """Return a file: a line of JSON, the sketches, and the sha256 of both."""
        parts = [sketch.serialize() for sketch in self.sketches]
        head = {
            "about": self.about.__dict__,
            "columns": [column.model_dump() for column in self.columns],
            "rows": self.rows,
            "requests": self.requests,
            "squares": self.squares,
            "missing": self.missing.tolist(),
            "sums": self.sums.tolist(),
            "sizes": [len(part) for part in parts],
        }
        body = b"".join([MAGIC, json.dumps(head).encode(), b"\n", *parts])
        return body + hashlib.sha256(body).digest()


def decode(content: bytes, where: object) -> Window:
    """Return the window of a file's content.

    The sum at its end finds what was cut off or has rotted; whoever may write the folder is trusted.

    Raises:
        BrokenSketchError: it is broken, or of another version of the format.
    """
    body, digest = content[:-32], content[-32:]
    if not body.startswith(MAGIC):
        raise BrokenSketchError(f"{where}: no sketches of this version of the format")
    if hashlib.sha256(body).digest() != digest:
        raise BrokenSketchError(f"{where}: broken, its sum is not the one at its end")
    line, _, rest = body[len(MAGIC) :].partition(b"\n")
    try:
        head = json.loads(line)
        window = Window.empty(About(**head["about"]), [Column(**column) for column in head["columns"]])
        window.rows, window.requests, window.squares = head["rows"], head["requests"], head["squares"]
        window.missing, window.sums = np.array(head["missing"], float), np.array(head["sums"], float).reshape(-1, 3)
        ends = np.cumsum(head["sizes"]).tolist()
        for place, (size, end) in enumerate(zip(head["sizes"], ends, strict=True)):
            window.sketches[place] = type(window.sketches[place]).deserialize(rest[end - size : end])
    except UnavailableError:
        raise
    except Exception as error:  # noqa: BLE001 - what pydantic, json and the library raise of it is of many kinds
        raise BrokenSketchError(f"{where}: broken, {one_line(error)}") from None
    return window


def new_sketch(column: Column) -> Any:
    library = _library()
    return library.frequent_strings_sketch(LOG_ITEMS) if column.category else library.kll_doubles_sketch(K)


def _joined(requests: Sequence[tuple[Tensors, Tensors]]) -> list[tuple[Tensors, Tensors, np.ndarray]]:
    """Return requests of equal shapes joined, with the rows of each."""
    alike: dict[tuple[Any, ...], list[tuple[Tensors, Tensors]]] = {}
    for inputs, outputs in requests:
        rows = len(next(iter(inputs.values())))
        shapes = tuple(
            (name, array.shape[1:], array.dtype.kind, array.ndim > 0 and len(array) == rows)
            for tensors in (inputs, outputs)
            for name, array in tensors.items()
        )
        alike.setdefault(shapes, []).append((inputs, outputs))
    return [
        (
            _stacked([inputs for inputs, _ in group]),
            _stacked([outputs for _, outputs in group]),
            np.array([len(next(iter(inputs.values()))) for inputs, _ in group]),
        )
        for group in alike.values()
    ]


def _stacked(parts: Sequence[Mapping[str, np.ndarray]]) -> Tensors:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0] if parts[0][name].ndim}


def _library() -> Any:
    """Return DataSketches.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        import datasketches
    except ImportError:
        raise UnavailableError("datasketches is not installed", "pip install 'hone[ops]'") from None
    return datasketches
