"""Feedback: labels and business figures that come later, by the request id of the answer that they are about.

Files are `labels/model=NAME/version=any/HOUR/WORKER.jsonl`, a line a call, encrypted where there is a key. The last
that came of a request id counts, so that a call may be made again.
"""

from __future__ import annotations

import datetime
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from hone.errors import HoneError, one_line
from hone.files import atomic_write, locked
from hone.sketches.folder import HOUR_S, parse_stamp, stamp

from .keys import LockedError, RecordKey

FOLDER = "labels"
LOCK = "labels.lock"
VERSION = "any"
"""Feedback names a request, not the version that answered it."""
SEALED = b"~"
MOST_ENTRIES = 10_000
MOST_VALUES = 4096
MOST_FIGURES = 32
MOST_NAME = 100
MOST_ID = 128
"""Characters of a request id, as the service takes them."""
FIELDS = {"request_id", "label", "figures", "time"}
BEFORE = 1e11
"""Seconds: a larger number is one of milliseconds."""


class FeedbackError(HoneError):
    """An entry that can't be taken; the message names it and its field."""


@dataclass(frozen=True)
class Feedback:
    """What became known of an answer.

    Attributes:
        request_id: of the answer.
        label: what would have been right: a value, or a list with one for each row of the request; None: not given.
        figures: numbers of the business by name, such as revenue.
        time: when it was known, seconds since 1970.
    """

    request_id: str
    label: Any = None
    figures: Mapping[str, float] = field(default_factory=dict)
    time: float = 0.0

    def plain(self) -> dict[str, Any]:
        content: dict[str, Any] = {"request_id": self.request_id, "time": self.time}
        if self.label is not None:
            content["label"] = self.label
        if self.figures:
            content["figures"] = dict(self.figures)
        return content


def parse_feedback(content: Any, now_s: float | None = None) -> list[Feedback]:
    """Return the entries of a call: a list of them, an object `{"feedback": [...]}`, or one entry.

    Raises:
        FeedbackError: naming the entry and the field that is wrong.
    """
    entries = content.get("feedback", [content]) if isinstance(content, dict) else content
    if isinstance(content, dict) and "feedback" in content and len(content) > 1:
        raise FeedbackError(f"no such field: {', '.join(sorted(content.keys() - {'feedback'}))[:MOST_NAME]}")
    if not isinstance(entries, list):
        raise FeedbackError('"feedback" must be a list of entries such as {"request_id": "...", "label": 1}')
    if not 0 < len(entries) <= MOST_ENTRIES:
        raise FeedbackError(f"{len(entries)} entries; send 1 to {MOST_ENTRIES:,} in a call")
    now_s = time.time() if now_s is None else now_s
    return [parse_entry(entry, f"entry {place}", now_s) for place, entry in enumerate(entries)]


def parse_entry(entry: Any, where: str, now_s: float) -> Feedback:
    """Return one entry.

    Args:
        where: it stands, for the message.
        now_s: the time of one that has none.

    Raises:
        FeedbackError: naming the field that is wrong.
    """
    if not isinstance(entry, dict):
        raise FeedbackError(f"{where}: must be an object with request_id, and label or figures")
    if unknown := entry.keys() - FIELDS:
        raise FeedbackError(f"{where}: no such field: {', '.join(map(str, sorted(unknown)))[:MOST_NAME]}")
    identity = entry.get("request_id")
    if not isinstance(identity, str) or not 0 < len(identity) <= MOST_ID:
        raise FeedbackError(f"{where}: request_id: give the x-request-id of the answer, up to {MOST_ID} characters")
    label, figures = entry.get("label"), _figures(entry.get("figures"), where)
    if label is None and not figures:
        raise FeedbackError(f"{where}: neither label nor figures; there is nothing to learn from it")
    if label is not None and not 0 < _values(label, where) <= MOST_VALUES:
        raise FeedbackError(f"{where}: label: empty, or of more than {MOST_VALUES:,} values")
    return Feedback(identity, label, figures, _time(entry.get("time"), where, now_s))


def _values(label: Any, where: str) -> int:
    """Return how many values a label has."""
    if isinstance(label, list):
        return sum(_values(one, where) for one in label)
    if not isinstance(label, bool | int | float | str) or (isinstance(label, float) and not math.isfinite(label)):
        raise FeedbackError(f"{where}: label: must be a number, a text, or a list of them")
    return 1


def _figures(figures: Any, where: str) -> dict[str, float]:
    if figures is None:
        return {}
    if not isinstance(figures, dict) or len(figures) > MOST_FIGURES:
        raise FeedbackError(f"{where}: figures: must be an object of up to {MOST_FIGURES} names and numbers")
    for name, value in figures.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise FeedbackError(f"{where}: figures.{name[:MOST_NAME]}: must be a finite number")
        if not 0 < len(name) <= MOST_NAME:
            raise FeedbackError(f"{where}: figures: a name has 1 to {MOST_NAME} characters")
    return {name: float(value) for name, value in figures.items()}


