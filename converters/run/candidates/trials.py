"""Trials: candidates answer a few calibration rows and are timed for a moment, all in one process; the clearly hopeless
are left out of the proof.

No evaluation row is looked at, so that the proof rests on rows that nothing was chosen by.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hone import runtimes
from hone.artifact import Artifact
from hone.data import Dataset, read_dataset
from hone.errors import one_line
from hone.recipe import LoadedRecipe, Recipe, load_recipe
from hone.runtimes.base import Runtime
from hone.signature import Tensors

from ...proof.evaluate import resolve_threads
from ...proof.metrics import stand_in

ROWS = 128
BATCH_ROWS = 16
FEWEST_ROWS = 16
"""Fewer calibration rows tell nothing of quality."""

TURNS = 5
TURN_NS = 15_000_000
"""In each turn a candidate runs for so long, twice at least, after one call that isn't timed."""

BROKEN = 5.0
"""A loss of so many times what is allowed is hopeless, where the metric compares with the source's answers."""

BROKEN_SHARE = 0.25
"""With labels a loss against them may be smaller than the distance to the source: so much of it must be lost, too."""

BEHIND = 1.4
"""A time of so many times that of one that loses next to nothing is beaten, whatever the noise of a few calls."""

NEXT_TO_NOTHING = 0.25
"""Of what the budget allows."""

FAR = 2.0
"""A latency of so many times its limit won't come below it."""


@dataclass(frozen=True)
class Trial:
    """What a candidate's trial showed.

    Attributes:
        ms: of a call at the budget's batch size and threads: the least of some turns' medians.
        size_mb: on disk.
        loss: the distance of its answers to those of the float graph, in the metric's unit; None: not looked at.
        allowed: by the budget, of that.
        scale: what a relative budget is a share of.
        problem: why it has no figures, else empty.
        unjudged: why there are figures but no loss, else empty.
    """

    ms: float = 0.0
    size_mb: float = 0.0
    loss: float | None = None
    allowed: float = 0.0
    scale: float = 1.0
    problem: str = ""
    unjudged: str = ""

    @property
    def lossy(self) -> bool:
        """It loses more than the budget allows."""
        return self.loss is not None and self.loss > self.allowed

    @property
    def exact(self) -> bool:
        """It loses next to nothing."""
        return self.loss is not None and self.loss <= NEXT_TO_NOTHING * self.allowed


def run_trials(
    recipe: Path, rows: Path, reference: Path, candidates: Mapping[str, Path], known: Mapping[str, Trial]
) -> dict[str, Trial]:
    """Try candidates in this process.

    Args:
        recipe: its file: metric, budget and conditions.
        rows: calibration rows, as `hone.data.save_dataset` wrote them.
        reference: the float graph's artifact, whose answers the others are compared with.
        candidates: artifacts by name.
        known: trials of some of them: these are timed again, beside the others.
    """
    loaded, data = load_recipe(recipe), read_dataset(rows).head(ROWS)
    at = loaded.recipe.budget.at
    threads = resolve_threads(at.threads)
    source = Artifact.open(reference)
    with closing(runtimes.load(source, threads)) as runtime:
        wanted = _answers(runtime, source, data)
    tried: dict[str, Trial] = {}
    running: dict[str, tuple[Runtime, Tensors]] = {}
    with ExitStack() as stack:
        for name, path in candidates.items():
            artifact = Artifact.open(path)
            try:
                runtime = stack.enter_context(closing(runtimes.load(artifact, threads)))
                trial = known.get(name) or _judged(loaded, _answers(runtime, artifact, data), wanted, data.rows)
                running[name] = runtime, _batch(artifact, data, at.batch)
            except Exception as error:  # noqa: BLE001 - a runtime may raise anything; it is said of this candidate
                tried[name] = Trial(problem=one_line(error))
                continue
            tried[name] = replace(trial, size_mb=artifact.manifest.size_bytes / 1e6)
        times, problems = _timed(running)
    tried |= {name: replace(tried[name], ms=ms) for name, ms in times.items()}
    return tried | {name: Trial(problem=problem) for name, problem in problems.items()}


def _judged(loaded: LoadedRecipe, got: Tensors, wanted: Tensors, rows: int) -> Trial:
    quality = loaded.recipe.quality
    if rows < FEWEST_ROWS:
        return Trial(unjudged=f"{rows} calibration rows are too few to tell its loss")
    output = quality.output or next(iter(wanted))
    loss = stand_in(quality.metric).loss
    scale = loss.scale(wanted[output])
    return Trial(
        loss=float(loss.of(got[output], wanted[output])),
        allowed=loaded.recipe.budget.allowed_drop(scale),
        scale=scale,
    )


