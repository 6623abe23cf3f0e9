"""Files of recorded traffic, chained: each holds its number and the hash of the one before, so that a change shows.

All workers that write to a folder make one chain, one file at a time under a lock. `chain.json` beside the files holds
the end of it: kept elsewhere, its hash shows when files are cut off the end.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from hone.audit import records
from hone.audit import verify as verify_log
from hone.errors import HoneError, one_line
from hone.files import atomic_write, hash_file, locked
from hone.traffic.keys import RecordKey
from hone.traffic.parquet import write_table

START = "0" * 64
HEAD = "chain.json"
LOCK = "chain.lock"
DELETIONS = "deletions.jsonl"
"""What was taken out of files, and why: services/observe/record_deletion.py."""
DELETION = "records delete"
METADATA = b"hone.chain"
NAME = re.compile(r"part-\d{8}T\d{12}-(\d{9,})\.parquet")


@dataclass(frozen=True)
class Link:
    """A file's place in the chain.

    Attributes:
        seq: number of the file, from 1.
        sha256: of its bytes.
        file: its path in the folder.
    """

    seq: int = 0
    sha256: str = START
    file: str = ""


@dataclass(frozen=True)
class Verification:
    """A folder whose chain holds.

    Attributes:
        files, rows: in it.
        removed: files before the first, which are gone: retention removes the oldest.
        head: hash of the last file.
        deleted: rows that were taken out of files, as the log of deletions says.
    """

    files: int
    rows: int
    removed: int
    head: str
    deleted: int = 0


def append(folder: Path, place: Path, table: Any, key: RecordKey | None = None) -> Path:
    """Write a table as the next file of a folder's chain, whole or not at all.

    Args:
        folder: of the chain.
        place: folder in it where the file goes.
        table: of Arrow.
        key: that it is encrypted with.

    Raises:
        OSError: naming the file that could not be written.
    """
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    with turn(folder):
        head = _finished(folder)
        link = orjson.dumps({"seq": head.seq + 1, "previous": head.sha256, "previous_file": head.file})
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        target = place / f"part-{stamp}-{head.seq + 1:09}.parquet"
        partial = _partial(target)
        try:
            handle = os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "wb") as stream:
                write_table(table.replace_schema_metadata({METADATA: link}), stream, key)
                stream.flush()
                os.fsync(stream.fileno())
            new = Link(head.seq + 1, hash_file(partial), str(target.relative_to(folder)))
            atomic_write(folder / HEAD, orjson.dumps(vars(new)), mode=0o600)
        except BaseException as error:
            partial.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise OSError(f"{target}: {error.strerror or one_line(error)}") from error
            raise
        partial.replace(target)
    return target


def turn(folder: Path) -> AbstractContextManager[int]:
    """Let one worker at a time write to a folder of recorded traffic."""
    return locked(folder / LOCK)


def _finished(folder: Path) -> Link:
    """Return the end of the chain; a file whose writer was killed before it had its name gets it."""
    head = _head(folder)
    if head.file:
        target = folder / head.file
        with contextlib.suppress(FileNotFoundError):
            _partial(target).replace(target)
    return head


def _partial(target: Path) -> Path:
    return target.with_suffix(".tmp")


def _head(folder: Path) -> Link:
    try:
        content = orjson.loads((folder / HEAD).read_bytes())
        return Link(int(content["seq"]), str(content["sha256"]), str(content["file"]))
    except FileNotFoundError:
        return Link()
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        raise HoneError(f"{folder / HEAD}: not the end of a chain of recorded files") from None


def verify(folder: Path) -> Verification:
    """Check every file of a folder, first to last; encrypted ones need no key for that.

    Raises:
        HoneError: naming the file at which the chain breaks.
    """
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # on a read-only copy nobody writes meanwhile
            stack.enter_context(turn(folder))
            _finished(folder)
        head, found = _head(folder), _links(folder)
        became, deleted = replaced(folder)
    if not found:
        raise HoneError(f"{folder}: no recorded traffic")
    first = last = found[0][0]
    rows, sha256 = 0, ""
    for seq, file, previous, count in found:
        if sha256 and seq != last + 1:
            raise HoneError(f"{file}: the chain breaks: file {last + 1} before it is missing")
        if sha256 and not is_same(previous, sha256, became):
            raise HoneError(f"{file}: the chain breaks: file {last} before it was changed")
        last, rows, sha256 = seq, rows + count, hash_file(file)
    if last != head.seq:
        raise HoneError(f"{folder}: the last file is {last}, but {head.seq} were written")
    if not is_same(head.sha256, sha256, became):
        raise HoneError(f"{folder / head.file}: was changed: its hash is another")
    return Verification(len(found), rows, first - 1, sha256, deleted)


def _links(folder: Path) -> list[tuple[int, Path, str, int]]:
    """Return (number, file, hash of the file before, rows) of every file, in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = []
    for file in folder.glob("model=*/version=*/*.parquet"):
        try:
            metadata = pq.read_metadata(file)
            link = orjson.loads((metadata.metadata or {})[METADATA])
            found.append((int(link["seq"]), file, str(link["previous"]), int(metadata.num_rows)))
        except (OSError, pa.ArrowException, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise HoneError(f"{file}: has no place in the chain: {one_line(error)}") from None
        named = NAME.fullmatch(file.name)
        if named is None or int(named[1]) != found[-1][0]:
            raise HoneError(f"{file}: was renamed: it is file {found[-1][0]} of the chain")
    return sorted(found)


def replaced(folder: Path) -> tuple[Mapping[str, set[str]], int]:
    """Return what files' hashes became, by the hash before, and how many rows are gone.

    Raises:
        HoneError: the log of deletions was changed.
    """
    found: dict[str, set[str]] = defaultdict(set)
    log, rows = folder / DELETIONS, 0
    if not log.exists():
        return found, rows
    verify_log(log)
    for _, record in records(log):
        if record is not None and record.get("action") == DELETION:
            details = record["details"]
            found[details["before"]].add(details["after"])
            rows += int(details["rows"])
    return found, rows


def is_same(expected: str, found: str, became: Mapping[str, set[str]]) -> bool:
    """Return whether a file's hash is the expected one, or what that became by deletions."""
    known, look = {expected}, [expected]
    while look:
        for after in became.get(look.pop(), set()) - known:
            known.add(after)
            look.append(after)
    return found in known
