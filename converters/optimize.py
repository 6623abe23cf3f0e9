"""Optimize: recipe in; proven variants, a report and stored artifacts out."""

from __future__ import annotations

import datetime
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from converters.disturbance import HostNoise
from converters.evaluate import Subject, answer, prove, resolve_threads
from converters.metrics import Metric, make_metric
from converters.pipeline import Outcome, Pipeline, Progress, drop_stale
from converters.plan import Node, Plan, Variant, check_variants, make_plan
from converters.prepare import Prepared, prepare
from converters.records import PassReport, Report, VariantReport, latency_table
from converters.sanity import check_metric
from converters.select import Candidate, Verdict, select
from converters.workers import Failure, Workers, workplace
from hone import store
from hone.artifact import Artifact, Measurements, Selection, check_writable
from hone.cache import cache_dir
from hone.data import read_dataset
from hone.errors import HoneError, one_line
from hone.hardware import host
from hone.recipe import LoadedRecipe, Recipe, VariantSpec, load_recipe

SERVABLE = ("onnx", "tensorrt", "mlx", "openvino")


@dataclass(frozen=True)
class Request:
    """What the user asked for on the command line."""

    recipe: Path
    only: tuple[str, ...] = ()
    force: bool = False
    jobs: int = 1
    store: bool = True


@dataclass
class Display:
    """How progress reaches the user."""

    plan: Callable[[Plan], None]
    passes: Progress
    proof: Callable[[int, int, str], None]
    message: Callable[[str], None]
    note: Callable[[str], None] = field(default=lambda _: None)
    """A line that stays."""


@dataclass(frozen=True)
class Run:
    """A run whose source has been read, and has answered the evaluation rows."""

    loaded: LoadedRecipe
    prepared: Prepared
    source: Subject
    metric: Metric
    workers: Workers
    scratch: Path


Beside = Callable[[list[Subject], Path], list[Subject]]
"""Given the source and the variants, and a scratch folder: what else is measured in the same rounds, unranked."""
Find = Callable[[Run], tuple[VariantSpec, ...]]
"""Given a run, variants beside the recipe's own."""


def optimize(request: Request, display: Display, beside: Beside | None = None, find: Find | None = None) -> Report:
    """Make, prove and rank the variants of a recipe, and store those that the recipe keeps.

    Args:
        request: what to do.
        display: how progress reaches the user.
        beside: adds artifacts of other tools to the measurement, for comparisons; their measurements are left in the
            subjects that it returned.
        find: looks for more variants before the recipe's are made.

    Raises:
        RecipeError: the recipe, or data or code that it names, is wrong; or its metric can't tell good from broken.
        HoneError: the source model can't be measured, or what would be written in the end can't be.
    """
    started = time.monotonic()
    loaded = load_recipe(request.recipe)
    check_variants(loaded, request.only)
    check_writable(cache_dir(), "the pass cache (HONE_CACHE)")
    if request.store:
        check_writable(store.models_dir(), "the model store (BENTOML_HOME)")
    with workplace(request.jobs, display.passes.on_message, "hone-run-") as (workers, scratch):
        run = _start(loaded, workers, scratch, display)
        if find is not None:
            variants = (*loaded.recipe.variants, *find(run))
            loaded = loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"variants": variants})})
        plan = make_plan(loaded, run.prepared.framework, request.only)
        display.plan(plan)
        pipeline = Pipeline(loaded, run.prepared, workers, force=request.force)
        outcomes = pipeline.run(plan, display.passes)
        workers.close()  # their memory is wanted for the proof
        subjects, noise = _prove(run, plan, outcomes, display, beside)
    return _conclude(request, loaded, plan, outcomes, subjects, noise, started)


def _start(loaded: LoadedRecipe, workers: Workers, scratch: Path, display: Display) -> Run:
    """Read the source and the data, and see whether the metric tells the source's answers from wrong ones."""
    display.message("reading the source model and the data")
    prepared = prepare_source(loaded, workers, scratch)
    if prepared.note:
        display.note(prepared.note)
    make_plan(loaded, prepared.framework)
    source = Subject(prepared.framework, Artifact.open(prepared.source))
    labels = read_dataset(prepared.evaluation).labels
    metric = make_metric(loaded, source.artifact.signature.output_names, has_labels=labels is not None)
    display.message("the source model answers the evaluation rows")
    answer(source, prepared.evaluation, scratch, loaded.recipe.measure)
    check_metric(metric, source.outputs, labels, skip=bool(loaded.recipe.quality.skip_checks))
    return Run(loaded, prepared, source, metric, workers, scratch)


def prepare_source(loaded: LoadedRecipe, workers: Workers, scratch: Path) -> Prepared:
    """Read the source model and the data in a worker.

    Raises:
        HoneError: they can't be read.
    """
    folder = cache_dir() / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    drop_stale(folder)
    future = workers.call(prepare, loaded.path, folder, scratch / "evaluation.npz")
    result = workers.result(future)
    if isinstance(result, Failure):
        error = HoneError(result.message if result.expected else f"{loaded.path}: source: {result.message}")
        error.exit_code = result.exit_code
        raise error
    assert isinstance(result, Prepared)
    return result


def _prove(
    run: Run, plan: Plan, outcomes: dict[int, Outcome], display: Display, beside: Beside | None
) -> tuple[list[Subject], HostNoise]:
    subjects = [run.source]
    for variant in plan.variants:
        artifact = _artifact_of(plan, outcomes, variant)
        if artifact:
            subjects.append(Subject(variant.name, artifact))
    others = beside(subjects, run.scratch) if beside is not None else []
    measure, evaluation = run.loaded.recipe.measure, run.prepared.evaluation
    noise = prove([*subjects, *others], evaluation, run.scratch, measure, run.metric, display.proof)
    return subjects, noise


def _artifact_of(plan: Plan, outcomes: dict[int, Outcome], variant: Variant) -> Artifact | None:
    leaf = plan.leaves.get(variant.name)
    return outcomes[id(leaf)].artifact if leaf else None


def _conclude(
    request: Request,
    loaded: LoadedRecipe,
    plan: Plan,
    outcomes: dict[int, Outcome],
    subjects: list[Subject],
    noise: HostNoise,
    started: float,
) -> Report:
    """Rank, store and report."""
    recipe = loaded.recipe
    now = datetime.datetime.now(datetime.UTC)
    run = f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    measured = {subject.name: subject for subject in subjects if subject.measurements}
    candidates = [
        Candidate(name, _measured(subject), name != plan.source, len(subject.artifact.manifest.lineage))
        for name, subject in measured.items()
    ]
    verdicts = select(candidates, recipe)
    winner = next((name for name, v in verdicts.items() if v.rank == 0 and v.eligible and name != plan.source), None)
    tags, problem = _store(loaded, measured, verdicts, run) if request.store else ({}, "")
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
        if subject.artifact.runtime not in SERVABLE or not subject.artifact.manifest.lineage:
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
