"""What a run's report says of each variant: how it was made, what was measured, and what the selection made of it."""

from __future__ import annotations

import math

from hone.artifact import Measurements
from hone.recipe import Recipe
from hone.runtimes import runtime_class

from ..proof.evaluate import resolve_threads
from ..proof.race.early import SeenLoss
from ..proof.subject import Subject
from ..proof.verdicts.claims import Fragility
from ..proof.verdicts.select import Standing
from ..proof.verdicts.verdict import Ruling
from ..report.records import ClaimReport, FragilityReport, PassReport, VariantReport, latency_table
from .pipeline import Outcome
from .plan import Node, Plan, Variant


def variant_reports(
    plan: Plan,
    recipe: Recipe,
    subjects: list[Subject],
    outcomes: dict[int, Outcome],
    standings: dict[str, Standing],
    tags: dict[str, str],
    base: float,
) -> list[VariantReport]:
    """Return a report of the source and of each variant of the plan.

    Args:
        plan: of the run.
        recipe: of the run.
        subjects: what was under proof, the source first.
        outcomes: of the passes.
        standings: by name, of what was measured.
        tags: in the store, by name of what was stored.
        base: the source's rows/s that speed-ups compare with.
    """
    by_name = {subject.name: subject for subject in subjects}
    made = [_variant(variant, plan, outcomes, by_name.get(variant.name), recipe, base) for variant in plan.variants]
    return [_baseline(subjects[0], standings[plan.source], recipe), *(_judged(one, standings, tags) for one in made)]


def fastest(source: Measurements, recipe: Recipe) -> tuple[str, float]:
    """Return the thread count, as the recipe calls it, at which the source is fastest, and its rows/s there.

    Some models are slower on all cores than on one; to compare with that would make every variant look good.
    """
    batch = recipe.budget.at.batch
    rates: dict[str, float] = {}
    for threads in recipe.measure.threads:
        latency = source.at(batch, resolve_threads(threads))
        rates |= {str(threads): latency.rows_per_s} if latency else {}
    return max(rates.items(), key=lambda item: item[1])


def _baseline(subject: Subject, standing: Standing, recipe: Recipe) -> VariantReport:
    report = VariantReport(
        name=subject.name, status="built", baseline=True, reason=standing.reason, pareto=standing.pareto
    )
    measured = _with_measurements(report, subject, recipe, None)
    return measured.model_copy(update={"eligible": standing.eligible})


def _variant(
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
    if subject.measurements is None:
        return report.model_copy(update={"status": "unproven", "verdict": "undecided", "reason": subject.stopped})
    return _with_measurements(report, subject, recipe, base)


def _judged(report: VariantReport, standings: dict[str, Standing], tags: dict[str, str]) -> VariantReport:
    """Return a variant's report with what the selection said of it, if it came that far, and its tag."""
    standing = standings.get(report.name)
    if standing is None:
        return report
    said = {name: getattr(standing, name) for name in ("rank", "eligible", "pareto", "tied", "verdict")}
    said["reason"] = _reason(report, standing)
    proof = _proof(standing.ruling) if standing.ruling else {}
    return report.model_copy(update={**said, **proof, "tag": tags.get(report.name)})


def _reason(report: VariantReport, standing: Standing) -> str:
    """Return why a variant stands there, and why it was not measured in full when that isn't said yet."""
    if not report.stopped or report.stopped in standing.reason:
        return standing.reason
    if isinstance(standing.ruling and standing.ruling.evidence.loss.bounds, SeenLoss):
        return report.stopped
    return f"{standing.reason}; {report.stopped}" if standing.reason else report.stopped


def _proof(ruling: Ruling) -> dict[str, object]:
    """Return what a report says of a ruling."""
    evidence = ruling.evidence
    by_class, by_slice = evidence.worst_class, evidence.worst_slice
    return {
        "loss": ruling.loss,
        "loss_lower": ruling.lower,
        "loss_upper": ruling.upper if ruling.upper is not None and math.isfinite(ruling.upper) else None,
        "level": ruling.level,
        "loss_allowed": ruling.allowed,
        "confidence": ruling.confidence,
        "rows_to_decide": ruling.rows_to_decide,
        "worst_class": by_class.name if by_class else None,
        "worst_class_loss": by_class.loss if by_class else None,
        "worst_slice": by_slice.name if by_slice else None,
        "worst_slice_loss": by_slice.loss if by_slice else None,
        "claims": [
            ClaimReport(
                what=claim.what,
                loss=claim.bounds.point if claim.bounds else None,
                loss_upper=claim.bounds.upper(ruling.level) if claim.bounds else None,
                allowed=claim.allowed,
                problem=claim.problem,
            )
            for claim in evidence.others
        ],
        "disturbed": [_fragility(one, ruling) for one in evidence.disturbed],
    }


def _fragility(found: Fragility, ruling: Ruling) -> FragilityReport:
    bounds, allowed = found.claim.bounds, found.claim.allowed
    return FragilityReport(
        kind=found.kind,
        severity=found.severity,
        rows=found.rows,
        source=found.source,
        loss=bounds.point if bounds else None,
        loss_lower=bounds.lower(ruling.confidence) if bounds else None,
        loss_upper=bounds.upper(ruling.level) if bounds else None,
        allowed=allowed if math.isfinite(allowed) else None,
        problem=found.claim.problem,
    )


def _with_measurements(report: VariantReport, subject: Subject, recipe: Recipe, base: float | None) -> VariantReport:
    measurements = subject.measured
    manifest = subject.artifact.manifest
    at, remark = recipe.budget.at, runtime_class(manifest.runtime).remark
    latency = measurements.at(at.batch, resolve_threads(at.threads))
    assert latency is not None
    return report.model_copy(
        update={
            "runtime": subject.runtime,
            "stopped": subject.stopped,
            "evaluated_rows": measurements.quality.rows,
            "precision": manifest.precision,
            "remark": remark,
            "digest": manifest.digest,
            "quality": measurements.quality.value,
            "quality_drop": measurements.quality.drop,
            "max_difference": measurements.quality.max_difference,
            "mean_difference": measurements.quality.mean_difference,
            "rows_per_s_batch1": _rows_per_s(measurements, at.threads),
            "speedup": round(latency.rows_per_s / base, 3) if base and not remark else None,
            "size_mb": measurements.size_mb,
            "peak_rss_mb": measurements.peak_rss_mb,
            "load_ms": measurements.load_ms,
            **_time(subject),
            "latency_ms": latency_table(
                measurements.latency, {str(item): resolve_threads(item) for item in recipe.measure.threads}
            ),
        }
    )


def _time(subject: Subject) -> dict[str, object]:
    """Return what a report says of where the time goes."""
    profile = subject.profile
    if profile is None:
        return {}
    shares: dict[str, float] = {}
    for one in profile.operators:  # the same operator may run in several places
        shares[one.operator] = shares.get(one.operator, 0.0) + one.share
    return {
        "time_by_operator": {name: round(share, 4) for name, share in shares.items()},
        "findings": [finding.line for finding in profile.findings],
    }


def _rows_per_s(measurements: Measurements, threads: int | str) -> float | None:
    latency = measurements.at(1, resolve_threads(threads))
    return latency.rows_per_s if latency else None


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
