"""Conclude a run: rank what was proven, store what the recipe keeps, and make the report."""

from __future__ import annotations

import datetime
import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hone import store
from hone.artifact import DataRecord, Manifest, Selection
from hone.errors import HoneError, one_line
from hone.hardware import host
from hone.hardware.energy import energy_meter
from hone.recipe import LoadedRecipe
from hone.runtimes import runtime_class
from hone.runtimes.onnx.providers import on_gpu
from hone.steps.packing import packed_steps

from ..proof.disturbance import HostNoise
from ..proof.evaluate import resolve_threads
from ..proof.golden import Taker
from ..proof.race.contest import Contest
from ..proof.subject import Subject
from ..proof.verdicts.select import Candidate, Standing, select
from ..registry import registered
from ..report.records import Report
from .looks import Looks
from .pipeline import Outcome
from .plan import Plan
from .variant_reports import fastest, variant_reports


@dataclass(frozen=True)
class Keeping:
    """What goes into the store beside a variant.

    Attributes:
        golden: takes its golden rows.
        data: what it was calibrated, trained and judged with.
        looks: what the rows look like that it was judged by.
        note: gets a line that stays.
    """

    golden: Taker
    data: Sequence[DataRecord]
    looks: Looks
    note: Callable[[str], None]


def conclude(
    loaded: LoadedRecipe,
    plan: Plan,
    outcomes: dict[int, Outcome],
    subjects: list[Subject],
    contest: Contest,
    noise: HostNoise,
    started: float,
    keep: Keeping | None,
) -> Report:
    """Rank, store (unless `keep` is None) and report; `contest` tells what each variant loses and which were beaten,
    `started` when the run began on the monotonic clock."""
    recipe = loaded.recipe
    now = datetime.datetime.now(datetime.UTC)
    run = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    measured = {subject.name: subject for subject in subjects if subject.measurements}
    candidates = [_candidate(subject, plan, contest) for subject in measured.values()]
    standings = select(candidates, recipe)
    winner, safest = (_best(standings, plan, verdict) for verdict in ("met", "undecided"))
    tags, problem = ({}, "") if keep is None else _store(loaded, measured, standings, run, keep)
    source = subjects[0].measured
    threads, base = fastest(source, recipe)
    return Report(
        name=recipe.name,
        run=run,
        created=now.isoformat(timespec="seconds"),
        recipe=loaded.path.name,
        recipe_sha256=hashlib.sha256(loaded.path.read_bytes()).hexdigest(),
        source=plan.source,
        metric=recipe.quality.metric,
        higher_is_better=source.quality.higher_is_better,
        objective=recipe.objective,
        budget=recipe.budget,
        evaluation_rows=source.quality.rows,
        host=host(),
        tools=_tools(measured),
        seconds=round(time.monotonic() - started, 1),
        winner=winner,
        safest=safest,
        source_threads=threads,
        noise=noise,
        energy=_energy(subjects),
        checks_skipped=recipe.quality.skip_checks,
        not_stored=problem,
        variants=variant_reports(plan, recipe, subjects, outcomes, standings, tags, base),
    )


def _energy(subjects: Sequence[Subject]) -> str:
    """Return whose counters the energies are from, or why there are none."""
    meters = [energy_meter(on_gpu(subject.artifact)) for subject in subjects]
    names = dict.fromkeys(counter.name for meter in meters for counter in meter.counters)
    return ", ".join(names) or meters[0].describe()


def _best(standings: dict[str, Standing], plan: Plan, verdict: str) -> str | None:
    """Return the best variant if that is the verdict on it."""
    best = (name for name, standing in standings.items() if standing.rank == 0 and name != plan.source)
    return next((name for name in best if standings[name].verdict == verdict), None)


def _candidate(subject: Subject, plan: Plan, contest: Contest) -> Candidate:
    artifact = subject.artifact
    return Candidate(
        subject.name,
        subject.measured,
        contest.evidence.get(subject.name),
        servable=subject.name != plan.source,
        steps=len(artifact.manifest.lineage),
        turned=any(spec.source_axes for spec in artifact.signature.inputs),
        beaten=subject.stopped if subject.name in contest.beaten else "",
    )


def _tools(measured: dict[str, Subject]) -> dict[str, str]:
    tools: dict[str, str] = {}
    for subject in measured.values():
        tools.update(subject.artifact.manifest.tools)
    return dict(sorted(tools.items()))


def _store(
    loaded: LoadedRecipe, measured: dict[str, Subject], standings: dict[str, Standing], run: str, keeping: Keeping
) -> tuple[dict[str, str], str]:
    """Put what the recipe keeps into the store, the winner last: it becomes the model's `latest`.

    Where none is proven, the safest of those that are undecided stands in for them; it is served by its own tag only.

    Returns:
        Tags by variant, and why the rest couldn't be stored, or an empty string: what was measured must not be lost.
    """
    keep = loaded.recipe.keep
    steps, files = packed_steps(loaded.recipe.steps, loaded.root)
    tags: dict[str, str] = {}
    for name, standing in sorted(standings.items(), key=lambda item: -item[1].rank):
        subject = measured[name]
        if runtime_class(subject.artifact.runtime).baseline or not subject.artifact.manifest.lineage:
            continue
        if (keep == "eligible" and not standing.eligible and standing.rank > 0) or (keep == "winner" and standing.rank):
            continue
        if all(other.verdict == "missed" for other in standings.values() if other.rank == 0):
            continue
        taken = keeping.golden.take(subject)
        if taken.reason:
            keeping.note(f"{name} gets no golden rows, hosts can't check its answers: {taken.reason}")
        look = keeping.looks.of(subject)
        artifact = subject.artifact.with_manifest(
            variant=name,
            steps=steps or None,
            drift=next(iter(look), None),
            golden=taken.record,
            data=_data_of(subject.artifact.manifest, keeping.data),
            measurements=subject.measurements,
            selection=_selection(loaded, standing, run),
        )
        try:
            beside: dict[str, bytes | Path] = {**files, **look}
            tags[name] = store.put(artifact, loaded.recipe.name, f"{name}-{run}", taken.rows, beside).tag
        except (HoneError, OSError) as error:
            return tags, f"{name} could not be stored: {one_line(error)}"
    return tags, ""


def _selection(loaded: LoadedRecipe, standing: Standing, run: str) -> Selection:
    at = loaded.recipe.budget.at
    return Selection(
        run=run,
        rank=standing.rank,
        objective=loaded.recipe.objective,
        eligible=standing.eligible,
        verdict=standing.verdict,
        loss_upper=standing.ruling.upper if standing.ruling else None,
        confidence=standing.ruling.confidence if standing.ruling else None,
        reason=standing.reason,
        batch=at.batch,
        threads=resolve_threads(at.threads),
    )


def _data_of(manifest: Manifest, data: Sequence[DataRecord]) -> tuple[DataRecord, ...]:
    """Return what an artifact was made and judged with: what no pass of its asked for isn't."""
    known = registered()
    asked = {need for record in manifest.lineage if record.name in known for need in known[record.name].needs}
    roles = {"evaluation"}
    roles |= {"calibration"} if {"calibration", "quality"} & asked else set()
    roles |= {"training"} if "train" in asked else set()
    return tuple(record for record in data if record.role in roles)
