"""Feedback from files: a row a request, in CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import json
import math
import os
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from hone.errors import HoneError, one_line
from hone.traffic.answered import FOLDER, read_answered
from hone.traffic.feedback import MOST_ENTRIES, FeedbackError, append, parse_entry
from hone.traffic.keys import RecordKey
from hone.traffic.parquet import require_pyarrow

FIGURES = "figures."
"""Columns of figures begin so: `figures.revenue`."""
KINDS = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class Imported:
    """What a file brought.

    Attributes:
        entries: of feedback.
        known: of them those about an answer that is kept.
    """

    entries: int
    known: int


def import_file(file: Path, folder: Path, model: str, key: RecordKey | None = None) -> Imported:
    """Take every row of a file; nothing is taken of one with a row that is wrong. It can be imported again.

    Args:
        file: with the columns or fields request_id, label, time and figures (in tables `figures.NAME`).
        folder: of HONE_FEEDBACK_DIR.
        model: whose answers it is about.

    Raises:
        HoneError: the file can't be read, naming the row that is wrong; or no answers of the model are kept.
    """
    if file.suffix not in KINDS:
        raise HoneError(f"{file}: must be one of {', '.join(f'*{kind}' for kind in KINDS)}")
    there = sorted(place.name.removeprefix("model=") for place in folder.glob(f"{FOLDER}/model=*"))
    if model not in there:
        others = f"there is {', '.join(there)}" if there else "services keep them in HONE_FEEDBACK_DIR"
        raise HoneError(f"{folder}: no answers of '{model}' are kept there; {others}")
    now = time.time()
    try:
        entries = [parse_entry(entry, f"{file}: {where}", now) for where, entry in _rows(file)]
    except OSError as error:
        raise HoneError(f"{file}: can't be read: {error.strerror or one_line(error)}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise HoneError(f"{file}: {one_line(error)}") from None
    if not entries:
        raise HoneError(f"{file}: no rows")
    known: set[str] = set()
    wanted = {entry.request_id for entry in entries}
    for _, table in chain.from_iterable(read_answered(folder, model, key=key)):
        known |= wanted.intersection(table.column("request_id").to_pylist())
    worker, left = f"import-{os.getpid()}-{secrets.token_hex(4)}", iter(entries)
    try:
        while some := list(islice(left, MOST_ENTRIES)):
            append(folder, model, some, worker, key, now)
    except OSError as error:
        raise HoneError(f"{error.filename}: can't be written: {error.strerror}") from None
    return Imported(len(entries), sum(entry.request_id in known for entry in entries))


def _rows(file: Path) -> Iterator[tuple[str, Any]]:
    """Yield where each row stands, and what it holds."""
    if file.suffix == ".jsonl":
        with file.open(encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield f"line {number}", _parsed(line, f"{file}: line {number}")
        return
    if file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8-sig") as stream:
            for number, row in enumerate(csv.DictReader(stream), 2):
                if None in row or None in row.values():
                    raise FeedbackError(f"{file}: line {number}: has not as many columns as the first line")
                yield f"line {number}", _entry({name: _value(name, text) for name, text in row.items() if text != ""})
        return
    yield from _parquet_rows(file)


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise FeedbackError(f"{where}: not JSON: {one_line(error)}") from None


def _parquet_rows(file: Path) -> Iterator[tuple[str, Any]]:
    require_pyarrow()
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file).read()
    except pa.ArrowException as error:
        raise HoneError(f"{file}: {one_line(error)}") from None
    for number, row in enumerate(table.to_pylist()):
        yield f"row {number}", _entry({name: _plain(value) for name, value in row.items() if value is not None})


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value


def _value(name: str, text: str) -> Any:
    """Return what a text of a CSV stands for: an id and a time are text, other numbers are numbers."""
    if name == "request_id":
        return text
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    return text


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    """Return a table's row as an entry: its columns of figures together."""
    figures = {name.removeprefix(FIGURES): value for name, value in row.items() if name.startswith(FIGURES)}
    rest = {name: value for name, value in row.items() if not name.startswith(FIGURES)}
    return {**rest, "figures": figures} if figures else rest
