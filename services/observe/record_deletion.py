"""Rows that are taken out of recorded traffic, because somebody asked for it, in a way that can be checked.

A file without the rows takes the place of the one with them, under its name and its number in the chain. What was
removed is told by `deletions.jsonl` beside the files, a log chained by hashes: of each file the hash before and after,
how many rows are gone, who asked, and why. So `verify` tells a deletion from a change that nobody owns up to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hone.audit import AuditLog
from hone.errors import HoneError, one_line
from hone.files import hash_file
from hone.traffic.keys import RecordKey
from hone.traffic.parquet import read_table, write_table

from .record_chain import DELETION, DELETIONS, turn


@dataclass(frozen=True)
class Removed:
    """What was taken out of a folder.

    Attributes:
        files: that were written anew.
        rows: that are gone.
    """

    files: int = 0
    rows: int = 0


@dataclass(frozen=True)
class Asked:
    """A deletion.

    Attributes:
        actor: who asks.
        subject: what is deleted, in words that may be kept: a request id, or a hash of whom rows are about.
        reason: why.
    """

    actor: str
    subject: str
    reason: str


def remove_rows(
    folder: Path, wanted: Callable[[Any], Any], asked: Asked, key: RecordKey | None = None, model: str = "*"
) -> Removed:
    """Take rows out of every file of a folder of recorded traffic; what is cut off can be done again.

    Args:
        wanted: given a table, the rows that go: [rows] booleans.
        model: whose files are looked at.

    Raises:
        HoneError: a file can't be read or written; those before it are done.
    """
    log, gone = AuditLog(folder / DELETIONS), Removed()
    with turn(folder):
        for file in sorted(folder.glob(f"model={model}/version=*/*.parquet"), key=lambda one: one.name):
            try:
                rows = _without(file, wanted, log, asked, key, str(file.relative_to(folder)))
            except OSError as error:
                raise HoneError(f"{file}: rows can't be taken out: {error.strerror or one_line(error)}") from None
            gone = Removed(gone.files + (rows > 0), gone.rows + rows)
    return gone


def _without(
    file: Path, wanted: Callable[[Any], Any], log: AuditLog, asked: Asked, key: RecordKey | None, name: str
) -> int:
    import numpy as np
    import pyarrow as pa

    table = read_table(file, key)
    marks = np.asarray(wanted(table), dtype=bool)
    rows = int(marks.sum())
    if not rows:
        return 0
    partial = file.with_suffix(".rewritten")
    try:
        handle = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "wb") as stream:
            write_table(table.filter(pa.array(~marks)), stream, key)
            stream.flush()
            os.fsync(stream.fileno())
        # First what is to become of it: a crash in between leaves a file that the log knows, too.
        log.append(
            asked.actor, DELETION, asked.subject, "done",
            file=name, before=hash_file(file), after=hash_file(partial), rows=str(rows), reason=asked.reason,
        )  # fmt: skip
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    return rows