def _time(value: Any, where: str, now_s: float) -> float:
    if value is None:
        return now_s
    try:
        if isinstance(value, str):
            moment = datetime.datetime.fromisoformat(value)
            found = (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
        elif isinstance(value, bool):
            raise TypeError
        else:
            found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise FeedbackError(
            f"{where}: time: give seconds since 1970, or ISO 8601 such as 2026-12-31T08:00:00Z"
        ) from None
    if not 0 <= found < BEFORE:
        raise FeedbackError(f"{where}: time: {found:g} is no moment in seconds since 1970")
    return found


def append(
    folder: Path, model: str, entries: Sequence[Feedback], worker: str, key: RecordKey | None, now_s: float
) -> None:
    """Write the entries of a call; on return they are on the disk.

    Raises:
        OSError: naming the file, which is as it was.
    """
    hour = int(now_s) // HOUR_S
    place = folder / FOLDER / f"model={model}" / f"version={VERSION}" / stamp(hour)
    file = place / f"{worker}.jsonl"
    line = orjson.dumps({"received": now_s, "feedback": [entry.plain() for entry in entries]})
    if key is not None:
        line = SEALED + key.seal(line, model.encode())
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        with turn(folder):
            handle = os.open(file, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
            try:
                size = os.fstat(handle).st_size
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                _write(handle, (b"\n" if torn else b"") + line + b"\n", size)
                os.fsync(handle)
            finally:
                os.close(handle)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(file)) from error


def _write(handle: int, content: bytes, size: int) -> None:
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(handle, view) :]
    except OSError:
        os.ftruncate(handle, size)
        raise


def turn(folder: Path) -> Any:
    """Let one process at a time write feedback to a folder."""
    return locked(folder / LOCK)


def files(folder: Path, model: str) -> list[Path]:
    """Return the files of a model, the oldest hour first."""
    found = [
        (hour, file)
        for place in folder.glob(f"{FOLDER}/model={model}/version={VERSION}/*")
        if (hour := parse_stamp(place.name)) is not None
        for file in place.glob("*.jsonl")
    ]
    return [file for _, file in sorted(found)]


@dataclass(frozen=True)
class Call:
    """The entries of one call, as they stand in a file.

    Attributes:
        received: when, seconds since 1970.
        entries: of it.
    """

    received: float
    entries: tuple[Feedback, ...]


def calls(file: Path, model: str, key: RecordKey | None) -> Iterator[Call]:
    """Yield the calls of a file; a line that a crash left torn is passed over.

    Raises:
        LockedError: it is encrypted, and the key is missing or another one.
    """
    opened, locked_by = False, None
    for line in file.read_bytes().splitlines():
        if line.startswith(SEALED):
            if key is None:
                raise LockedError(f"{file}: is encrypted and needs its key: HONE_RECORD_KEY_FILE names its file")
            try:
                line, opened = key.open(line.removeprefix(SEALED), model.encode()), True
            except LockedError as error:
                locked_by = error
                continue
        try:
            content = orjson.loads(line)
            yield Call(content["received"], tuple(Feedback(**one) for one in content["feedback"]))
        except (orjson.JSONDecodeError, KeyError, TypeError):
            continue
    if locked_by is not None and not opened:  # one of many that doesn't open is torn; none of them: another key
        raise LockedError(f"{file}: {locked_by}")


def rewrite(file: Path, model: str, kept: Sequence[Call], key: RecordKey | None) -> None:
    """Put other calls in the place of those of a file; whoever calls it holds the `turn`."""
    lines = []
    for call in kept:
        line = orjson.dumps({"received": call.received, "feedback": [entry.plain() for entry in call.entries]})
        lines.append((line if key is None else SEALED + key.seal(line, model.encode())) + b"\n")
    try:
        atomic_write(file, b"".join(lines), mode=0o600)
    except OSError as error:
        raise HoneError(f"{file}: can't be written: {error.strerror or one_line(error)}") from None


def read_feedback(
    folder: Path, model: str, key: RecordKey | None = None, until_s: float = float("inf")
) -> dict[str, Feedback]:
    """Return feedback by request id. Of several for one, each field is as the last that gave it says.

    Args:
        until_s: what was received later doesn't count.

    Raises:
        LockedError: it is encrypted, and the key is missing or another one.
    """
    found: dict[str, Feedback] = {}
    everything = [call for file in files(folder, model) for call in calls(file, model, key)]
    for call in sorted(everything, key=lambda one: one.received):
        if call.received > until_s:
            continue
        for entry in call.entries:
            before = found.get(entry.request_id)
            found[entry.request_id] = entry if before is None else _merged(before, entry)
    return found


def _merged(before: Feedback, entry: Feedback) -> Feedback:
    label = before.label if entry.label is None else entry.label
    return Feedback(entry.request_id, label, {**before.figures, **entry.figures}, max(before.time, entry.time))
