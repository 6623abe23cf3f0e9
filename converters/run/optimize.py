"""Optimize: recipe in; proven variants, a report and stored artifacts out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from hone import store
from hone.artifact import Artifact
from hone.cache import cache_dir
from hone.data import Dataset, read_dataset
from hone.errors import HoneError
from hone.files import check_writable
from hone.recipe import LoadedRecipe, VariantSpec, load_recipe
from hone.steps.pipeline import ReadySteps
from hone.store.rows import keep_rows

from ..proof.evaluate import answer, check_energy, prove
from ..proof.golden import Taker
from ..proof.judge import Judge, make_judges
from ..proof.race.contest import Contest, TimeLimit
from ..proof.race.early import Early
from ..proof.robustness.judged import Robustness, check_robustness, is_asked_for
from ..proof.sanity import check_metric
from ..proof.subject import Subject
from ..proof.verdicts.claims import Asked, Fragility, Proof
from ..report.records import Report
from ..sources import for_recipe
from .candidates.choose import Choosing, Chosen, with_chosen
from .conclude import Keeping, conclude
from .holdout import Half, split
from .looks import looks_at
from .mlflow_source import local_source
from .pipeline import Outcome, Pipeline, Progress, drop_stale
from .plan import Plan, Variant, check_variants, make_plan
from .prepare import Prepared, prepare
from .workers import Failure, Workers, workplace


@dataclass(frozen=True)
class Request:
    """What the user asked for on the command line."""

    recipe: Path
    only: tuple[str, ...] = ()
    force: bool = False
    jobs: int = 1
    store: bool = True
    full: bool = False
    """Measure also what can't win in full."""
    minutes: float | None = None
    """Time limit of the proof; None: there is none."""
    source: Path | None = None
    """A file in the place of the recipe's `source.file`: a newly trained model."""


def report_folder(request: Request, out: Path | None) -> Path:
    """Return where the report goes: `out`, or out/NAME; a run of some variants doesn't replace the report of all."""
    if out is not None:
        return out
    folder = Path("out") / load_recipe(request.recipe).recipe.name
    return folder / "only" if request.only else folder


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
    judges: list[Judge]
    workers: Workers
    scratch: Path
    selection_rows: int = 0
    chosen: Chosen | None = None
    steps: ReadySteps | None = None

    @property
    def judge(self) -> Judge:
        """Of the first metric, which ranks."""
        return self.judges[0]

    def of(self, half: Half) -> Run:
        return replace(self, prepared=half.prepared, source=half.source)


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
    loaded = load_recipe(request.recipe).with_source(request.source)
    check_variants(loaded, request.only)
    check_energy(loaded)
    check_writable(cache_dir(), "the pass cache (HONE_CACHE)")
    if request.store:
        check_writable(store.models_dir(), "the model store (BENTOML_HOME)")
    with workplace(request.jobs, display.passes.on_message, "hone-run-") as (workers, scratch):
        run = _start(loaded, workers, scratch, display, request.source)
        pipeline = Pipeline(loaded, run.prepared, workers, force=request.force)
        run = _choose(run, pipeline, request, display)
        run = _search(run, find) if find is not None else run
        loaded = run.loaded
        plan = make_plan(loaded, run.prepared.framework, request.only)
        display.plan(plan)
        outcomes = pipeline.run(plan, display.passes)
        workers.close()  # their memory is wanted for the proof
        evaluation = read_dataset(run.prepared.evaluation)
        subjects, others = _subjects(run, plan, outcomes, beside)
        contest = _contest(run, [*subjects, *others], evaluation, request, display)
        asked = contest.in_order_of_promise([*subjects, *others])
        measure = loaded.recipe.measure
        noise = prove(asked, run.prepared.evaluation, scratch, measure, run.judge, display.proof, contest)
        real = loaded.recipe.evaluation.keep_rows
        golden = Taker(run.prepared.evaluation, scratch, run.judge, real, run.steps)
        looks = looks_at(evaluation.inputs, run.prepared.rows.calibration, real=real)
        keeping = Keeping(golden, run.prepared.data, looks, display.note) if request.store else None
        measured = conclude(loaded, plan, outcomes, subjects, contest, noise, started, keeping)
    report = measured.model_copy(update={"selection_rows": run.selection_rows, **_choice(run.chosen)})
    _remember(evaluation if real else None, report, display.note)
    return report


def _choose(run: Run, pipeline: Pipeline, request: Request, display: Display) -> Run:
    """Put presets in the place of `auto`; those that --only names are not tried before."""
    if not run.loaded.recipe.is_auto:
        return run
    choosing = Choosing(run.loaded, run.prepared, run.workers, pipeline, display.message)
    chosen = choosing.by_rules() if request.only else choosing.by_trials(request.minutes)
    return replace(run, loaded=with_chosen(run.loaded, chosen.specs), chosen=chosen)


def _choice(chosen: Chosen | None) -> dict[str, object]:
    """Return what a report says of what `auto` stood for."""
    return {"chosen_by": list(chosen.facts), "candidates": list(chosen.candidates)} if chosen else {}


def _search(run: Run, find: Find) -> Run:
    """Add what a search finds; the rows that it looked at are not those of the proof."""
    recipe = run.loaded.recipe
    searched, proven = split(run.prepared, run.source, str(run.loaded.path))
    recipe = recipe.model_copy(update={"variants": (*recipe.variants, *find(run.of(searched)))})
    loaded = run.loaded.model_copy(update={"recipe": recipe})
    return replace(run.of(proven), selection_rows=searched.rows, loaded=loaded)


