"""What a command is given: a file of rows, or a folder of Parquet files, in the order of their names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hone.errors import UnavailableError

from ..errors import ScoreError
from . import arrays, csv_rows, json_lines, parquet  # noqa: F401 - they register themselves
from .base import RowFile, Rows, registered


@dataclass(frozen=True)
class Input:
    """All rows, numbered from 0 over all files.

    Attributes:
        path: as it was given.
        files: in order; of several each says how many rows it has.
    """

    path: Path
    files: tuple[RowFile, ...]

    @property
    def names(self) -> list[str]:
        """Names of the columns: of the first file, and each other must have those that are asked for."""
        return self.files[0].names

    @property
    def typed(self) -> bool:
        return self.files[0].typed

    @property
    def rows(self) -> int | None:
        """How many rows there are, where the files say so themselves."""
        each = [file.rows for file in self.files]
        return None if None in each else sum(rows or 0 for rows in each)

    def count(self) -> int:
        """Return how many rows there are, if need be by reading all of them."""
        return sum(file.count() for file in self.files)

    def read(
        self, columns: Sequence[str], start: int, stop: int | None, size: int
    ) -> Iterator[tuple[int, RowFile, Rows]]:
        """Yield rows from `start` up to `stop`, None: the last; each with the number of its first among all.

        No yield holds rows of two files, or of two blocks: `size` rows of a file, counted from its first.

        Raises:
            ScoreError: a file is broken, or lacks a column.
        """
        before = 0
        for file in self.files:
            rows = file.rows if len(self.files) > 1 else None
            if (rows is None or before + rows > start) and (stop is None or before < stop):
                if missing := [name for name in columns if name not in file.names]:
                    raise ScoreError(f"{file.path}: there is no column '{missing[0]}', which {self.files[0].path} has")
                last = None if stop is None else stop - before
                for found in file.read(columns, max(0, start - before), last, size):
                    yield before + found.first, file, found
            before += rows or 0


def find(path: Path) -> Input:
    """Return the rows of a file, or of the Parquet files in a folder.

    Raises:
        ScoreError: there is no such file, or its format isn't known.
        UnavailableError: pyarrow isn't installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UnavailableError("scoring files needs pyarrow", "pip install 'hone[ops]'") from None
    if path.is_dir():
        there = sorted(
            file
            for file in path.rglob("*")
            if file.suffix in (".parquet", ".pq")
            and not any(part.startswith(("_", ".")) for part in file.relative_to(path).parts)
        )
        if not there:
            raise ScoreError(f"{path}: no .parquet file in this folder")
        return Input(path, tuple(registered()[file.suffix](file) for file in there))
    if not path.exists():
        raise ScoreError(f"{path}: no such file")
    kind = registered().get(path.suffix.lower())
    if kind is None:
        raise ScoreError(f"{path}: give a file of {', '.join(sorted(registered()))}, or a folder of .parquet files")
    return Input(path, (kind(path),))
