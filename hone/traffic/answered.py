"""Who got which answer: a light row for each answered request, by which labels and figures find it later.

Files are `answered/model=NAME/version=VERSION/HOUR/WORKER-NUMBER.parquet`; when an hour is over, its worker makes one
file of its own. A row has no inputs: its time, request id, arm, who it was for as a keyed hash, and small outputs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError, one_line
from hone.files import atomic_stream, locked
from hone.signature import Signature, Tensors
from hone.sketches.folder import HOUR_S, parse_stamp, stamp

from .keys import RecordKey
from .parquet import read_table, write_table

FOLDER = "answered"
LOCK = "answered.lock"
"""Held by whoever writes files anew: what was deleted must not come back."""
OUTPUT = "output."
MOST_VALUES = 256
"""Of a row of an output that is kept."""
MOST_ROWS = 64
"""Of a request whose outputs are kept."""


@dataclass(frozen=True)
class Answered:
    """An answered request.

    Attributes:
        time_us: when, microseconds since 1970.
        request_id: of it.
        arm, by: of the split it came by, and how it came to the arm (`split`, `header`, `fallback`); empty without one.
        unit: keyed hash of the caller; empty where none is known.
        outputs: rows on axis 0, of the outputs that are kept.
        seconds: that the answer took; 0: not known.
    """

    time_us: int
    request_id: str
    arm: str = ""
    by: str = ""
    unit: str = ""
    outputs: Tensors = field(default_factory=dict)
    seconds: float = 0.0


def kept_outputs(signature: Signature, hidden: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the outputs that are small enough to be kept beside an answer: so many values a row, of known number.

    Args:
        hidden: columns that must not be readable, such as `output.scores`.
    """
    names = []
    for spec in signature.outputs:
        inner = spec.shape[1:]
        sizes = [size for size in inner if isinstance(size, int)]
        if spec.batchable and len(sizes) == len(inner) and int(np.prod(sizes, dtype=np.int64)) <= MOST_VALUES:
            names.append(spec.name)
    return tuple(name for name in names if f"{OUTPUT}{name}" not in hidden)


def picked(outputs: Tensors, names: tuple[str, ...]) -> Tensors:
    """Return the outputs that are kept beside an answer."""
    return {name: outputs[name] for name in names if isinstance(outputs.get(name), np.ndarray)}


def to_table(answers: Sequence[Answered]) -> Any:
    """Return answers of one model and version as an Arrow table, a row each, or one for each row of their outputs."""
    names = list(answers[0].outputs) if answers else []
    return Columns(
        [one.time_us for one in answers],
        [one.request_id for one in answers],
        [one.arm for one in answers],
        [one.by for one in answers],
        [one.unit for one in answers],
        [one.seconds for one in answers],
        {name: [one.outputs[name] for one in answers] for name in names},
    ).table()


@dataclass(frozen=True)
class Columns:
    """Answers of one model and version, a list of each field of `Answered`; outputs of equal shapes beside axis 0."""

    times_us: Sequence[int] | np.ndarray
    request_ids: Sequence[str] | Sequence[bytes]
    arms: Sequence[str]
    bys: Sequence[str]
    units: Sequence[str]
    seconds: Sequence[float]
    outputs: dict[str, list[np.ndarray]]

    def table(self) -> Any:
        """Return them as an Arrow table, a row each, or one for each row of their outputs; nothing of the lists is
        kept in it."""
        import pyarrow as pa

        first = next(iter(self.outputs.values()), [])
        counts = np.array([len(one) for one in first] or np.ones(len(self.times_us)), np.int64)
        places = np.repeat(np.arange(len(counts)), counts)
        numbers = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
        one_each = bool((counts == 1).all())

        def repeated(values: Sequence[Any] | np.ndarray, kind: Any) -> Any:
            array = pa.array(values, kind)
            return array if one_each else array.take(pa.array(places))

        def words(values: Sequence[str]) -> Any:
            return repeated(values, pa.string()) if any(values) else pa.repeat(pa.scalar("", pa.string()), len(places))

        columns = {
            "time": repeated(np.array(self.times_us, np.int64), pa.int64()).cast(pa.timestamp("us", "UTC")),
            "request_id": repeated(self.request_ids, pa.string()),
            "row": pa.array(numbers.astype(np.int32)),
            "arm": words(self.arms),
            "by": words(self.bys),
            "unit": words(self.units),
            "seconds": repeated(np.array(self.seconds, np.float32), pa.float32()),
        }
        for name, arrays in self.outputs.items():
            columns[f"{OUTPUT}{name}"] = _column(np.concatenate(arrays))
        return pa.table(columns)