def _answers(runtime: Runtime, artifact: Artifact, data: Dataset) -> Tensors:
    parts = [runtime.run(_fitted(artifact, batch)) for batch in data.batches(BATCH_ROWS)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _batch(artifact: Artifact, data: Dataset, rows: int) -> Tensors:
    return _fitted(artifact, data.of(np.arange(rows) % data.rows).inputs)


def _fitted(artifact: Artifact, rows: Tensors) -> Tensors:
    return {spec.name: spec.fit(rows[spec.name]) for spec in artifact.signature.inputs}


def _timed(running: Mapping[str, tuple[Runtime, Tensors]]) -> tuple[dict[str, float], dict[str, str]]:
    """Return milliseconds of a call by name, and the error of those that fail at it.

    Turns go round, and each starts with another candidate.
    """
    names = list(running)
    medians: dict[str, list[float]] = {name: [] for name in names}
    problems: dict[str, str] = {}
    for turn in range(TURNS):
        first = turn % max(1, len(names))
        for name in names[first:] + names[:first]:
            if name in problems:
                continue
            try:
                medians[name].append(_turn(*running[name]))
            except Exception as error:  # noqa: BLE001 - a runtime may raise anything; it is said of this candidate
                problems[name] = one_line(error)
    return {name: min(values) / 1e6 for name, values in medians.items() if name not in problems}, problems


def _turn(runtime: Runtime, rows: Tensors) -> float:
    runtime.run(rows)
    end = time.perf_counter_ns() + TURN_NS
    calls: list[int] = []
    while len(calls) < 2 or time.perf_counter_ns() < end:
        started = time.perf_counter_ns()
        runtime.run(rows)
        calls.append(time.perf_counter_ns() - started)
    return float(np.median(calls))


def hopeless(trials: Mapping[str, Trial], recipe: Recipe, kept: str) -> dict[str, str]:
    """Return which candidates can't win by what their trials showed, and why.

    Args:
        trials: by name.
        recipe: with the budget and the objective.
        kept: one that stays whatever it showed: the same numbers as the source, which others fall back on.
    """
    reasons = {name: said for name, trial in trials.items() if (said := _over(trial, recipe))}
    left = {name: trial for name, trial in trials.items() if name not in reasons}
    reasons |= {name: said for name in left if (said := _beaten(name, left, recipe))}
    reasons.pop(kept, None)
    return reasons


def _over(trial: Trial, recipe: Recipe) -> str:
    """Say what of the budget a trial is far over; empty where nothing is."""
    budget = recipe.budget
    if trial.problem:
        return f"it failed: {trial.problem}"
    if budget.size_mb is not None and trial.size_mb > budget.size_mb:
        return f"{trial.size_mb:.3g} MB, {budget.size_mb:g} are allowed"
    metric = stand_in(recipe.quality.metric)
    labeled = metric.needs_labels or metric.name != recipe.quality.metric
    most = max(BROKEN * trial.allowed, BROKEN_SHARE * trial.scale if labeled else 0.0)
    if trial.loss is not None and not trial.loss <= most:
        return f"its answers are {trial.loss:.3g} from the float graph's, {trial.allowed:.3g} may be lost"
    for limit in (budget.p50_ms, budget.p95_ms, budget.p99_ms):
        if limit is not None and trial.ms > FAR * limit:
            return f"{trial.ms:.3g} ms a call, {limit:g} are allowed"
    return ""


def _beaten(name: str, trials: Mapping[str, Trial], recipe: Recipe) -> str:
    """Say which other one is clearly better in what the recipe asks for, and as close to the source."""
    mine = trials[name]
    for other, trial in sorted(trials.items(), key=lambda item: item[1].ms):
        safe = trial.exact or (trial.loss is not None and mine.loss is not None and trial.loss <= mine.loss)
        if other == name or not safe:
            continue
        if recipe.objective == "latency" and mine.ms > BEHIND * trial.ms:
            return f"{mine.ms / trial.ms:.1f} times as slow as {other}, which is {_closeness(trial, mine)}"
        if recipe.objective == "size" and mine.size_mb > BEHIND * trial.size_mb:
            return f"{mine.size_mb / trial.size_mb:.1f} times as large as {other}, which is {_closeness(trial, mine)}"
    return ""


def _closeness(trial: Trial, mine: Trial) -> str:
    closer = trial.loss is not None and mine.loss is not None and trial.loss <= mine.loss
    return "as close to the source" if closer else "close enough to the source"
