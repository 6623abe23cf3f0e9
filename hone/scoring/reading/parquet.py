"""Parquet: the columns that are asked for, a group of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .base import RowFile, Rows, register, regrouped


@register(".parquet", ".pq")
class ParquetRows(RowFile):
    """Files of this format say how many rows they have, and where."""

    def _open(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        try:
            return parquet.ParquetFile(self.path)
        except (pa.ArrowException, OSError) as error:
            raise self.broken(error, "parquet") from None

    @property
    def names(self) -> list[str]:
        with self._open() as file:
            return list(file.schema_arrow.names)

    @property
    def rows(self) -> int:
        return self.count()

    def count(self) -> int:
        with self._open() as file:
            return int(file.metadata.num_rows)

    def read(self, columns: Sequence[str], start: int, stop: int | None, size: int) -> Iterator[Rows]:
        with self._open() as file:
            yield from regrouped(self._tables(file, columns, start, stop, size), start, size)

    def _tables(self, file: Any, columns: Sequence[str], start: int, stop: int | None, size: int) -> Iterator[Any]:
        """Yield the rows that are asked for: groups outside of them aren't read."""
        import pyarrow as pa

        stop = file.metadata.num_rows if stop is None else min(stop, file.metadata.num_rows)
        first, at = 0, 0
        groups: list[int] = []
        for index in range(file.num_row_groups):
            rows = file.metadata.row_group(index).num_rows
            if at + rows > start and at < stop:
                first = first if groups else at
                groups.append(index)
            at += rows
        if not groups:
            return
        try:
            for batch in file.iter_batches(size, row_groups=groups, columns=list(columns), use_threads=False):
                table = pa.Table.from_batches([batch])
                low, high = max(start - first, 0), min(stop - first, len(table))
                first += len(table)
                if low < high:
                    yield table.slice(low, high - low)
        except (pa.ArrowException, OSError) as error:
            raise self.broken(error, "parquet") from None
