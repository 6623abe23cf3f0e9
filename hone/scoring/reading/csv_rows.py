"""Tables of text with a header; a value is what the model's input makes of it, and kept columns stay text."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from ..errors import ScoreError
from .base import RowFile, Rows, register


@register(".csv")
class CsvRows(RowFile):
    """Comma-separated values; empty lines are no rows."""

    typed = False

    @contextmanager
    def _open(self) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as stream:
                lines = (line for line in csv.reader(stream) if line)
                header = [name.strip() for name in next(lines, [])]
                if len(set(header)) != len(header):
                    raise ScoreError(f"{self.path}: two columns of its header have one name")
                yield header, lines
        except (OSError, ValueError, csv.Error) as error:
            raise self.broken(error, ".csv") from None

    @property
    def names(self) -> list[str]:
        with self._open() as (header, _):
            return header

    def count(self) -> int:
        with self._open() as (_, lines):
            return sum(1 for _ in lines)

    def read(self, columns: Sequence[str], start: int, stop: int | None, size: int) -> Iterator[Rows]:
        with self._open() as (header, lines):
            places = [header.index(name) for name in columns]
            wanted, first = islice(lines, start, stop), start
            while found := list(islice(wanted, size)):
                yield _rows(first, found, header, columns, places)
                first += len(found)


def _rows(first: int, found: list[list[str]], header: list[str], columns: Sequence[str], places: list[int]) -> Rows:
    import pyarrow as pa

    width, broken = len(header), {}
    for place, cells in enumerate(found):
        if len(cells) != width:
            broken[place] = f"it has {len(cells)} cells, the header {width}"
            found[place] = [""] * width
    side_by_side: list[Any] = list(zip(*found, strict=True))
    arrays = [pa.array(side_by_side[place], pa.string()) for place in places]
    return Rows(first, pa.table(arrays, names=list(columns)), broken)
