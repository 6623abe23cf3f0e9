"""Gather what can be known of two times, and compare: the time since something was noticed, and as long before it."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hone import store
from hone.cache import cache_dir
from hone.evidence.shifts import Counted, gap_bounds, largest_change
from hone.k8s.planning.prometheus import ANYBODY, Access
from hone.sketches import folder as sketches
from hone.sketches.bucket import fetched
from hone.sketches.folder import HOUR_S
from hone.sketches.reference import Reference, read_references
from hone.sketches.window import Window
from hone.traffic.answered import read_answered
from hone.traffic.keys import RecordKey

from ..drift.counting import of_window
from ..drift.looks import together
from ..registry.history import changes
from .clues import Clue, Investigation, Kind
from .measured import measured

LEAST = 0.05
"""Changes of a share that are told, by their lower bound."""
CONFIDENCE = 0.99
GROWN = 1.5
MOST_COLUMNS = 5


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        since_s: seconds since 1970 from when on something is wrong; the hour that it is in counts.
        sketches, answers: folders of HONE_DRIFT_DIR and HONE_FEEDBACK_DIR; None: there are none.
        key: of encrypted answers.
        prometheus: address of its API; empty: there is none.
        access: to it.
    """

    since_s: float
    sketches: Path | None = None
    answers: Path | None = None
    key: RecordKey | None = None
    prometheus: str = ""
    access: Access = ANYBODY


@dataclass(frozen=True)
class Times:
    """Whole hours since 1970: `before` to `after`, and `after` to `end`."""

    before: int
    after: int
    end: int

    @classmethod
    def of(cls, since_s: float, now_s: float) -> Times:
        after, end = int(since_s) // HOUR_S, int(now_s) // HOUR_S + 1
        return cls(2 * after - end, after, end)

    def split(self, windows: Sequence[Window]) -> tuple[list[Window], list[Window]]:
        before = [one for one in windows if self.before <= one.about.hour < self.after]
        return before, [one for one in windows if self.after <= one.about.hour < self.end]


@dataclass
class _Notes:
    clues: list[Clue]
    same: list[str]
    unknown: list[str]


def investigate(model: str, question: Question, now_s: float) -> Investigation:
    """Return what has changed.

    Args:
        model: NAME, NAME@ALIAS or NAME:VERSION; columns are told by its proof's cells.

    Raises:
        HoneError: there is no such model, a folder isn't there, answers can't be read, or Prometheus doesn't answer.
    """
    entry = store.resolve(model)
    times = Times.of(question.since_s, now_s)
    notes = _Notes([], [], [])
    notes.clues += _changes(entry.name, times, question.since_s)
    if question.sketches:
        _sketched(entry, question.sketches, times, notes)
    else:
        notes.unknown.append("versions, traffic, inputs and outputs: services sketch them into HONE_DRIFT_DIR")
    if question.answers:
        _callers(entry.name, question.answers, question.key, times, notes)
    else:
        notes.unknown.append("callers: services note who was answered in HONE_FEEDBACK_DIR")
    if question.prometheus:
        found, same = measured(
            question.prometheus, question.access, entry.name, times.after * HOUR_S, now_s, times.end - times.after
        )
        notes.clues += found
        notes.same += same
    else:
        notes.unknown.append("pods, stages and failures: --prometheus knows them")
    return Investigation(
        model=entry.name,
        before=(_iso(times.before), _iso(times.after)),
        after=(_iso(times.after), _iso(times.end)),
        clues=tuple(sorted(notes.clues, key=lambda clue: -clue.strength)),
        same=tuple(notes.same),
        unknown=tuple(notes.unknown),
    )


def _iso(hour: int) -> str:
    return datetime.datetime.fromtimestamp(hour * HOUR_S, datetime.UTC).isoformat(timespec="minutes")


def _changes(name: str, times: Times, since_s: float) -> Iterator[Clue]:
    """What people and rollouts did in both times; the nearer to when it began, the likelier."""
    span = max(1, times.end - times.after) * HOUR_S
    for one in changes(name):
        at = datetime.datetime.fromisoformat(one.time).timestamp()
        if one.outcome == "done" and times.before * HOUR_S <= at and one.action not in ("annotate", "propose"):
            words = f"{one.time} by {one.actor}: {one.action} {one.model}"
            reason = f" ({one.details['reason']})" if one.details.get("reason") else ""
            yield Clue("change", one.action, 0.9 * math.exp(-abs(at - since_s) / span), words + reason)


def _sketched(entry: store.Entry, folder: Path, times: Times, notes: _Notes) -> None:
    found = sketches.read(fetched(folder, entry.name, cache_dir()), entry.name, times.end - 1, since=times.before)
    notes.unknown += found.problems
    before, after = times.split(found.windows)
    if not before or not after:
        when = "before" if after else "since then" if before else "in either time"
        notes.unknown.append(f"versions, traffic, inputs and outputs: nothing was sketched {when}")
        return
    notes.clues += _versions(before, after)
    _volume(before, after, notes)
    references = read_references(entry.opened(verify=False))
    if references is None:
        notes.unknown.append(f"inputs and outputs: {entry.tag} holds no reference of its proof's rows")
        return
    alike = [[one for one in some if one.columns == tuple(references.names)] for some in (before, after)]
    _columns("input", alike[0], alike[1], references.columns, notes)
    both = {one.about.version for one in alike[0]} & {one.about.version for one in alike[1]}
    same = [[one for one in some if one.about.version in both] for some in alike]
    if both:
        _columns("output", same[0], same[1], references.columns, notes)
    else:
        notes.unknown.append("outputs: no version answered in both times, and versions answer otherwise")


