"""An append-only log of admin actions whose records are chained by hashes, so that a change of any of them shows."""

from __future__ import annotations

import fcntl
import hashlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from hone.errors import HoneError

START = "0" * 64
"""What stands for the record before the first."""

BLOCK = 65_536


@dataclass(frozen=True)
class Verification:
    """A log whose chain holds.

    Attributes:
        records: in it.
        head: hash of the last one; kept elsewhere, it shows when records are cut off the end.
    """

    records: int
    head: str


class AuditLog:
    """Appends records; several processes may share a file.

    Args:
        path: of the log, JSON lines.

    Raises:
        HoneError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
        except OSError as error:
            raise HoneError(f"{path}: the audit log can't be written: {error.strerror}") from None

    def append(self, actor: str, action: str, subject: str, outcome: str, **details: str) -> None:
        """Write a record; on return it is on disk.

        A line that a crash left torn stays as it is, and the next record says so: `"torn": true`.

        Raises:
            HoneError: it could not be written, for example because the disk is full.
        """
        try:
            handle = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError as error:
            raise HoneError(f"{self._path}: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            size = os.fstat(handle).st_size
            last, torn = _last_record(handle)
            record: dict[str, Any] = {
                "seq": (last["seq"] + 1) if last else 1,
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "actor": actor,
                "action": action,
                "subject": subject,
                "outcome": outcome,
                "details": details,
                "previous": last["hash"] if last else START,
                **({"torn": True} if torn else {}),
            }
            record["hash"] = _hash(record)
            line = (b"\n" if torn else b"") + orjson.dumps(record) + b"\n"
            try:
                _write(handle, line)
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)  # half a record helps nobody
                raise
        except OSError as error:
            raise HoneError(f"{self._path}: the audit record was not written: {error.strerror}") from None
        finally:
            os.close(handle)


def _write(handle: int, content: bytes) -> None:
    while content:
        content = content[os.write(handle, content) :]


def _last_record(handle: int) -> tuple[dict[str, Any] | None, bool]:
    """Return the last whole record, and whether torn text follows it."""
    position = os.fstat(handle).st_size
    tail = b""
    while True:
        lines = tail.split(b"\n")
        torn = bool(lines[-1])
        for line in reversed(lines[1:-1] if position else lines[:-1]):
            record = _parse(line)
            if record is not None:
                return record, torn
            torn = torn or bool(line.strip())
        if not position:
            return None, torn
        step = min(BLOCK, position)
        position -= step
        tail = os.pread(handle, step, position) + tail


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) and "hash" in record and "seq" in record else None


def verify(path: Path) -> Verification:
    """Check a log from its first record to its last.

    Raises:
        HoneError: naming the line at which the chain breaks.
    """
    previous, count, torn = START, 0, False
    try:
        content = path.read_bytes()
    except OSError as error:
        raise HoneError(f"{path}: can't be read: {error.strerror}") from None
    for number, line in enumerate(content.split(b"\n"), 1):
        if not line.strip():
            continue
        record = _parse(line)
        if record is None:
            torn = True
            continue
        if torn and not record.get("torn"):
            raise HoneError(
                f"{path}:{number}: unreadable text stands before this record, and the record doesn't say so"
            )
        if record["seq"] != count + 1 or record.get("previous") != previous:
            raise HoneError(f"{path}:{number}: the chain breaks: record {count + 1} is missing or was changed")
        if record["hash"] != _hash(record):
            raise HoneError(f"{path}:{number}: record {record['seq']} was changed: its hash is another")
        previous, count, torn = record["hash"], count + 1, False
    if torn:
        raise HoneError(f"{path}: the last line is torn; the next record will say so")
    return Verification(count, previous)


def _hash(record: dict[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != "hash"}
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
