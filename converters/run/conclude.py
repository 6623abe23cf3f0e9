"""Conclude a run: rank what was proven, store what the recipe keeps, and make the report."""

from __future__ import annotations

import datetime
import hashlib
import secrets
import time

from hone import store
from hone.artifact import Measurements, Selection
from hone.errors import HoneError, one_line
from hone.hardware import host
from hone.recipe import LoadedRecipe, Recipe
from hone.runtimes import runtime_class

from ..proof.disturbance import HostNoise
from ..proof.evaluate import Subject, resolve_threads
from ..proof.select import Candidate, Verdict, select
from ..report.records import PassReport, Report, VariantReport, latency_table
from .pipeline import Outcome
from .plan import Node, Plan, Variant


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
    candidates = [
        Candidate(
            name,
            _measured(subject),
            servable=name != plan.source,
            steps=len(subject.artifact.manifest.lineage),
            turned=any(spec.source_axes for spec in subject.artifact.signature.inputs),
        )
        for name, subject in measured.items()
    ]
    verdicts = select(candidates, recipe)
    winner = next((name for name, v in verdicts.items() if v.rank == 0 and v.eligible and name != plan.source), None)
    tags, problem = _store(loaded, measured, verdicts, run) if keep else ({}, "")
    base = _fastest(subjects[0], recipe)
    reports = [_baseline_report(subjects[0], verdicts[plan.source], recipe)]
    by_name = {subject.name: subject for subject in subjects}
    for variant in plan.variants:
        report = _variant_report(variant, plan, outcomes, by_name.get(variant.name), recipe, base[1])
        verdict = verdicts.get(variant.name)
        if verdict:
            report = report.model_copy(
                update={
                    "rank": verdict.rank,
                    "eligible": verdict.eligible,
                    "pareto": verdict.pareto,
                    "reason": verdict.reason,
                    "tied": verdict.tied,
                    "tag": tags.get(variant.name),
                }
            )
        reports.append(report)
    return Report(
        name=recipe.name,
        run=run,
        created=now.isoformat(timespec="seconds"),
        recipe=loaded.path.name,
        recipe_sha256=hashlib.sha256(loaded.path.read_bytes()).hexdigest(),
        source=plan.source,
        metric=recipe.quality.metric,
        higher_is_better=_measured(subjects[0]).quality.higher_is_better,
        objective=recipe.objective,
        budget=recipe.budget,
        evaluation_rows=_measured(subjects[0]).quality.rows,
        host=host(),
        tools=_tools(measured),
        seconds=round(time.monotonic() - started, 1),
        winner=winner,
        source_threads=base[0],
        noise=noise,
        checks_skipped=recipe.quality.skip_checks,
        not_stored=problem,
        variants=reports,
    )


def _measured(subject: Subject) -> Measurements:
    assert subject.measurements is not None
    return subject.measurements


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


def _rows_per_s(measurements: Measurements, threads: int | str) -> float | None:
    latency = measurements.at(1, resolve_threads(threads))
    return latency.rows_per_s if latency else None


def _fastest(source: Subject, recipe: Recipe) -> tuple[str, float]:
    """Return the thread count, as the recipe calls it, at which the source is fastest, and its rows/s there.

    Some models are slower on all cores than on one; to compare with that would make every variant look good.
    """
    batch = recipe.budget.at.batch
    rates = {}
    for threads in recipe.measure.threads:
        latency = _measured(source).at(batch, resolve_threads(threads))
        assert latency is not None
        rates[str(threads)] = latency.rows_per_s
    return max(rates.items(), key=lambda item: item[1])


def _baseline_report(subject: Subject, verdict: Verdict, recipe: Recipe) -> VariantReport:
    report = VariantReport(
        name=subject.name, status="built", baseline=True, reason=verdict.reason, pareto=verdict.pareto
    )
    measured = _with_measurements(report, subject, recipe, None)
    return measured.model_copy(update={"eligible": verdict.eligible})


def _variant_report(
    variant: Variant,
    plan: Plan,
    outcomes: dict[int, Outcome],
    subject: Subject | None,
    recipe: Recipe,
    base: float | None,
) -> VariantReport:
    if variant.unavailable:
        reason, remedy = variant.unavailable.reason, variant.unavailable.remedy
        return VariantReport(name=variant.name, status="skipped", reason=reason, remedy=remedy)
    leaf = plan.leaves[variant.name]
    outcome = outcomes[id(leaf)]
    if outcome.failure:
        return VariantReport(name=variant.name, status="failed", reason=outcome.failure.message)
    assert subject is not None
    report = VariantReport(name=variant.name, status="built", passes=_passes(leaf, outcomes))
    if subject.failure:
        return report.model_copy(update={"status": "failed", "reason": subject.failure})
    return _with_measurements(report, subject, recipe, base)


def _with_measurements(report: VariantReport, subject: Subject, recipe: Recipe, base: float | None) -> VariantReport:
    measurements = _measured(subject)
    manifest = subject.artifact.manifest
    at = recipe.budget.at
    latency = measurements.at(at.batch, resolve_threads(at.threads))
    assert latency is not None
    return report.model_copy(
        update={
            "runtime": subject.runtime,
            "precision": manifest.precision,
            "digest": manifest.digest,
            "quality": measurements.quality.value,
            "quality_drop": measurements.quality.drop,
            "max_difference": measurements.quality.max_difference,
            "mean_difference": measurements.quality.mean_difference,
            "rows_per_s_batch1": _rows_per_s(measurements, at.threads),
            "speedup": round(latency.rows_per_s / base, 3) if base else None,
            "size_mb": measurements.size_mb,
            "peak_rss_mb": measurements.peak_rss_mb,
            "load_ms": measurements.load_ms,
            "latency_ms": latency_table(
                measurements.latency, {str(item): resolve_threads(item) for item in recipe.measure.threads}
            ),
        }
    )


def _passes(leaf: Node, outcomes: dict[int, Outcome]) -> list[PassReport]:
    chain: list[Node] = []
    node: Node | None = leaf
    while node:
        chain.append(node)
        node = node.parent
    reports = []
    for step in reversed(chain):
        outcome = outcomes[id(step)]
        assert outcome.artifact is not None
        record = outcome.artifact.manifest.lineage[-1]
        reports.append(
            PassReport(
                name=record.name,
                options=record.options,
                seconds=record.seconds,
                cached=outcome.cached,
                details=record.details,
            )
        )
    return reports
