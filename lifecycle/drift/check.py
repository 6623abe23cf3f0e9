"""Compare a model's sketched traffic with the rows of its proof, and with the same hours of earlier weeks."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hone import store
from hone.artifact import Artifact
from hone.cache import cache_dir
from hone.errors import HoneError
from hone.evidence.shifts import (
    Budget,
    Change,
    Counted,
    chi_square,
    largest_change,
    rows_to_see,
    share,
    smallest_seen,
    stability_index,
    total_variation,
    wasserstein,
)
from hone.files import hash_file
from hone.records import Verdict
from hone.sketches import folder as sketches
from hone.sketches.bucket import fetched
from hone.sketches.reference import QUANTILES, Reference, References, read_references
from hone.sketches.window import Window

from .counting import of_reference, of_window
from .findings import Drift, Finding
from .looks import LOOKS, MOST_HOURS, SHORT_ROWS, WEEKS, Span, history, merged, spans

CONFIDENCE = 0.95
"""Of the bounds of a column in a look. False alarms have a budget of their own, which is far stricter where nothing
moves: this one says how surely what has moved is beyond the threshold."""
DRAWN = 12
"""Columns whose shares are kept for a page."""
ORDER: dict[Verdict, int] = {"missed": 0, "undecided": 1, "met": 2}


def budget_of(a_month: float = Budget.a_month, looks: int = Budget.looks) -> Budget:
    """Return the false alarms that looks of a month may raise, with the confidence that drift is told with."""
    return Budget(a_month, looks, CONFIDENCE)


@dataclass(frozen=True)
class Question:
    """What is asked of a model's traffic.

    Attributes:
        threshold: change that is drift.
        window: hours that are looked at; None: as many as have enough rows.
        since: the first hour since 1970; None: `window` says.
        budget: of false alarms.
        unserved: what a version would get that needn't have served yet: the inputs of rows that any version answered.
    """

    threshold: float = 0.1
    window: int | None = None
    since: int | None = None
    budget: Budget = field(default_factory=budget_of)
    unserved: bool = False


@dataclass(frozen=True)
class Look:
    """Rows of a span, and those of the same hours in earlier weeks: of any version, and of this one."""

    span: Span
    window: Window
    before: Window | None
    own: Window | None

    def history(self, reference: Reference) -> Window | None:
        """Return what a column is compared with: a rollout is no drift of inputs, and versions answer otherwise."""
        found = self.before if reference.column.side == "input" else self.own
        return found if found is not None and found.rows >= SHORT_ROWS else None


def check(model: str, folder: Path, question: Question, now_s: float | None = None) -> Drift:
    """Return what is found of a stored model.

    Args:
        model: NAME, NAME@ALIAS or NAME:VERSION; of a name, what it means.
        folder: of the sketches, or an address of an object store.
        now_s: seconds since 1970; None: now.

    Raises:
        HoneError: there is no such model, it holds no reference, or the folder isn't there.
    """
    entry = store.resolve(model)
    artifact = entry.opened()
    references, digest = _references(artifact, entry.tag)
    folder = fetched(folder, entry.name, cache_dir())
    if not folder.is_dir():
        raise HoneError(f"{folder}: not a folder; services write sketches to HONE_DRIFT_DIR")
    now_hour = int(time.time() if now_s is None else now_s) // sketches.HOUR_S
    earliest = min(now_hour - MOST_HOURS, question.since or now_hour) - MOST_HOURS * WEEKS - MOST_HOURS
    found = sketches.read(folder, entry.name, now_hour, since=earliest)
    served = [one for one in found.windows if one.about.version == entry.version]
    ours = [one for one in served if one.about.reference == digest]
    problems = [*found.problems]
    if question.unserved:
        ours = [one for one in found.windows if one.columns == tuple(references.names)]
    elif other := len(served) - len(ours):
        problems.append(f"{other} hour(s) were sketched by another reference of {entry.tag}, and are left out")
    looks = looks_of(ours, found.windows, question, now_hour)
    findings, shapes = findings_of(looks, references, question)
    first = min((one.span.first for one in looks), default=now_hour)
    return Drift(
        model=entry.tag,
        checked=_iso(now_s if now_s is not None else time.time()),
        first=_iso(first * sketches.HOUR_S),
        last=_iso(now_hour * sketches.HOUR_S),
        threshold=question.threshold,
        confidence=question.budget.confidence,
        budget=question.budget.a_month,
        reference_rows=references.rows,
        calibration_rows=references.calibration_rows,
        rows=max((one.window.rows for one in looks), default=0),
        findings=findings,
        problems=tuple(problems),
        shapes=shapes,
    )


def _references(artifact: Artifact, tag: str) -> tuple[References, str]:
    """Return an artifact's reference and its hash.

    Raises:
        HoneError: it has none.
    """
    references = read_references(artifact)
    if references is None or artifact.manifest.drift is None:
        raise HoneError(
            f"{tag}: its artifact holds no reference of its proof's rows, it was made before there were any; "
            "hone optimize makes one"
        )
    return references, hash_file(artifact.path / artifact.manifest.drift)


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")


def looks_of(ours: Sequence[Window], everything: Sequence[Window], question: Question, now_hour: int) -> list[Look]:
    """Return the looks at a model's hours, ending with the one that it is now.

    Args:
        ours: the hours that are asked about.
        everything: all that is known, of any version, for the comparison with earlier weeks.
    """
    if question.since is not None:
        chosen = [Span(question.since, now_hour)]
    elif question.window is not None:
        chosen = [Span(now_hour - question.window + 1, now_hour)]
    else:
        chosen = spans({one.about.hour: one.rows for one in ours}, now_hour)
    found = []
    for span in chosen:
        window = merged(ours, span)
        if window is not None:
            alike = [one for one in everything if one.columns == window.columns]
            found.append(Look(span, window, history(alike, span), history(ours, span)))
    return found


def findings_of(
    looks: Sequence[Look], references: References, question: Question
) -> tuple[tuple[Finding, ...], dict[str, dict[str, object]]]:
    """Return the findings, the most important first, and the shares that a page draws."""
    tests = [LOOKS * len(one.sets()[1]) for one in references.columns]
    columns = [one for one in enumerate(references.columns) if one[1].column.side == "input" or not question.unserved]
    best: list[tuple[Finding, Look, int]] = []
    for place, reference in columns:
        doubts = question.budget.doubts(tests[place], sum(tests))
        found = [(_finding(look, place, reference, question, doubts), look, place) for look in looks]
        if found:
            # The look at fewer rows is quicker; where neither finds drift, the other knows better.
            best.append(min(reversed(found), key=lambda one: one[0].verdict != "missed"))
    best.sort(key=lambda one: (ORDER[one[0].verdict], -one[0].low, -one[0].effect))
    shapes = {found.column: _shape(look, place, references.columns[place]) for found, look, place in best[:DRAWN]}
    return tuple(found for found, _, _ in best), shapes


def _finding(look: Look, place: int, reference: Reference, question: Question, doubts: tuple[float, float]) -> Finding:
    """Return what is found of a column in a look."""
    window, column = look.window, reference.column
    live, known = of_window(window, place, reference), of_reference(reference)
    sets, names = reference.sets()
    change = largest_change(live, known, sets, *doubts)
    verdict, note, past = change.verdict(question.threshold), "", None
    if verdict == "missed":
        verdict, note, past = _with_history(look, place, reference, question, doubts)
        if verdict == "missed" and reference.calibration:
            of_calibration = Counted(np.array(reference.calibration, float))
            if largest_change(live, of_calibration, sets, *doubts).verdict(question.threshold) == "met":
                note += f"{'; ' if note else ''}like the calibration rows, which differ from the evaluation rows"
    independent, rows = float(live.independent.item()), max(1.0, float(live.rows.item()))
    numbers = not column.category
    probability, association = (None, None) if numbers else chi_square(live, known)
    return replace(
        _moved(change, names, sets, place, look, reference),
        verdict=verdict,
        note=note,
        history=past,
        independent=int(independent),
        smallest=smallest_seen(independent, references_rows(reference), question.threshold, doubts[0]),
        needed=rows_to_see(2 * question.threshold, references_rows(reference), question.threshold, doubts[0]),
        ks=float(np.abs(_halves(live, known, sets, names)).max(initial=0.0)) if numbers else None,
        total_variation=total_variation(live, known),
        psi=stability_index(live, known),
        wasserstein=_distance(window, place, reference) if numbers else None,
        chi_square=probability,
        cramers_v=association,
        missing=float(live.cells[0]) / rows,
        out_of_range=float(live.cells[1] + live.cells[-1]) / rows if numbers else float(live.cells[-1]) / rows,
        new=() if numbers else _new(window, place, reference),
    )


def references_rows(reference: Reference) -> int:
    return sum(reference.counts)


def _moved(
    change: Change, names: Sequence[str], sets: np.ndarray, place: int, look: Look, reference: Reference
) -> Finding:
    before = float(share(of_reference(reference), sets)[change.where])
    return Finding(
        column=reference.column.name,
        group=reference.column.group,
        verdict="undecided",
        effect=change.point,
        low=change.low,
        high=change.high,
        sure=change.sure,
        what=names[change.where],
        before=before,
        after=before + change.signed,
        rows=look.window.rows,
        requests=look.window.requests,
        independent=0,
        hours=look.span.hours,
        smallest=1.0,
        needed=None,
    )


def _with_history(
    look: Look, place: int, reference: Reference, question: Question, doubts: tuple[float, float]
) -> tuple[Verdict, str, float | None]:
    """Return the verdict on a column that has moved from the proof: drift if it has from earlier weeks, too."""
    before = look.history(reference)
    if before is None:
        return "missed", "no earlier week to compare with", None
    sets, _ = reference.sets()
    change = largest_change(
        of_window(look.window, place, reference), of_window(before, place, reference), sets, *doubts
    )
    verdict = change.verdict(question.threshold)
    if verdict == "missed":
        return verdict, "", change.point
    return verdict, "not the proof's rows, but those of the same hours in earlier weeks", change.point


def _halves(live: Counted, known: Counted, sets: np.ndarray, names: Sequence[str]) -> np.ndarray:
    places = [index for index, name in enumerate(names) if name.startswith("up to")]
    return np.asarray((share(live, sets) - share(known, sets))[places])


def _distance(window: Window, place: int, reference: Reference) -> float | None:
    levels = np.linspace(0.01, 0.99, QUANTILES - 2)
    live = window.quantiles(place, levels)
    if not len(live) or not reference.quantiles or not np.isfinite(live).all():
        return None
    return wasserstein(live, np.array(reference.quantiles[1:-1]))


def _new(window: Window, place: int, reference: Reference) -> tuple[str, ...]:
    known = {*reference.categories}
    return tuple(name for name, _ in window.most_frequent(place, 50) if name not in known)[:5]


def _shape(look: Look, place: int, reference: Reference) -> dict[str, object]:
    live, known = of_window(look.window, place, reference), of_reference(reference)
    if reference.column.category:
        names = ["missing", *reference.categories, "others"]
    else:
        ends = [f"{edge:.3g}" for edge in reference.edges]
        names = [
            "missing",
            f"< {reference.low:.3g}",
            *(f"≤ {end}" for end in ends),
            "the rest",
            f"> {reference.high:.3g}",
        ]
    before, after = (one.cells / max(1e-12, one.rows.item()) for one in (known, live))
    return {"names": names, "before": before.tolist(), "after": after.tolist()}
