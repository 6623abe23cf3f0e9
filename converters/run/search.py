"""Search: choose passes and options by trying them, within a time limit.

Trials are proposed by Optuna's multi-objective TPE (Ozaki et al. 2022) and kept in an SQLite study, so that a search
that was stopped, or given more time, goes on where it ended. A trial is a chain of passes, run through the same cached
pipeline and measured by the same proof as a recipe's variants; one whose quality is hopeless isn't timed further.

What is fast on its own measurement may have been lucky. So the best trials are proven once more, with the recipe's own
variants in the same rounds, and the result of that decides.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.artifact import Artifact
from hone.cache import cache_dir
from hone.errors import HoneError, UnavailableError
from hone.files import atomic_write
from hone.recipe import MeasureSpec, VariantSpec

from ..proof.evaluate import prove, resolve_threads
from ..proof.subject import Subject
from ..report.records import Report
from . import search_space
from .optimize import Display, Request, Run, optimize
from .pipeline import Pipeline, Progress
from .plan import make_plan
from .search_space import Chain

if TYPE_CHECKING:
    import optuna

FINALISTS = 4
"""So many trials are proven again beside the recipe's own variants."""

FINAL_SHARE = 0.4
"""Of the time limit is kept for the last proof; a proof that is estimated to take longer keeps more."""

HOPELESS = 3.0
"""A trial whose drop is over so many times the budget is measured no further."""

REPEATS = 20
"""After so many proposals in a row that were tried before, one is taken from those left."""

QUICK = {"rounds": 1, "round_ms": 20}
CLOSER = {"rounds": 6, "round_ms": 25}


@dataclass(frozen=True)
class Trial:
    """What became of one proposal.

    Attributes:
        passes: the chain.
        speed: rows/s over the source's, both measured in the same rounds.
        drop: of quality, against the source.
        problem: why it has no measurements, else empty.
        dead: so many of the first passes fail together on this model; 0 when they don't.
    """

    passes: Chain
    speed: float = 0.0
    drop: float = 0.0
    problem: str = ""
    dead: int = 0


def search(request: Request, minutes: float, display: Display) -> tuple[Report, list[Trial]]:
    """Search for variants of a recipe's model, then prove the best beside the recipe's own.

    Args:
        request: as for `optimize`; `only` is ignored.
        minutes: the time limit, the final proof included.
        display: how progress reaches the user.

    Returns:
        The report of the final proof, and every trial of the study.

    Raises:
        UnavailableError: Optuna is not installed.
        RecipeError, HoneError: as `optimize`.
    """
    _require_optuna()
    started = time.monotonic()
    ends = started + minutes * 60
    tried: list[Trial] = []

    def find(run: Run) -> tuple[VariantSpec, ...]:
        trials = _Trials(run, display)
        trials.run(ends)
        tried.extend(trials.all())
        return finalists(tried, trials.limit)

    report = optimize(replace(request, only=()), display, find=find)
    return report, tried


def write_trials(trials: list[Trial], folder: Path) -> Path:
    """Write what was tried beside the report; return the file."""
    file = folder / "search.json"
    content = {"schema_version": 1, "trials": [asdict(trial) for trial in trials]}
    atomic_write(file, json.dumps(content, indent=2) + "\n")
    return file


def finalists(trials: list[Trial], limit: float) -> tuple[VariantSpec, ...]:
    """Return the trials worth another look: on the Pareto front of speed and drop, within the budget first.

    Args:
        trials: of the study.
        limit: the largest drop that the budget allows.
    """
    measured = [trial for trial in trials if not trial.problem]
    front = [trial for trial in measured if not any(_beats(other, trial) for other in measured)]
    front.sort(key=lambda trial: (trial.drop > limit, -trial.speed))
    unique = list({_key(trial.passes): trial for trial in front}.values())
    return tuple(
        VariantSpec(name=f"search-{index}", passes=trial.passes) for index, trial in enumerate(unique[:FINALISTS], 1)
    )


