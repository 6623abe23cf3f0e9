"""Delete what is kept of a request, or of a person: recorded traffic, who got which answer, and feedback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError, one_line
from hone.services.observe.record_deletion import Asked, remove_rows
from hone.services.observe.record_table import Hidden
from hone.traffic import answered, feedback
from hone.traffic.keys import HASH_KEY_FILE, RecordKey, hash_secret, hashed
from hone.traffic.parquet import require_pyarrow


@dataclass(frozen=True)
class Wanted:
    """What is to be deleted.

    Attributes:
        requests: by their ids.
        subject: whom rows are about, as the caller's header or a recorded column has it; empty: nobody in particular.
        columns: of recorded traffic that hold subjects, as they are or hashed, such as `input.user`.
    """

    requests: frozenset[str] = frozenset()
    subject: str = ""
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places:
    """Where traffic is kept.

    Attributes:
        records: folder of HONE_RECORD_DIR, or None.
        feedback: folder of HONE_FEEDBACK_DIR, or None.
        key: that the files are encrypted with.
    """

    records: Path | None
    feedback: Path | None
    key: RecordKey | None = None


@dataclass(frozen=True)
class Deleted:
    """What is gone.

    Attributes:
        rows: of recorded traffic.
        answers: rows of who got which answer.
        entries: of feedback.
        subject: its hash, where somebody was named.
    """

    rows: int = 0
    answers: int = 0
    entries: int = 0
    subject: str = ""


def delete(wanted: Wanted, places: Places, actor: str, reason: str) -> Deleted:
    """Delete it from every file; what is cut off can be done again.

    Raises:
        HoneError: a folder isn't there, a file can't be read or written, or nothing says whom rows are about.
    """
    require_pyarrow()
    for folder in filter(None, (places.records, places.feedback)):
        if not folder.is_dir():
            raise HoneError(f"{folder}: not a folder")
    if wanted.subject and places.feedback is None and not wanted.columns:
        raise HoneError("nothing says which rows are about somebody: give --feedback-dir, or --column input.NAME")
    unit, ids, answers = "", set(wanted.requests), 0
    if wanted.subject and places.feedback is not None:
        unit = hashed(wanted.subject.encode(), hash_secret(places.feedback, places.key))
        ids |= _requests_of(places.feedback, unit, places.key)
    rows = 0
    if places.records is not None:
        subject = _subject(wanted, places.records, unit)
        asked = Asked(actor, subject or f"request {', '.join(sorted(ids))}", reason)
        rows = remove_rows(places.records, _matching(ids, wanted, places.records), asked, places.key).rows
    entries = 0
    if places.feedback is not None:
        answers = _answers(places.feedback, ids, unit, places.key)
        entries = _entries(places.feedback, ids, places.key)
    return Deleted(rows, answers, entries, unit)


def _subject(wanted: Wanted, records: Path, unit: str) -> str:
    """Return what stands for a person in the log of deletions; who it was must not be read there."""
    if not wanted.subject:
        return ""
    return f"subject {unit or hashed(wanted.subject.encode(), hash_secret(records, None))}"


def _requests_of(folder: Path, unit: str, key: RecordKey | None) -> set[str]:
    """Return the ids of the requests that came from somebody."""
    found: set[str] = set()
    for model in _models(folder / answered.FOLDER):
        for _, table in chain.from_iterable(answered.read_answered(folder, model, key=key)):
            marks = np.array(table.column("unit").to_pylist(), dtype=object) == unit
            found |= {one for one, mark in zip(table.column("request_id").to_pylist(), marks, strict=True) if mark}
    return found


def _matching(ids: set[str], wanted: Wanted, folder: Path) -> Callable[[Any], np.ndarray]:
    """Return what marks the rows of recorded traffic that go."""
    values = {wanted.subject}
    if wanted.columns and (folder / HASH_KEY_FILE).exists():
        values |= {*Hidden({}, (folder / HASH_KEY_FILE).read_bytes()).hashes(_spellings(wanted.subject))}

    def marks(table: Any) -> np.ndarray:
        found = np.array([one in ids for one in table.column("request_id").to_pylist()], dtype=bool)
        for name in wanted.columns:
            if name in table.column_names and wanted.subject:
                found |= np.array([str(one) in values for one in table.column(name).to_pylist()], dtype=bool)
        return found

    return marks


def _spellings(subject: str) -> list[np.ndarray]:
    """Return the values that a column may hold of somebody: a text, or a whole number of any size."""
    numbers = []
    if subject.isascii() and subject.isdecimal():
        fitting = [kind for kind, digits in ((np.int64, 18), (np.int32, 9)) if len(subject) <= digits]
        numbers = [np.array(int(subject), kind) for kind in fitting]
    return [np.array(subject), np.array(subject, dtype=object), *numbers]


def _answers(folder: Path, ids: set[str], unit: str, key: RecordKey | None) -> int:
    gone = 0
    for model in _models(folder / answered.FOLDER):

        def wanted(table: Any) -> np.ndarray:
            pairs = zip(table.column("request_id").to_pylist(), table.column("unit").to_pylist(), strict=True)
            return np.array([one in ids or (bool(unit) and of == unit) for one, of in pairs], dtype=bool)

        gone += answered.remove_answers(folder, model, wanted, key)
    return gone


def _entries(folder: Path, ids: set[str], key: RecordKey | None) -> int:
    gone = 0
    for model in _models(folder / feedback.FOLDER):
        for file in feedback.files(folder, model):
            try:
                with feedback.turn(folder):
                    calls = list(feedback.calls(file, model, key))
                    left = [
                        feedback.Call(c.received, tuple(e for e in c.entries if e.request_id not in ids)) for c in calls
                    ]
                    count = sum(len(one.entries) for one in calls) - sum(len(one.entries) for one in left)
                    if count:
                        feedback.rewrite(file, model, [one for one in left if one.entries], key)
            except OSError as error:
                raise HoneError(f"{file}: can't be read: {error.strerror or one_line(error)}") from None
            gone += count
    return gone


def _models(folder: Path) -> list[str]:
    return sorted(place.name.removeprefix("model=") for place in folder.glob("model=*"))
