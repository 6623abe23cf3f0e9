"""Where records of actions are appended: a file that several processes share, or a stream.

An action is recorded before it is done ("requested"), and again with its outcome. What can't be recorded isn't done.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import orjson

from hone.audit.chain import START, digest, parsed
from hone.errors import HoneError, one_line
from hone.files import locked

STANDARD_OUTPUT = "-"
REQUESTED = "requested"
BLOCK = 65_536

Details = dict[str, str]


class Audit(Protocol):
    """Where records go."""

    def append(self, actor: str, action: str, subject: str, outcome: str, **details: str) -> None:
        """Write a record; on return it is written.

        Raises:
            HoneError: it could not be.
        """


class AuditLog:
    """Appends records to a file; several processes may share it.

    Args:
        path: of the log, JSON lines.

    Raises:
        HoneError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY | os.O_NONBLOCK, 0o600))
        except OSError as error:
            raise HoneError(f"{path}: the audit log can't be written: {error.strerror}") from None

    def append(self, actor: str, action: str, subject: str, outcome: str, **details: str) -> None:
        """Write a record; on return it is on disk.

        A line that a crash left torn stays as it is, and the next record says so: `"torn": true`.

        Raises:
            HoneError: it could not be written, for example because the disk is full.
        """
        with _turn(self._path, f"{self._path}: the audit record was not written", os.O_APPEND) as handle:
            size = os.fstat(handle).st_size
            last, torn = _last_record(handle)
            extra = {"torn": True} if torn else {}
            line = _line(last, actor, action, subject, outcome, details, extra)
            try:
                _write(handle, (b"\n" if torn else b"") + line)
                if stat.S_ISREG(os.fstat(handle).st_mode):
                    os.fsync(handle)
            except OSError:
                with contextlib.suppress(OSError):  # what went wrong first is what people must know
                    os.ftruncate(handle, size)  # half a record helps nobody
                raise


class AuditStream:
    """Writes records to a stream of this process, such as the standard output that a container's log is made of.

    Args:
        handle: of the stream.
        folder: that the workers of a server share: together they write one chain, whose id is in each record.
    """

    def __init__(self, handle: int, folder: Path) -> None:
        self._handle = handle
        self._head = folder / "audit-head.json"

    def append(self, actor: str, action: str, subject: str, outcome: str, **details: str) -> None:
        """Write a record.

        Raises:
            HoneError: it could not be written.
        """
        with _turn(self._head, "the audit record was not written to standard output") as head:
            last = parsed(os.pread(head, BLOCK, 0))
            chain = last["chain"] if last else os.urandom(8).hex()
            line = _line(last, actor, action, subject, outcome, details, {"chain": chain})
            _write(self._handle, line)
            state = {key: orjson.loads(line)[key] for key in ("seq", "hash", "chain")}
            os.pwrite(head, orjson.dumps(state), 0)
            os.ftruncate(head, len(orjson.dumps(state)))


@contextlib.contextmanager
def recorded(log: Audit, actor: str, action: str, subject: str, warn: Callable[[str], object]) -> Iterator[Details]:
    """Record that an action is asked for, and after the block what became of it; what can't be recorded isn't done.

    Args:
        warn: told when the outcome of a block that failed can't be recorded.

    Yields the details of the record of what was done, to be filled in.

    Raises:
        HoneError: it can't be recorded; or whatever the block raises.
    """
    details: Details = {}
    log.append(actor, action, subject, REQUESTED)
    try:
        yield details
    except BaseException as error:
        try:
            log.append(actor, action, subject, "failed", **{**details, "reason": one_line(error)})
        except HoneError as problem:  # what failed first is what must be told
            warn(f"the outcome is not recorded: {problem}")
        raise
    log.append(actor, action, subject, "done", **details)


def operator() -> str:
    """Return who runs this: the user's name as the system has it, not as the environment says."""
    import pwd

    try:
        return f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"user:{os.getuid()}"


def open_log(place: str, folder: Path | None = None) -> Audit | None:
    """Return the log at a place; None for standard output without `folder`, which is only checked then.

    Args:
        place: a path, or "-".
        folder: that the workers of the server share.

    Raises:
        HoneError: it can't be written.
    """
    if place != STANDARD_OUTPUT:
        return AuditLog(Path(place))
    return None if folder is None else AuditStream(1, folder)


@contextlib.contextmanager
def _turn(file: Path, failed: str, flags: int = 0) -> Iterator[int]:
    """Let one process at a time write a record; yield the descriptor of the file that tells which was the last.

    Args:
        failed: what to say when the block ends with an OSError.
        flags: to open the file with.

    Raises:
        HoneError: the file can't be opened, or the record could not be written.
    """
    try:
        with locked(file, flags) as handle:
            yield handle
    except OSError as error:
        raise HoneError(f"{error.filename or failed}: {error.strerror}") from None


def _line(
    last: dict[str, Any] | None, actor: str, action: str, subject: str, outcome: str,
    details: dict[str, str], extra: dict[str, Any],
) -> bytes:  # fmt: skip
    record: dict[str, Any] = {
        "seq": (last["seq"] + 1) if last else 1,
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "actor": actor,
        "action": action,
        "subject": subject,
        "outcome": outcome,
        "details": details,
        "previous": last["hash"] if last else START,
        **extra,
    }
    record["hash"] = digest(record)
    return orjson.dumps(record) + b"\n"


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
            record = parsed(line)
            if record is not None:
                return record, torn
            torn = torn or bool(line.strip())
        if not position:
            return None, torn
        step = min(BLOCK, position)
        position -= step
        tail = os.pread(handle, step, position) + tail
