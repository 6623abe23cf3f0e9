"""Recorded requests as a table: a row of tensors a row, and columns that must not be readable left out or hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError
from hone.signature import Tensors
from hone.traffic.keys import hash_secret

HASH = "hash"
DROP = "drop"


@dataclass(frozen=True)
class Hidden:
    """Columns that nobody must read in the files.

    A hash is keyed with a secret that lies beside the files: equal values have equal hashes, and who has the files but
    not the secret can't find out by trying which value one stands for.

    Attributes:
        columns: `input.NAME` or `output.NAME` -> `drop` or `hash`.
        secret: of the hashes.
    """

    columns: Mapping[str, str]
    secret: bytes = b""

    def hashes(self, rows: Sequence[np.ndarray]) -> list[str]:
        """Return 32 hexadecimal digits for each value."""
        return [hashlib.blake2b(_bytes(row), digest_size=16, key=self.secret).hexdigest() for row in rows]


def _bytes(row: np.ndarray) -> bytes:
    return "\0".join(map(str, row.reshape(-1))).encode() if row.dtype.kind == "O" else row.tobytes()


def parse_hidden(text: str) -> dict[str, str]:
    """Return the columns that HONE_RECORD_EXCLUDE names, such as "input.name, hash:input.user".

    Raises:
        HoneError: a name is no column's.
    """
    columns = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        how, _, column = part.rpartition(":")
        if how not in ("", HASH) or not column.startswith(("input.", "output.")) or column.endswith("."):
            raise HoneError(f"HONE_RECORD_EXCLUDE: '{part}' is none of input.NAME, output.NAME and hash:input.NAME")
        columns[column] = how or DROP
    return columns


def make_hidden(columns: Mapping[str, str], folder: Path) -> Hidden | None:
    """Return the columns with the folder's secret, which is made when it is missing and a hash needs it.

    Raises:
        HoneError: the secret can't be read or written.
    """
    if HASH not in columns.values():
        return Hidden(columns) if columns else None
    return Hidden(columns, hash_secret(folder, None))


@dataclass(frozen=True)
class Record:
    """An answered request."""

    time_us: int
    model: str
    version: str
    request_id: str
    seconds: float
    inputs: Tensors
    outputs: Tensors
    arm: str = ""
    first_row: int = 0

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))


def to_table(records: list[Record], hidden: Hidden | None = None) -> Any:
    """Return records of one model as an Arrow table."""
    import pyarrow as pa

    counts = [record.rows for record in records]
    numbers = [record.first_row + row for record in records for row in range(record.rows)]

    def repeat(values: list[Any], kind: Any) -> Any:
        return pa.array([value for value, count in zip(values, counts, strict=True) for _ in range(count)], kind)

    columns = {
        "time": repeat([record.time_us for record in records], pa.timestamp("us", "UTC")),
        "model": repeat([record.model for record in records], pa.string()),
        "version": repeat([record.version for record in records], pa.string()),
        "request_id": repeat([record.request_id for record in records], pa.string()),
        "row": pa.array(numbers, pa.int32()),
        "latency_ms": repeat([record.seconds * 1e3 for record in records], pa.float64()),
    }
    if any(record.arm for record in records):
        columns["arm"] = repeat([record.arm for record in records], pa.string())
    for side, tensors in (("input", [r.inputs for r in records]), ("output", [r.outputs for r in records])):
        for name in tensors[0]:
            column, arrays = f"{side}.{name}", [part[name] for part in tensors]
            if hidden is None or column not in hidden.columns:
                columns |= _columns(column, arrays, counts)
            elif hidden.columns[column] == HASH:
                columns[column] = pa.array(hidden.hashes(_spread(arrays, counts)), pa.string())
    return pa.table(columns)


def _columns(name: str, arrays: list[np.ndarray], counts: list[int]) -> dict[str, Any]:
    import pyarrow as pa

    rows = _spread(arrays, counts)
    kind = pa.string() if rows[0].dtype.kind == "O" else pa.from_numpy_dtype(rows[0].dtype)
    if rows[0].ndim == 0:
        return {name: pa.array([row.item() for row in rows], kind)}
    columns = {name: pa.array([row.reshape(-1).tolist() for row in rows], pa.list_(kind))}
    if rows[0].ndim > 1:
        columns[f"{name}.shape"] = pa.array([list(row.shape) for row in rows], pa.list_(pa.int32()))
    return columns


def _spread(arrays: list[np.ndarray], counts: list[int]) -> list[np.ndarray]:
    """Return a value a row; an output without the batch axis belongs to every row of its request."""
    return [row for array, count in zip(arrays, counts, strict=True) for row in _rows(array, count)]


def _rows(array: np.ndarray, count: int) -> list[np.ndarray]:
    if array.ndim and len(array) == count:
        return [np.asarray(row) for row in array]
    return [array] * count
