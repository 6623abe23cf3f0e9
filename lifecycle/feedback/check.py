"""Compare a model's live quality with its proof's: by labels, and before there are some by its confidence."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hone.converters.proof.judge import Judge
from hone.errors import HoneError, RecipeError
from hone.evidence.live.quality import Estimate, estimate, loss, rows_to_decide
from hone.evidence.shifts import Budget
from hone.recipe import LoadedRecipe
from hone.traffic.keys import RecordKey

from .baseline import Baseline, baseline
from .expected import MOST_ROWS as ANSWERS
from .expected import expected_of
from .findings import ORDER, Interval, Measured, Quality
from .joined import DAY_S, Joined, newest

SHORT, LONG = 400, 4000
"""Labeled requests of the two looks: the first is quick, the second sees smaller losses."""
PARTS = 12
"""Of the time, in the picture of a metric over it."""
FEWEST_OF_A_PART = 30


@dataclass(frozen=True)
class Question:
    """What is asked of a model's quality.

    Attributes:
        warn, act: losses against the proof's figure, as shares of it.
        since_s: the first answer that counts, seconds since 1970.
        within_s: labels that came later after their answer don't count.
        budget: of false alarms.
    """

    warn: float = 0.05
    act: float = 0.10
    since_s: float = 0.0
    within_s: float = 35 * DAY_S
    budget: Budget = field(default_factory=Budget)


@dataclass(frozen=True)
class _Labeled:
    """Answers with labels, row by row, beside the proof's, which come first."""

    outputs: dict[str, np.ndarray]
    labels: np.ndarray
    groups: np.ndarray
    times: np.ndarray
    proof: int


def check(
    model: str,
    folder: Path,
    question: Question,
    *,
    loaded: LoadedRecipe | None = None,
    key: RecordKey | None = None,
    now_s: float | None = None,
) -> Quality:
    """Return what is found of a stored model.

    Args:
        model: NAME, NAME@ALIAS or NAME:VERSION; of a name, what it means.
        folder: of HONE_FEEDBACK_DIR.
        loaded: its recipe; None: as the registry has it.
        key: of encrypted files.

    Raises:
        HoneError: there is no such model, nothing is known of its recipe, or the folder can't be read.
    """
    entry, known = baseline(model, loaded)
    since = max(question.since_s, (time.time() if now_s is None else now_s) - question.within_s)
    rows = newest(
        folder, entry.name, entry.version,
        labeled=LONG, answers=ANSWERS, since_s=since, within_s=question.within_s, key=key,
    )  # fmt: skip
    problems: list[str] = []
    usable = _usable(rows.labeled, known.judges, problems)
    measured = _measured(usable, known, question, problems)
    estimates = expected_of(rows.answers, known, question.warn, question.budget.confidence, problems)
    return Quality(
        model=entry.tag,
        checked=iso(time.time() if now_s is None else now_s),
        warn=question.warn,
        act=question.act,
        confidence=question.budget.confidence,
        answers=rows.seen,
        labeled=len(usable),
        measured=tuple(sorted(measured, key=lambda one: (ORDER.index(one.state), -one.loss_low))),
        estimates=estimates,
        problems=tuple(problems),
    )


def iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def _usable(rows: Sequence[Joined], judges: Sequence[Judge], problems: list[str]) -> list[Joined]:
    """Return the answers whose label and outputs fit."""
    wanted = {judge.output for judge in judges if judge.output}
    found = [one for one in rows if one.outputs.keys() >= wanted and one.outputs]
    if len(found) < len(rows):
        problems.append(
            f"{len(rows) - len(found)} labeled answers lack an output: too large to be kept, or left out by "
            "HONE_RECORD_EXCLUDE"
        )
    shapes = [_shape_of(one) for one in found]
    usual = max({*shapes} - {None}, key=shapes.count, default=None)
    fitting = [one for one, shape in zip(found, shapes, strict=True) if shape == usual is not None]
    if len(fitting) < len(found):
        problems.append(f"{len(found) - len(fitting)} labels fit neither their request's rows nor the other labels")
    return fitting


def _shape_of(one: Joined) -> tuple[int, ...] | None:
    """Return the shape of the label of a row; None where there is not one for each row, or not of one shape."""
    labels = _labels_of(one)
    try:
        return np.asarray(labels).shape[1:] if len(labels) == _rows_of(one) else None
    except ValueError:
        return None


def _rows_of(one: Joined) -> int:
    return len(next(iter(one.outputs.values())))