def plan_of(recipe: Path, only: tuple[str, ...], message: Callable[[str], None]) -> tuple[Plan, Chosen | None]:
    """Return what a recipe would make. For `auto` the source is read and exported: what fits depends on its graph.

    Raises:
        RecipeError, HoneError: as `optimize`.
    """
    loaded = load_recipe(recipe)
    check_variants(loaded, only)
    if not loaded.recipe.is_auto:
        with local_source(loaded) as (local, _):
            return make_plan(local, for_recipe(local).name, only), None
    with workplace(1, message, "hone-plan-") as (workers, scratch):
        prepared = prepare_source(loaded, workers, scratch)
        chosen = Choosing(loaded, prepared, workers, Pipeline(loaded, prepared, workers), message).by_rules()
    return make_plan(with_chosen(loaded, chosen.specs), prepared.framework, only), chosen


def _start(loaded: LoadedRecipe, workers: Workers, scratch: Path, display: Display, file: Path | None) -> Run:
    """Read the source and the data, and see whether the metric tells the source's answers from wrong ones."""
    display.message("reading the source model and the data")
    prepared = prepare_source(loaded, workers, scratch, file)
    if prepared.note:
        display.note(prepared.note)
    make_plan(loaded, prepared.framework)
    artifact = Artifact.open(prepared.source)
    recipe = loaded.recipe
    steps = ReadySteps(recipe.steps, artifact.signature, loaded.root) if recipe.steps else None
    source = Subject(prepared.framework, artifact, steps=steps)
    evaluation = read_dataset(prepared.evaluation)
    labels = evaluation.labels
    if is_asked_for(loaded.recipe):
        check_robustness(loaded, source.artifact.signature, evaluation)
    judges = make_judges(loaded, source.output_names, has_labels=labels is not None)
    display.message("the source model answers the evaluation rows")
    answer(source, prepared.evaluation, scratch, loaded.recipe.measure)
    if told := looks_at(evaluation.inputs, prepared.rows.calibration, real=True).unlike(artifact.signature):
        display.note(told)
    for judge in judges:
        check_metric(judge, source.outputs, labels, skip=bool(loaded.recipe.quality.skip_checks))
    run = Run(loaded, prepared, source, judges, workers, scratch, steps=steps)
    _proof(run, evaluation).check(source.outputs)
    return run


def prepare_source(loaded: LoadedRecipe, workers: Workers, scratch: Path, source: Path | None = None) -> Prepared:
    """Read the source model and the data in a worker; `source` stands in the place of the recipe's file.

    Raises:
        HoneError: they can't be read.
    """
    folder = cache_dir() / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    drop_stale(folder)
    future = workers.call(prepare, loaded.path, folder, scratch / "evaluation.npz", source)
    result = workers.result(future)
    if isinstance(result, Failure):
        error = HoneError(result.message if result.expected else f"{loaded.path}: source: {result.message}")
        error.exit_code = result.exit_code
        raise error
    assert isinstance(result, Prepared)
    return result


def _subjects(
    run: Run, plan: Plan, outcomes: dict[int, Outcome], beside: Beside | None
) -> tuple[list[Subject], list[Subject]]:
    """Return the source and its variants, and what is measured beside them."""
    subjects = [run.source]
    for variant in plan.variants:
        artifact = _artifact_of(plan, outcomes, variant)
        if artifact:
            subjects.append(Subject(variant.name, artifact, steps=run.steps))
    others = beside(subjects, run.scratch) if beside is not None else []
    for other in others:
        other.steps = run.steps
    return subjects, others


def _contest(run: Run, subjects: list[Subject], evaluation: Dataset, request: Request, display: Display) -> Contest:
    """Return the referee of a proof that begins now."""
    recipe = run.loaded.recipe
    limit = None if request.minutes is None else TimeLimit(request.minutes)
    proof = _proof(run, evaluation)
    early = Early(run.judge, proof.allowed, run.source.outputs, evaluation.labels, recipe.budget.confidence)
    disturbed = _disturbed(run, subjects, display.message) if is_asked_for(recipe) else None
    return Contest(recipe, proof.of, early, limit, full=request.full, disturbed=disturbed)


def _proof(run: Run, evaluation: Dataset) -> Proof:
    quality, budget = run.loaded.recipe.quality, run.loaded.recipe.budget
    asked = Asked(run.judges, budget, [budget.quality_drop, *(spec.drop for spec in quality.also)])
    return Proof(asked, run.source.outputs, evaluation.labels, evaluation.slices)


def _disturbed(
    run: Run, subjects: list[Subject], progress: Callable[[str], None]
) -> Callable[[str], tuple[Fragility, ...]]:
    """Return what lets a variant answer disturbed rows; the source answers them when the first one does."""
    by_name = {subject.name: subject for subject in subjects}

    @cache
    def robustness() -> Robustness:
        return Robustness(run.loaded, run.judge, run.source, run.prepared.evaluation, run.scratch, progress)

    return lambda name: robustness().of(by_name[name])


def _remember(kept: Dataset | None, report: Report, note: Callable[[str], None]) -> None:
    """Keep rows for load tests and promotions beside each stored artifact; a full disk costs them, not the run."""
    for tag in filter(None, (variant.tag for variant in report.variants)):
        entry = store.resolve(tag)
        if kept is None or entry.artifact is None:
            continue
        rows = {spec.name: spec.fit(kept.inputs[spec.name]) for spec in entry.artifact.signature.inputs}
        try:
            keep_rows(entry.path, rows, kept.labels, kept.raw)
        except OSError as error:
            note(f"rows for load tests are not kept: {error.filename}: {error.strerror}")
            return


def _artifact_of(plan: Plan, outcomes: dict[int, Outcome], variant: Variant) -> Artifact | None:
    leaf = plan.leaves.get(variant.name)
    return outcomes[id(leaf)].artifact if leaf else None
