"""Conclude a run: rank what was proven, store what the recipe keeps, and make the report."""

from __future__ import annotations

import datetime
import hashlib
import secrets
import time

from hone import store
from hone.artifact import Selection
from hone.errors import HoneError, one_line
from hone.hardware import host
from hone.recipe import LoadedRecipe
from hone.runtimes import runtime_class

from ..proof.disturbance import HostNoise
from ..proof.evaluate import Subject, resolve_threads
from ..proof.select import Candidate, Verdict, select
from ..report.records import Report
from .pipeline import Outcome
from .plan import Plan
from .variant_reports import fastest, variant_reports


def conclude(
    loaded: LoadedRecipe,
    plan: Plan,
    outcomes: dict[int, Outcome],
    subjects: list[Subject],
    noise: HostNoise,
    started: float,
    *,
    keep: bool,
) -> Report:
    """Rank, store (if `keep`) and report; `started` is when the run began, on the monotonic clock."""
    recipe = loaded.recipe
    now = datetime.datetime.now(datetime.UTC)
    run = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    measured = {subject.name: subject for subject in subjects if subject.measurements}
    verdicts = select([_candidate(subject, plan) for subject in measured.values()], recipe)
    winner = next((name for name, v in verdicts.items() if v.rank == 0 and v.eligible and name != plan.source), None)
    tags, problem = _store(loaded, measured, verdicts, run) if keep else ({}, "")
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
        source_threads=threads,
        noise=noise,
        checks_skipped=recipe.quality.skip_checks,
        not_stored=problem,
        variants=variant_reports(plan, recipe, subjects, outcomes, verdicts, tags, base),
    )


def _candidate(subject: Subject, plan: Plan) -> Candidate:
    artifact = subject.artifact
    return Candidate(
        subject.name,
        subject.measured,
        servable=subject.name != plan.source,
        steps=len(artifact.manifest.lineage),
        turned=any(spec.source_axes for spec in artifact.signature.inputs),
    )


def _tools(measured: dict[str, Subject]) -> dict[str, str]:
    tools: dict[str, str] = {}
    for subject in measured.values():
        tools.update(subject.artifact.manifest.tools)
    return dict(sorted(tools.items()))


def _store(
    loaded: LoadedRecipe, measured: dict[str, Subject], verdicts: dict[str, Verdict], run: str
) -> tuple[dict[str, str], str]:
    """Put what the recipe keeps into the store, the winner last: it becomes the model's `latest`.

    Returns:
        Tags by variant, and why the rest couldn't be stored, or an empty string: what was measured must not be lost.
    """
    keep, at = loaded.recipe.keep, loaded.recipe.budget.at
    tags: dict[str, str] = {}
    for name, verdict in sorted(verdicts.items(), key=lambda item: -item[1].rank):
        subject = measured[name]
        if runtime_class(subject.artifact.runtime).baseline or not subject.artifact.manifest.lineage:
            continue
        if (keep == "eligible" and not verdict.eligible) or (keep == "winner" and verdict.rank > 0):
            continue
        if not any(other.eligible for other in verdicts.values() if other.rank == 0):
            continue
        artifact = subject.artifact.with_manifest(
            variant=name,
            measurements=subject.measurements,
            selection=Selection(
                run=run,
                rank=verdict.rank,
                eligible=verdict.eligible,
                reason=verdict.reason,
                batch=at.batch,
                threads=resolve_threads(at.threads),
            ),
        )
        try:
            tags[name] = store.put(artifact, loaded.recipe.name, f"{name}-{run}").tag
        except (HoneError, OSError) as error:
            return tags, f"{name} could not be stored: {one_line(error)}"
    return tags, ""