def _labels_of(one: Joined) -> list[object]:
    """Return a label for each row: a list has one for each, or is itself the label of the only row."""
    if isinstance(one.label, list) and (_rows_of(one) > 1 or len(one.label) == 1):
        return one.label
    return [one.label]


def _measured(usable: Sequence[Joined], known: Baseline, question: Question, problems: list[str]) -> list[Measured]:
    looks = {"short": usable[-SHORT:], "long": usable[-LONG:]}
    if len(usable) <= SHORT:
        del looks["long"]
    found = []
    for look, some in looks.items():
        for judge in known.judges:
            try:
                rows = _together(some, known)
                found.append(_one(judge, look, rows, known, question, len(looks) * len(known.judges)))
            except (ValueError, RecipeError) as error:
                if look == "short":
                    problems.append(f"{judge.name}: {error}")
    return found


def _together(some: Sequence[Joined], known: Baseline) -> _Labeled:
    """Return labeled answers and those of the proof as one: so that both are read alike."""
    if not some:
        raise ValueError("no labels have come")
    labels = np.array([label for one in some for label in _labels_of(one)])
    counts = [_rows_of(one) for one in some]
    outputs = {name: np.concatenate([one.outputs[name] for one in some]) for name in some[0].outputs}
    groups, times = np.repeat(np.arange(len(some)), counts), np.repeat([one.time for one in some], counts)
    if known.labels is None:
        return _Labeled(outputs, labels, groups, times, 0)
    if labels.dtype.kind in "US" or known.labels.dtype.kind in "OUS":
        labels, proof = labels.astype(str), known.labels.astype(str)
    else:
        proof = known.labels.reshape(len(known.labels), *labels.shape[1:])
    count = len(proof)
    return _Labeled(
        {name: np.concatenate([known.outputs[name], array]) for name, array in outputs.items()},
        np.concatenate([proof, labels]),
        np.concatenate([-1 - np.arange(count), groups]),
        np.concatenate([np.zeros(count), times]),
        count,
    )


def _one(judge: Judge, look: str, rows: _Labeled, known: Baseline, question: Question, tests: int) -> Measured:
    """Return what a metric says of a look.

    Raises:
        ValueError: too few requests have labels.
        RecipeError: labels and answers don't fit.
    """
    figure = judge.over_rows(rows.outputs, rows.outputs, rows.labels)
    by_row = judge.by_row(rows.outputs, rows.outputs, rows.labels)
    bounds = judge.metric.bounds if judge.metric else (-np.inf, np.inf)

    def of(places: np.ndarray) -> Estimate:
        own = None if by_row is None else by_row[places]
        return estimate(lambda drawn: figure(places[drawn]), rows.groups[places], own, bounds)

    places = np.arange(rows.proof, len(rows.labels))
    live = of(places)
    proof = of(np.arange(rows.proof)) if rows.proof else _as_proven(judge, known, is_share=live.right is not None)
    doubt, sure = question.budget.doubts(tests, tests)
    found = loss(live, proof, higher_is_better=judge.higher_is_better, doubt=doubt, sure=sure)
    state = found.state(question.warn, question.act)
    times = rows.times[places]
    parts = []
    for part in np.array_split(places, max(1, min(PARTS, live.rows // FEWEST_OF_A_PART))):
        try:
            parts.append(_interval(of(part), doubt, rows.times[part]))
        except ValueError:
            continue
    return Measured(
        judge.name,
        judge.higher_is_better,
        look,
        state,
        _interval(live, doubt, times),
        _interval(proof, doubt),
        found.point,
        found.low,
        found.high,
        rows_to_decide(live, found, question.act) if state == "undecided" else None,
        tuple(parts),
    )


def _as_proven(judge: Judge, known: Baseline, *, is_share: bool) -> Estimate:
    """Return the figure of the proof's report, where its rows aren't kept: a share with its bounds, another without."""
    if judge.name not in known.scores:
        raise ValueError("no rows of its proof are kept here, and its report has another metric")
    value, rows = known.scores[judge.name]
    return Estimate(value, rows, right=value * rows if is_share else None)


def _interval(found: Estimate, doubt: float, times: np.ndarray | None = None) -> Interval:
    first, last = ("", "") if times is None else (iso(float(times.min())), iso(float(times.max())))
    return Interval(found.point, found.low(doubt), found.high(doubt), found.rows, first, last)


def require_thresholds(warn: float, act: float) -> None:
    """Raise HoneError unless people are warned before something is done."""
    if not 0 < warn <= act:
        raise HoneError(f"--warn {warn:g} and --act {act:g}: both are shares over 0, and warn is not over act")
