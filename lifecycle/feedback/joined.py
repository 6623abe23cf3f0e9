"""Answers with what became known of them, by request id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError
from hone.traffic.answered import OUTPUT, read_answered
from hone.traffic.feedback import Feedback, read_feedback
from hone.traffic.keys import RecordKey

DAY_S = 86_400.0


@dataclass(frozen=True)
class Joined:
    """An answered request, and what is known of it.

    Attributes:
        request_id: of it.
        time: when it was answered, seconds since 1970.
        model, version: that answered it.
        arm, by: of the split it came by, and how it came to the arm: `split` (dealt), `header` (named by the caller) or
            `fallback` (another arm failed on it); empty where nothing was split.
        unit: keyed hash of the caller by whom requests were dealt out, or of the subject; empty where none is known.
        outputs: what was answered, [rows, ...] each; of the outputs that are small enough to be kept.
        label: what would have been right; None: not known, or not yet.
        figures: numbers of the business by name.
        known: when the label or the figures were known, seconds since 1970; 0: not yet.
        seconds: that the answer took; 0: not known.
    """

    request_id: str
    time: float
    model: str
    version: str
    arm: str = ""
    by: str = ""
    unit: str = ""
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    label: Any = None
    figures: Mapping[str, float] = field(default_factory=dict)
    known: float = 0.0
    seconds: float = 0.0


def joined(
    folder: Path,
    model: str,
    *,
    since_s: float = 0.0,
    until_s: float = float("inf"),
    within_s: float = 35 * DAY_S,
    version: str = "",
    key: RecordKey | None = None,
) -> Iterator[Joined]:
    """Yield every answered request of a time, with its feedback where there is some; hour by hour, the oldest first.

    Of several answers under one request id within an hour the last is yielded: whoever sent it again has that one.

    Args:
        folder: of HONE_FEEDBACK_DIR.
        model: name.
        since_s, until_s: when it was answered, seconds since 1970.
        within_s: feedback that came later after its answer doesn't count.
        version: only what this one answered.
        key: that the files are encrypted with.

    Raises:
        HoneError: the folder isn't there, or a file is encrypted and this is not its key.
    """
    known = _known(folder, model, key)
    for hour in read_answered(folder, model, since_s, until_s, key):
        for one in _of_hour(model, hour, since_s, until_s):
            if version in ("", one.version):
                yield _with(one, known.get(one.request_id), within_s)


@dataclass(frozen=True)
class Newest:
    """The newest answers of a version.

    Attributes:
        labeled: with a label, the oldest first.
        answers: with a label or without, the oldest first.
        seen: answers that were looked through for them.
    """

    labeled: list[Joined]
    answers: list[Joined]
    seen: int


def newest(
    folder: Path,
    model: str,
    version: str,
    *,
    labeled: int,
    answers: int,
    since_s: float = 0.0,
    within_s: float = 35 * DAY_S,
    key: RecordKey | None = None,
) -> Newest:
    """Return so many answers of a version, and so many with a label; no more hours are read than hold them.

    Args:
        since_s, within_s, key: as `joined` takes them.

    Raises:
        HoneError: as `joined`.
    """
    known = {one: feedback for one, feedback in _known(folder, model, key).items() if feedback.label is not None}
    with_label: list[Joined] = []
    without: list[Joined] = []
    seen = 0
    for hour in read_answered(folder, model, since_s, key=key, newest_first=True):
        own = [(of, table) for of, table in hour if of == version]
        seen += sum(int(np.sum(table.column("row").to_numpy() == 0)) for _, table in own)
        if len(without) >= answers:
            own = [(of, _about(table, known)) for of, table in own]
        found = [_with(one, known.get(one.request_id), within_s) for one in _of_hour(model, own, since_s)]
        with_label = [one for one in found if one.label is not None] + with_label
        if len(without) < answers:
            without = found + without
        if len(without) >= answers and (len(with_label) >= labeled or not known):
            break
    return Newest(with_label[-labeled:], without[-answers:], seen)


def _about(table: Any, known: Mapping[str, Feedback]) -> Any:
    """Return the rows of a table that there is feedback about."""
    return table.filter(np.array([one in known for one in table.column("request_id").to_pylist()], dtype=bool))


def _known(folder: Path, model: str, key: RecordKey | None) -> dict[str, Feedback]:
    if not folder.is_dir():
        raise HoneError(f"{folder}: not a folder; services keep answers and feedback in HONE_FEEDBACK_DIR")
    return read_feedback(folder, model, key)


def _of_hour(model: str, tables: list[tuple[str, Any]], since_s: float, until_s: float = float("inf")) -> list[Joined]:
    """Return the answers of an hour, in the order of time."""
    found: dict[str, Joined] = {}
    for version, table in tables:
        for one in _requests(model, version, table):
            before = found.get(one.request_id)
            if since_s <= one.time <= until_s and (before is None or before.time <= one.time):
                found[one.request_id] = one
    return sorted(found.values(), key=lambda one: one.time)


def _with(one: Joined, feedback: Feedback | None, within_s: float) -> Joined:
    if feedback is None or feedback.time - one.time > within_s:
        return one
    values = {**vars(one), "label": feedback.label, "figures": feedback.figures, "known": feedback.time}
    return Joined(**values)


def _requests(model: str, version: str, table: Any) -> Iterator[Joined]:
    """Yield the requests of a file; the rows of one stand together."""
    if not table.num_rows:
        return
    rows = table.column("row").to_numpy()
    starts = np.flatnonzero(rows == 0)
    ends = np.append(starts[1:], len(rows))
    times = table.column("time").cast("int64").to_numpy() / 1e6
    texts = {name: table.column(name).to_pylist() for name in ("request_id", "arm", "by", "unit")}
    took = table.column("seconds").to_numpy() if "seconds" in table.column_names else np.zeros(len(rows))
    outputs = {name.removeprefix(OUTPUT): table.column(name) for name in table.column_names if name.startswith(OUTPUT)}
    arrays = {name: _array(column) for name, column in outputs.items()}
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        yield Joined(
            texts["request_id"][start],
            float(times[start]),
            model,
            version,
            texts["arm"][start],
            texts["by"][start],
            texts["unit"][start],
            {
                name: array[start:end]
                for name, array in arrays.items()
                if array is not None and array[start] is not None
            },
            seconds=float(took[start]),
        )


def _array(column: Any) -> np.ndarray:
    """Return a column of an output as [rows] or [rows, values]; rows that were kept without it are None."""
    values = column.combine_chunks()
    if values.null_count:
        return np.array([None if one is None else np.asarray(one) for one in values.to_pylist()], dtype=object)
    if not str(values.type).startswith("list"):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    flat = values.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat.reshape(len(values), -1))
