"""A proof with a race, in processes: small graphs, of which some answer wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hone.converters.proof.evaluate import answer, prove
from hone.converters.proof.judge import Judge, make_judge
from hone.converters.proof.race.contest import Contest, TimeLimit
from hone.converters.proof.race.early import Early
from hone.converters.proof.subject import Subject
from hone.converters.proof.verdicts.claims import Asked, Proof
from hone.data import Dataset, save_dataset
from hone.recipe import load_recipe
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench

ROWS = 400


def broken() -> onnx.ModelProto:
    """Return the perceptron with another last layer."""
    model = perceptron()
    weights = next(one for one in model.graph.initializer if one.name == "third.weight")
    shuffled = np.random.default_rng(5).permutation(numpy_helper.to_array(weights))
    weights.CopyFrom(numpy_helper.from_array(shuffled, "third.weight"))
    return model


class Proving:
    """One source with its answers, and variants to prove against it."""

    def __init__(self, folder: Path) -> None:
        quality = {"metric": "top_k_agreement", "k": 1}
        budget = {"quality_drop": 0.05, "at": {"batch": 1, "threads": 1}}
        measure = {"batches": [1, 4], "threads": [1, 2], "rounds": 7, "round_ms": 1}
        rows = perceptron_rows(ROWS)
        self.bench = Bench(folder, perceptron_signature(), rows, quality=quality, budget=budget, measure=measure)
        self.loaded = load_recipe(self.bench.recipe)
        self.evaluation, self.folder = folder / "evaluation.npz", folder
        save_dataset(Dataset(rows), self.evaluation)
        self.judge: Judge = make_judge(self.loaded, ["y"], has_labels=False)
        self.source = Subject("onnx", self.bench.artifact(perceptron()))
        self.same, self.other = self.bench.artifact(perceptron()), self.bench.artifact(broken())
        answer(self.source, self.evaluation, folder, self.loaded.recipe.measure)

    def contest(self, limit: TimeLimit | None = None, *, full: bool = False) -> Contest:
        recipe = self.loaded.recipe
        proof = Proof(Asked([self.judge], recipe.budget), self.source.outputs, None)
        early = Early(self.judge, proof.allowed, self.source.outputs, None, 0.95)
        return Contest(recipe, proof.of, early, limit, full=full)

    def proven(self, contest: Contest) -> tuple[Subject, Subject]:
        """Return one with the source's weights, and one that answers otherwise."""
        same, other = Subject("same", self.same), Subject("other", self.other)
        asked = [self.source.unmeasured(), same, other]
        prove(asked, self.evaluation, self.folder, self.loaded.recipe.measure, self.judge, lambda *_: None, contest)
        return same, other


@pytest.fixture(scope="module")
def proving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proving]:
    yield Proving(tmp_path_factory.mktemp("race"))


def test_one_that_answers_wrongly_stops_early_and_its_figures_say_by_what(proving: Proving) -> None:
    contest = proving.contest()
    same, other = proving.proven(contest)
    assert not same.failure and not other.failure
    assert same.measured.quality.rows == ROWS and not same.stopped
    assert np.allclose(same.outputs["y"], proving.source.outputs["y"], atol=1e-4), "rows are in the order of the file"
    assert other.measured.quality.rows < ROWS and other.measured.quality.drop > 0.05
    assert other.stopped.startswith(f"over the budget after {other.measured.quality.rows} of {ROWS} rows")
    assert not other.outputs and len(other.some_outputs["y"]) == other.measured.quality.rows
    assert contest.evidence["same"].met(0.95) and contest.evidence["other"].loss.missed(0.95)
    turns = {(one.batch, one.threads): len(one.rounds) for one in other.measured.latency}
    assert turns == {(1, 1): 3}
    turns = {(one.batch, one.threads): len(one.rounds) for one in same.measured.latency}
    assert turns.pop((1, 1)) == 7 and set(turns.values()) == {6}


def test_in_full_everything_is_measured(proving: Proving) -> None:
    for subject in proving.proven(proving.contest(full=True)):
        assert not subject.stopped and subject.measured.quality.rows == ROWS
        assert {len(one.rounds) for one in subject.measured.latency} == {7}


def test_without_time_nothing_is_known_and_that_is_said(proving: Proving) -> None:
    for subject in proving.proven(proving.contest(TimeLimit(1, 0.0))):
        assert subject.measurements is None and not subject.failure
        assert subject.stopped == "not proven: half of the 1 minutes were over before its turn"
