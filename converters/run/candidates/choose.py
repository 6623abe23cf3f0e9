"""Choose the presets that `variants: auto` stands for: by the rules first, then by trials of what they let through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hone.artifact import Artifact
from hone.recipe import LoadedRecipe, VariantSpec

from ... import sources
from ...graph.contents import Contents, read_contents
from ...passes.export.skip_padding import masks_of
from ...report.records import CandidateReport
from ..pipeline import Pipeline, Progress
from ..plan import Plan, make_plan
from ..prepare import Prepared
from ..workers import Failure, Workers
from .facts import Facts, this_host
from .rules import FLOAT, RULES, Rule
from .trials import Trial, hopeless, run_trials

FOR_CHOOSING = 0.5
"""Of --minutes: after that no more presets are made that wait for a trial."""


@dataclass(frozen=True)
class Chosen:
    """What `auto` stands for in a run.

    Attributes:
        specs: variants, in the order of the rules.
        facts: what was looked at, a line each.
        candidates: every preset that there is a rule for, and why it is made or left out.
    """

    specs: tuple[VariantSpec, ...]
    facts: tuple[str, ...]
    candidates: tuple[CandidateReport, ...]


CODE = Chosen(
    (VariantSpec(preset="python-process"),),
    ("the model is Python code, which has no graph",),
    (CandidateReport(name="python-process", chosen=True, reason="the code itself, in a process of its own"),),
)
"""What `auto` stands for where there is nothing to make anything else of."""


def with_chosen(loaded: LoadedRecipe, specs: Iterable[VariantSpec]) -> LoadedRecipe:
    """Return a recipe with variants in the place of `auto`; one that the recipe names itself is as it says there."""
    own = loaded.recipe.variants
    named = {str(spec) for spec in own}
    new = [spec for spec in specs if str(spec) not in named]
    place = next(index for index, spec in enumerate(own) if spec.is_auto)
    kept = tuple(spec for spec in own[place + 1 :] if not spec.is_auto)
    variants = (*own[:place], *new, *kept)
    return loaded.model_copy(update={"recipe": loaded.recipe.model_copy(update={"variants": variants})})


class Choosing:
    """Makes, for one run, what the rules let through, and tries it.

    Args:
        loaded: the recipe, with `auto` among its variants.
        prepared: its source and data.
        workers: that trials run in.
        pipeline: that passes run through.
        message: gets what is going on.
    """

    def __init__(
        self,
        loaded: LoadedRecipe,
        prepared: Prepared,
        workers: Workers,
        pipeline: Pipeline,
        message: Callable[[str], None],
    ) -> None:
        self._loaded, self._prepared, self._workers = loaded, prepared, workers
        self._pipeline, self._message = pipeline, message
        self._trials: dict[str, Trial] = {}
        self._made: dict[str, Path] = {}
        self._failed: dict[str, str] = {}
        self._untried: dict[str, str] = {}
        """Presets that were made, and why their trials failed as a whole."""

    @property
    def _is_code(self) -> bool:
        return self._prepared.framework == "python"

    def facts(self) -> Facts:
        """Make the float graph, and read what it is made of."""
        self._make([_rule(FLOAT)], None)
        path = self._made.get(FLOAT)
        graph = Artifact.open(path) if path else None
        contents = read_contents(graph.entry) if graph else Contents()
        masked = bool(graph and len(masks_of(graph.signature)) == 1)
        source = sources.get(self._prepared.framework)
        unread = "" if graph else f"{FLOAT} {self._failed.get(FLOAT, 'was not made')}"
        return Facts(source.name, source.has_attention, contents, this_host(), self._loaded.recipe, masked, unread)

    def by_rules(self) -> Chosen:
        """Return what the rules let through, without a trial; those that wait for one included."""
        if self._is_code:
            return CODE
        facts = self.facts()
        against = {rule.preset: rule.against(facts) for rule in RULES}
        chosen = [rule for rule in RULES if not against[rule.preset]]
        return self._chosen(facts, chosen, against, {rule.preset: rule.waits_for for rule in RULES})

    def by_trials(self, minutes: float | None = None) -> Chosen:
        """Return what the rules let through and no trial showed to be hopeless.

        Args:
            minutes: time limit of the run; when half of it is over, what waits for a trial is not begun.
        """
        ends = float("inf") if minutes is None else time.monotonic() + FOR_CHOOSING * 60 * minutes
        if self._is_code:
            return CODE
        facts = self.facts()
        against = {rule.preset: rule.against(facts) for rule in RULES}
        left = [rule for rule in RULES if not against[rule.preset]]
        self._make_and_try([rule for rule in left if not rule.after], facts)
        waiting = [rule for rule in left if rule.after]
        while waiting:
            for rule in waiting:
                late = "half of the time limit was over" if time.monotonic() > ends else ""
                against[rule.preset] = late or self._against_waiting(rule)
            begun = [rule for rule in waiting if not against[rule.preset]]
            if not begun:
                break
            self._make_and_try(begun, facts)
            waiting = [rule for rule in waiting if rule not in begun]
        against |= hopeless(self._trials, self._loaded.recipe, FLOAT)
        against |= {name: said for name, said in self._failed.items() if name != FLOAT}
        return self._chosen(facts, [rule for rule in left if not against[rule.preset]], against, {})

    def _against_waiting(self, rule: Rule) -> str:
        """Return why a preset that waits for the trial of another isn't made."""
        trial = self._trials.get(rule.after)
        if trial is None:
            untried = self._untried.get(rule.after)
            return f"{rule.after} was not tried{f': {untried}' if untried else ''}"
        if trial.loss is None:
            return f"{rule.after}: {trial.problem or trial.unjudged}"
        if rule.lossy == trial.lossy:
            return ""
        return f"{rule.after} {'keeps to the budget' if rule.lossy else 'loses more than the budget allows'}"

    def _make_and_try(self, rules: Sequence[Rule], facts: Facts) -> None:
        self._make(rules, facts)
        self._try(rules)

    def _make(self, rules: Sequence[Rule], facts: Facts | None) -> None:
        """Run the passes of presets that were neither made nor failed yet."""
        settled = self._made.keys() | self._failed.keys()
        specs = [VariantSpec(preset=rule.preset) for rule in rules if rule.preset not in settled]
        if not specs:
            return
        plan = self._plan(specs)
        outcomes = self._pipeline.run(plan, Progress(self._message, self._message))
        for name, leaf in plan.leaves.items():
            outcome = outcomes[id(leaf)]
            if outcome.artifact is not None:
                self._made[name] = outcome.artifact.path
            elif outcome.failure is not None:
                self._failed[name] = f"could not be made: {outcome.failure.message}"

    def _plan(self, specs: Sequence[VariantSpec]) -> Plan:
        recipe = self._loaded.recipe.model_copy(update={"variants": tuple(specs)})
        return make_plan(self._loaded.model_copy(update={"recipe": recipe}), self._prepared.framework)

    def _try(self, rules: Sequence[Rule]) -> None:
        """Try presets that were made; without calibration rows there are none to try them on."""
        rows = self._prepared.rows.calibration
        names = [rule.preset for rule in rules if rule.preset in self._made]
        if rows is None or FLOAT not in self._made or not names or names == [FLOAT]:
            return
        # The time of one means something only beside the others', measured in the same turns.
        known = {name: trial for name, trial in self._trials.items() if not trial.problem}
        all_of_them = {name: self._made[name] for name in (*known, *names)}
        self._message(f"trying {', '.join(names)}")
        reference = self._made[FLOAT]
        future = self._workers.call(run_trials, self._loaded.path, rows, reference, all_of_them, known)
        found = self._workers.result(future)
        if isinstance(found, Failure):
            self._untried |= dict.fromkeys(names, found.message)
            self._message(f"trials failed: {found.message}")
        else:
            self._trials.update(found)

    def _chosen(self, facts: Facts, rules: Sequence[Rule], against: dict[str, str], waits: dict[str, str]) -> Chosen:
        names = {rule.preset for rule in rules}
        candidates = tuple(
            self._candidate(rule, rule.preset in names, against[rule.preset], waits.get(rule.preset, ""))
            for rule in RULES
        )
        failed = (f"trials failed: {said}" for said in dict.fromkeys(self._untried.values()))
        looked_at = (*facts.describe(), *failed)
        return Chosen(tuple(VariantSpec(preset=rule.preset) for rule in rules), looked_at, candidates)

    def _candidate(self, rule: Rule, chosen: bool, against: str, waits: str) -> CandidateReport:
        trial = self._trials.get(rule.preset, Trial())
        return CandidateReport(
            name=rule.preset,
            chosen=chosen,
            reason=(f"{rule.why}, {waits}" if waits else rule.why) if chosen else against,
            tried=rule.preset in self._trials,
            ms=round(trial.ms, 6) or None,
            size_mb=round(trial.size_mb, 6) or None,
            loss=None if trial.loss is None else round(trial.loss, 6),
        )


def _rule(preset: str) -> Rule:
    return next(rule for rule in RULES if rule.preset == preset)
