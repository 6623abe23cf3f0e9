"""Records that are chained by hashes: each names the one before it, so that a change of any of them shows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hone.errors import HoneError, one_line

START = "0" * 64
"""What stands for the record before the first."""


@dataclass(frozen=True)
class Verification:
    """A log whose chains hold.

    Attributes:
        records: in it.
        head: hash of the last one; kept elsewhere, it shows when records are cut off the end.
        chains: of records; a log that servers write to standard output has one a server.
    """

    records: int
    head: str
    chains: int = 1


def verify(path: Path) -> Verification:
    """Check a log from its first record to its last.

    A log that was written to a file is one chain, and nothing else may stand in it. One that was collected from
    standard outputs may hold several chains, and other programs' lines between them.

    Raises:
        HoneError: naming the line at which a chain breaks.
    """
    last: dict[str, tuple[int, str]] = {}
    count, head, torn = 0, START, False
    for number, record in records(path):
        if record is None:
            torn = True
            continue
        chain = str(record.get("chain", ""))
        if torn and not chain and not record.get("torn"):
            raise HoneError(
                f"{path}:{number}: unreadable text stands before this record, and the record doesn't say so"
            )
        seq, previous = last.get(chain, (0, START))
        if record["seq"] != seq + 1 or record.get("previous") != previous:
            raise HoneError(f"{path}:{number}: the chain breaks: record {seq + 1} is missing or was changed")
        if record["hash"] != digest(record):
            raise HoneError(f"{path}:{number}: record {record['seq']} was changed: its hash is another")
        last[chain] = (record["seq"], record["hash"])
        count, head, torn = count + 1, record["hash"], False
    if torn and not any(last):
        raise HoneError(f"{path}: the last line is torn; the next record will say so")
    return Verification(count, head, len(last))


def records(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield the number of each line that isn't empty, and its record, None where it is no record."""
    try:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, parsed(line)
    except OSError as error:
        raise HoneError(f"{path}: can't be read: {error.strerror or one_line(error)}") from None


def parsed(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None where it is none."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "hash" in record and "seq" in record else None


def digest(record: dict[str, Any]) -> str:
    """Return the hash of a record."""
    content = {key: value for key, value in record.items() if key != "hash"}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