def _column(rows: np.ndarray) -> Any:
    import pyarrow as pa

    flat = rows.reshape(-1)
    values = pa.array(flat.astype(str) if flat.dtype == object else flat)
    if rows.ndim == 1:
        return values
    width = len(flat) // max(1, len(rows))
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, max(1, width), dtype=np.int32)), values)


def place_of(folder: Path, model: str, version: str, hour: int) -> Path:
    return folder / FOLDER / f"model={model}" / f"version={version}" / stamp(hour)


def write_part(place: Path, worker: str, number: int, table: Any, key: RecordKey | None) -> Path:
    """Write some answers of an hour, whole or not at all.

    Raises:
        OSError: naming the file.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = place / f"{worker}-{number:06}.parquet"
    with atomic_stream(file, 0o600, durable=False) as stream:
        write_table(table, stream, key)
    return file


def join_parts(folder: Path, place: Path, worker: str, key: RecordKey | None) -> None:
    """Make one file of those that a worker has written of an hour; a reader sees the parts, or both, or the one."""
    import pyarrow as pa

    with locked(folder / LOCK):
        parts = sorted(place.glob(f"{worker}-*.parquet"))
        if len(parts) < 2:
            return
        whole = pa.concat_tables([read_table(part, key) for part in parts], promote_options="default")
        with atomic_stream(place / f"{worker}.parquet", 0o600, durable=False) as stream:
            write_table(whole, stream, key)
        for part in parts:
            part.unlink(missing_ok=True)


def remove_answers(folder: Path, model: str, wanted: Callable[[Any], np.ndarray], key: RecordKey | None) -> int:
    """Take rows out of every file of answers to a model; return how many.

    Args:
        wanted: given a table, the rows that go: [rows] booleans.

    Raises:
        HoneError: a file can't be read or written; those before it are done.
    """
    import pyarrow as pa

    gone = 0
    with locked(folder / LOCK):
        for file, _ in files(folder, model):
            try:
                table = read_table(file, key)
                marks = wanted(table)
                if marks.any():
                    with atomic_stream(file, 0o600) as stream:
                        write_table(table.filter(pa.array(~marks)), stream, key)
            except OSError as error:
                raise HoneError(f"{file}: rows can't be taken out: {error.strerror or one_line(error)}") from None
            gone += int(marks.sum())
    return gone


def files(folder: Path, model: str, since_s: float = 0.0, until_s: float = float("inf")) -> Iterator[tuple[Path, str]]:
    """Yield the files of a model whose hours touch a time, each with the version, the oldest hour first."""
    found = []
    for place in folder.glob(f"{FOLDER}/model={model}/version=*/*"):
        hour = parse_stamp(place.name)
        if hour is not None and (hour + 1) * HOUR_S > since_s and hour * HOUR_S <= until_s:
            found.append((hour, place))
    for _, place in sorted(found):
        for file in sorted(place.glob("*.parquet")):
            yield file, place.parent.name.removeprefix("version=")


def read_answered(
    folder: Path,
    model: str,
    since_s: float = 0.0,
    until_s: float = float("inf"),
    key: RecordKey | None = None,
    *,
    newest_first: bool = False,
) -> Iterator[list[tuple[str, Any]]]:
    """Yield, hour by hour, the version and the Arrow table of each file of answers to a model.

    Raises:
        LockedError: one is encrypted, and the key is missing or another one.
    """
    known = list(files(folder, model, since_s, until_s))
    by_hour = [list(some) for _, some in groupby(known, key=lambda one: one[0].parent.name)]
    for hour in reversed(by_hour) if newest_first else by_hour:
        tables = []
        for file, version in hour:
            with contextlib.suppress(FileNotFoundError):  # its parts were joined meanwhile, or it was too old
                tables.append((version, read_table(file, key)))
        yield tables