def _versions(before: Sequence[Window], after: Sequence[Window]) -> Iterator[Clue]:
    rows: list[Counter[str]] = [Counter(), Counter()]
    for place, windows in enumerate((before, after)):
        for one in windows:
            rows[place][one.about.version] += one.rows
    for version, least, was, now in _grown(rows[0], rows[1]):
        yield Clue("version", version, least, f"answered {was:.1%} of the rows before, answers {now:.1%} now")


def _grown(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[tuple[str, float, float, float]]:
    """Yield each name whose share has grown: name, the least that it has, its share before, its share now."""
    names = [*{**before, **after}]
    live, known = (Counted(np.array([[one.get(name, 0) for name in names]], float)) for one in (after, before))
    if not names or not sum(before.values()) or not sum(after.values()):
        return
    low, _ = gap_bounds(live, known, np.eye(len(names)), (1 - CONFIDENCE) / (2 * len(names)))
    for name, least in zip(names, low[0].tolist(), strict=True):
        if least > LEAST:
            yield name, least, before.get(name, 0) / sum(before.values()), after.get(name, 0) / sum(after.values())


def _volume(before: Sequence[Window], after: Sequence[Window], notes: _Notes) -> None:
    hours = [len({one.about.hour for one in some}) for some in (before, after)]
    rows, requests = ([sum(getattr(one, what) for one in some) for some in (before, after)] for what in _COUNTS)
    figures = {
        "rows an hour": [count / max(1, span) for count, span in zip(rows, hours, strict=True)],
        "rows a request": [count / max(1, some) for count, some in zip(rows, requests, strict=True)],
    }
    for what, (was, now) in figures.items():
        ratio = now / was if was else math.inf
        words = f"{was:,.1f} before, {now:,.1f} now"
        if max(ratio, 1 / ratio if ratio else math.inf) >= GROWN:
            notes.clues.append(Clue("traffic", what, 1 - min(ratio, 1 / ratio if ratio else 0.0), words))
        else:
            notes.same.append(f"{what}: {words}")


_COUNTS = ("rows", "requests")


def _columns(
    side: Kind, before: Sequence[Window], after: Sequence[Window], references: Sequence[Reference], notes: _Notes
) -> None:
    """Which columns have moved since the time before, by the cells of the proof."""
    old, new = together(before), together(after)
    if old is None or new is None:
        notes.unknown.append(f"{side}s: the two times were sketched by other columns than the proof's")
        return
    places = [place for place, one in enumerate(references) if one.column.side == side]
    tests = sum(len(references[place].sets()[1]) for place in places)
    doubt = (1 - CONFIDENCE) / (2 * max(1, tests))
    found = []
    for place in places:
        reference = references[place]
        sets, names = reference.sets()
        live, known = of_window(new, place, reference), of_window(old, place, reference)
        change = largest_change(live, known, sets, doubt, doubt)
        if change.low > LEAST:
            was = float((known.cells @ sets[change.where]) / known.rows.item())
            words = f"rows {names[change.where]}: {was:.1%} before, {was + change.signed:.1%} now"
            found.append(Clue(side, reference.column.name, change.low, words))
    found.sort(key=lambda clue: -clue.strength)
    notes.clues += found[:MOST_COLUMNS]
    if len(found) < len(places):
        notes.same.append(
            f"{side}s: {len(places) - len(found)} of {len(places)} columns, as far as {new.rows:,} rows tell"
        )


def _callers(name: str, folder: Path, key: RecordKey | None, times: Times, notes: _Notes) -> None:
    counts: list[Counter[str]] = [Counter(), Counter()]
    start, middle, end = (hour * HOUR_S for hour in (times.before, times.after, times.end))
    for tables in read_answered(folder, name, start, end, key):
        for _, table in tables:
            for unit, at in _units(table):
                if start <= at < end:
                    counts[at >= middle][unit] += 1
    if not counts[0] or not counts[1]:
        notes.unknown.append("callers: no answer to a caller that is known was noted in one of the times")
        return
    grown = list(_grown(counts[0], counts[1]))
    for unit, least, was, now in grown:
        words = f"{was:.1%} of the requests of known callers before, {now:.1%} now; as hashed with the key of records"
        notes.clues.append(Clue("caller", unit, least, words))
    if not grown:
        notes.same.append(f"callers: {len(counts[1])} are known, none has a larger share")


def _units(table: Any) -> Iterator[tuple[str, float]]:
    """Yield the unit and the time of each request whose caller is known."""
    columns = (table.column(name).to_pylist() for name in ("unit", "time", "row"))
    for unit, time, row in zip(*columns, strict=True):
        if unit and not row:
            yield unit, time.timestamp()
