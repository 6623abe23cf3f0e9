"""JSON, an object a line; lists are tensors' rows, and the bytes of files are base64, as in requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import orjson

from hone.errors import one_line

from .base import RowFile, Rows, register

KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}


@register(".jsonl", ".ndjson")
class JsonLines(RowFile):
    """Empty lines are no rows; a key that a line lacks is null."""

    @contextmanager
    def _open(self) -> Iterator[Iterator[bytes]]:
        try:
            with self.path.open("rb") as stream:
                yield (line for line in stream if line.strip())
        except OSError as error:
            raise self.broken(error, ".jsonl") from None

    @property
    def names(self) -> list[str]:
        with self._open() as lines:
            for line in lines:
                row, _ = _parsed(line)
                if row:
                    return list(row)
        return []

    def count(self) -> int:
        with self._open() as lines:
            return sum(1 for _ in lines)

    def read(self, columns: Sequence[str], start: int, stop: int | None, size: int) -> Iterator[Rows]:
        with self._open() as lines:
            wanted, first = islice(lines, start, stop), start
            while found := list(islice(wanted, size)):
                yield _rows(first, found, columns)
                first += len(found)


def _parsed(line: bytes) -> tuple[dict[str, Any], str]:
    """Return the object in a line, or why there is none."""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        return {}, f"it is not JSON: {one_line(error)}"
    return (row, "") if isinstance(row, dict) else ({}, "it is JSON, but no object")


def _rows(first: int, lines: list[bytes], columns: Sequence[str]) -> Rows:
    import pyarrow as pa

    parsed = [_parsed(line) for line in lines]
    broken = {place: why for place, (_, why) in enumerate(parsed) if why}
    arrays = []
    for name in columns:
        values = [row.get(name) for row, _ in parsed]
        try:
            arrays.append(pa.array(values))
        except (pa.ArrowException, OverflowError, TypeError):
            arrays.append(pa.array(_of_one_kind(name, values, broken)))
    return Rows(first, pa.table(arrays, names=list(columns)), broken)


def _of_one_kind(name: str, values: list[Any], broken: dict[int, str]) -> list[Any]:
    """Return values of the kind that most rows have, and note the others; null where they differ inside, too."""
    import pyarrow as pa

    kinds = [KINDS.get(type(value), "null") for value in values]
    most = Counter(kind for kind in kinds if kind != "null").most_common(1)[0][0]
    kept = []
    for place, (value, kind) in enumerate(zip(values, kinds, strict=True)):
        if kind not in (most, "null"):
            broken.setdefault(place, f"'{name}' is {kind}, where most rows have {most}")
            value = None
        kept.append(value)
    try:
        pa.array(kept)
    except (pa.ArrowException, OverflowError, TypeError):
        for place, value in enumerate(kept):
            try:
                pa.array([value], pa.float64() if most == "a number" else pa.list_(pa.float64()))
            except (pa.ArrowException, OverflowError, TypeError):
                broken.setdefault(place, f"'{name}' can't be read beside the other rows' values")
                kept[place] = None
        return [float(value) if isinstance(value, int) else value for value in kept]
    return kept
