"""What variants lose against their source on rows that are disturbed alike for both."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hone.data import Dataset, read_dataset
from hone.errors import HoneError, one_line
from hone.recipe import LoadedRecipe, Recipe, RobustnessSpec, allowed_drop
from hone.signature import Signature, Tensors

from ..evaluate import thread_counts
from ..judge import Judge, at
from ..probe_process import ProbeProcess
from ..subject import Subject
from ..verdicts.claims import Claim, Fragility, claim_of
from ..verdicts.loss import Reference
from .rows import Case, Disturbed, cases_of, order


def is_asked_for(recipe: Recipe) -> bool:
    """Return whether a recipe wants rows to be disturbed: each kind costs as many answers of every model as a proof."""
    return recipe.robustness is not None or recipe.budget.robustness_drop is not None


def check_robustness(loaded: LoadedRecipe, signature: Signature, rows: Dataset) -> list[Case]:
    """Return what rows would be disturbed by.

    Args:
        loaded: the recipe.
        signature: of the source model.
        rows: of the evaluation.

    Raises:
        RecipeError: nothing that it asks for can be done to these inputs.
    """
    disturbed = Disturbed(signature.inputs, rows.inputs)
    return cases_of(loaded.recipe.robustness or RobustnessSpec(), disturbed, str(loaded.path))


@dataclass(frozen=True)
class _Answers:
    """To disturbed rows, by case; a model that fails has none, and why."""

    by_case: dict[Case, Tensors]
    problem: str = ""


class Robustness:
    """The source's answers to disturbed rows, which variants are compared with.

    Args:
        loaded: the recipe.
        judge: of its first metric.
        source: the source model.
        evaluation: what `hone.data.save_dataset` wrote.
        scratch: a folder for outputs and logs.
        progress: called with what is done.

    Raises:
        RecipeError: nothing that the recipe asks for can be done to the model's inputs.
    """

    def __init__(
        self,
        loaded: LoadedRecipe,
        judge: Judge,
        source: Subject,
        evaluation: Path,
        scratch: Path,
        progress: Callable[[str], None],
    ) -> None:
        dataset, recipe = read_dataset(evaluation), loaded.recipe
        self.cases = check_robustness(loaded, source.artifact.signature, dataset)
        self._spec, self._limit = recipe.robustness or RobustnessSpec(), recipe.budget.robustness_drop
        self._judge, self._evaluation, self._scratch, self._progress = judge, evaluation, scratch, progress
        self._threads = thread_counts(recipe.measure)[0]
        self._inputs = [spec.model_dump(mode="json") for spec in source.artifact.signature.inputs]
        self._labels = None if dataset.labels is None else dataset.labels[order(dataset.rows, self._spec.rows)]
        self._references: dict[tuple[Case, int], Reference] = {}
        self._source = self._answers(source)

    def of(self, subject: Subject) -> tuple[Fragility, ...]:
        """Let a variant answer the same rows; return what it loses, by case, which may be less rows than the source
        got through, or more."""
        answers = self._answers(subject)
        return tuple(self._fragility(case, answers) for case in self.cases)

    def _answers(self, subject: Subject) -> _Answers:
        self._progress(f"{subject.name} answers disturbed rows")
        out = self._scratch / f"{subject.name}-disturbed.npz"
        found: dict[Case, Tensors] = {}
        seconds = self._spec.seconds / len(self.cases)
        probe = ProbeProcess(subject.name, subject.artifact.path, self._evaluation, out.with_suffix(".log"))
        try:
            probe.answer()
            probe.ask("load", threads=self._threads)
            for case in self.cases:
                about = {"kind": case.kind, "severity": case.severity, "inputs": self._inputs}
                probe.ask("disturbed", out=str(out), rows=self._spec.rows, seconds=seconds, **about)
                with np.load(out, allow_pickle=False) as archive:
                    found[case] = subject.answered({name: archive[name] for name in archive.files})
        except HoneError as error:
            return _Answers(found, f"{subject.name} fails on disturbed rows: {error}")
        finally:
            probe.close()
            out.unlink(missing_ok=True)
        return _Answers(found)

    def _fragility(self, case: Case, answers: _Answers) -> Fragility:
        own, theirs = self._source.by_case.get(case), answers.by_case.get(case)
        if own is None or theirs is None:
            return self._unknown(case, 0, answers.problem if theirs is None else self._source.problem)
        rows = min(_rows(own), _rows(theirs))
        reference = self._reference(case, own, rows)
        try:
            score = reference.score
        except HoneError as error:
            return self._unknown(case, rows, one_line(error))
        loss = claim_of(self._what(case), self._allowed(score), partial(reference.loss, at(theirs, np.arange(rows))))
        return Fragility(case.kind, case.severity, rows, score, loss)

    def _what(self, case: Case) -> str:
        return f"{self._judge.name} under {case}"

    def _unknown(self, case: Case, rows: int, problem: str) -> Fragility:
        """Where there is no score a relative limit is 0: nothing is proven of it anyway."""
        unknown = Claim(self._what(case), self._allowed(0.0), problem=problem)
        return Fragility(case.kind, case.severity, rows, None, unknown)

    def _allowed(self, score: float) -> float:
        return math.inf if self._limit is None else allowed_drop(self._limit, score)

    def _reference(self, case: Case, own: Tensors, rows: int) -> Reference:
        if (case, rows) not in self._references:
            labels = None if self._labels is None else self._labels[:rows]
            seconds = self._spec.seconds / len(self.cases)
            known = Reference(self._judge, at(own, np.arange(rows)), labels, scoring_s=seconds)
            self._references[case, rows] = known
        return self._references[case, rows]


def _rows(answers: Tensors) -> int:
    return max(len(array) for array in answers.values())