def _beats(other: Trial, trial: Trial) -> bool:
    """Return whether a trial is at least as good in both, and better in one."""
    same = (other.speed, other.drop) == (trial.speed, trial.drop)
    return other.speed >= trial.speed and other.drop <= trial.drop and not same


def _require_optuna() -> None:
    from importlib.util import find_spec

    if find_spec("optuna") is None:
        raise UnavailableError("optuna is not installed", "pip install 'hone[search]'")


class _Trials:
    """Runs and remembers trials of one study."""

    def __init__(self, run: Run, display: Display) -> None:
        self._run = run
        self._display = display
        recipe = run.loaded.recipe
        self._space = search_space.for_recipe(recipe, run.prepared.framework)
        self._study = self._open()
        self._known = {_key(trial.passes): trial for trial in self._stored()}
        self._dead = {_prefix(trial.passes[: trial.dead]) for trial in self._known.values() if trial.dead}
        self.limit = float("inf")
        self._slowest = 0.0

    def _open(self) -> optuna.Study:
        """Open the study of this source, data, budget and space; another of them is another study."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        recipe = self._run.loaded.recipe
        identity = [
            self._run.source.artifact.digest,
            self._run.prepared.calibration_digest,
            recipe.quality.model_dump(mode="json"),
            recipe.budget.model_dump(mode="json"),
            self._space.identity,
        ]
        name = f"{recipe.name}-{hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]}"
        folder = cache_dir() / "search"
        folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # multivariate is called experimental since 2020
            sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True, n_startup_trials=8)
        return optuna.create_study(
            storage=f"sqlite:///{folder / 'studies.db'}",
            study_name=name,
            directions=["maximize", "minimize"],
            sampler=sampler,
            load_if_exists=True,
        )

    def _stored(self) -> list[Trial]:
        kept = (trial.user_attrs.get("trial") for trial in self._study.get_trials(deepcopy=False))
        contents = [json.loads(text) for text in kept if text]
        return [Trial(**{**content, "passes": tuple(content["passes"])}) for content in contents]

    def all(self) -> list[Trial]:
        """Return every chain that was tried, those of earlier runs of the same study included."""
        return list(self._known.values())

    def run(self, ends: float) -> None:
        """Try chains until the time left is needed for the last proof, or none is left."""
        started = time.monotonic()
        for proposal in self._space.first():
            if self._is_new(self._space.chain(proposal)):
                self._study.enqueue_trial(proposal, skip_if_exists=True)
        left = [proposal for proposal in self._space.all() if self._is_new(self._space.chain(proposal))]
        random.Random(0).shuffle(left)
        while any(self._is_new(self._space.chain(proposal)) for proposal in left):
            variants = FINALISTS + len(self._run.loaded.recipe.variants)
            kept = max(FINAL_SHARE * (ends - started), variants * self._slowest)
            if ends - time.monotonic() < kept:
                return
            asked = self._ask(left)
            chain = self._space.suggest(asked)
            before = time.monotonic()
            trial = self._try(chain)
            self._slowest = max(self._slowest, time.monotonic() - before)
            self._known[_key(chain)] = trial
            if trial.dead:
                self._dead.add(_prefix(chain[: trial.dead]))
            self._tell(asked, trial)
            self._display.message(_line(len(self._known), trial))

    def _is_new(self, chain: Chain) -> bool:
        """False for a chain that was tried, or that goes through passes that have failed on this model."""
        prefixes = (_prefix(chain[:length]) for length in range(1, len(chain) + 1))
        return _key(chain) not in self._known and not any(prefix in self._dead for prefix in prefixes)

    def _ask(self, left: list[dict[str, Any]]) -> optuna.trial.Trial:
        """Return a proposal that is new: the sampler's, or, when it keeps repeating itself, one of those left."""
        repeats = 0
        while True:
            asked = self._study.ask()
            chain = self._space.suggest(asked)
            if self._is_new(chain):
                return asked
            known = self._known.get(_key(chain), Trial(chain, problem="goes through passes that failed"))
            self._tell(asked, known, stored=False)
            repeats += 1
            if repeats == REPEATS:
                self._study.enqueue_trial(next(one for one in left if self._is_new(self._space.chain(one))))

    def _tell(self, asked: optuna.trial.Trial, trial: Trial, *, stored: bool = True) -> None:
        """Give a result to the sampler; a chain that was proposed again is stored once."""
        from optuna.trial import TrialState

        if stored:
            asked.set_user_attr("trial", json.dumps({**asdict(trial), "passes": list(trial.passes)}))
        if trial.problem:
            self._study.tell(asked, state=TrialState.FAIL)
        else:
            self._study.tell(asked, (trial.speed, trial.drop))

    def _try(self, chain: Chain) -> Trial:
        spec = VariantSpec(name="trial", passes=chain)
        recipe = self._run.loaded.recipe.model_copy(update={"variants": (spec,)})
        loaded = self._run.loaded.model_copy(update={"recipe": recipe})
        try:
            plan = make_plan(loaded, self._run.prepared.framework)
        except HoneError as error:
            return Trial(chain, problem=str(error))
        if plan.variants[0].unavailable:
            return Trial(chain, problem=str(plan.variants[0].unavailable))
        outcomes = Pipeline(loaded, self._run.prepared, self._run.workers).run(plan, self._quiet())
        outcome = outcomes[id(plan.leaves["trial"])]
        if outcome.failure is not None or outcome.artifact is None:
            failed = [number for number, node in enumerate(plan.nodes, 1) if outcomes[id(node)].failure]
            dead = failed[0] if outcome.failure and outcome.failure.expected else 0
            return Trial(chain, problem=outcome.failure.message if outcome.failure else "no artifact", dead=dead)
        return self._measure(chain, outcome.artifact)

    def _quiet(self) -> Progress:
        return Progress(on_start=self._display.message, on_message=self._display.message)

    def _measure(self, chain: Chain, artifact: Artifact) -> Trial:
        """Measure quality and a first latency; a closer one only where the trial isn't hopeless."""
        found = self._prove(artifact, QUICK)
        if isinstance(found, str):
            return Trial(chain, problem=found)
        speed, drop = found
        if drop <= HOPELESS * self.limit:
            again = self._prove(artifact, CLOSER)
            if isinstance(again, str):
                return Trial(chain, problem=again)
            speed, drop = again
        return Trial(chain, round(speed, 4), round(drop, 6))

    def _prove(self, artifact: Artifact, effort: dict[str, int]) -> tuple[float, float] | str:
        at = self._run.loaded.recipe.budget.at
        measure = MeasureSpec(batches=(at.batch,), threads=(at.threads,), **effort)
        run = self._run
        source, subject = run.source.unmeasured(), Subject("trial", artifact, steps=run.steps)
        prove([source, subject], run.prepared.evaluation, run.scratch, measure, run.judge, lambda *_: None)
        if subject.failure or subject.measurements is None or source.measurements is None:
            return subject.failure or "not measured"
        self.limit = run.loaded.recipe.budget.allowed_drop(source.measurements.quality.source)
        threads = resolve_threads(at.threads)
        ours, theirs = (side.measurements.at(at.batch, threads) for side in (subject, source) if side.measurements)
        assert ours is not None and theirs is not None
        return ours.rows_per_s / theirs.rows_per_s, subject.measurements.quality.drop


def _line(count: int, trial: Trial) -> str:
    names = " > ".join(name for step in trial.passes for name in step)
    result = trial.problem or f"{trial.speed:.2f}x, drop {trial.drop:.4f}"
    return f"trial {count}: {names}: {result}"[:160]


def _key(chain: Chain) -> str:
    return json.dumps(chain, sort_keys=True)


def _prefix(chain: Chain) -> str:
    """Name the beginning of a chain. How much was pruned before doesn't change what a later pass finds in the graph."""
    return _key((*(step for step in chain[:-1] if "prune" not in step), *chain[-1:]))
