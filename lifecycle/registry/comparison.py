"""A candidate beside the champion: both answer the same rows and take turns on this host, each in a fresh process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hone import store
from hone.artifact import Artifact
from hone.converters.proof.evaluate import Subject, prove, resolve_threads
from hone.converters.proof.judge import make_judges
from hone.converters.proof.verdicts.claims import Asked
from hone.converters.proof.verdicts.verdict import Ruling, verdict_of
from hone.data import Dataset, load_dataset, save_dataset
from hone.errors import HoneError
from hone.evidence.bounds import ratio_interval
from hone.recipe import LoadedRecipe, MeasureSpec
from hone.signature import Signature, TensorSpec
from hone.steps.pipeline import source_layout
from hone.steps.ready import ready_steps
from hone.store.rows import read_labels, read_rows
from hone.store.trust import Policy, open_to_run


@dataclass(frozen=True)
class Compared:
    """What a comparison found.

    Attributes:
        ruling: on what the candidate loses against the champion.
        ratio: (low, middle, high) of its time over the champion's.
        rows: that both answered.
    """

    ruling: Ruling
    ratio: tuple[float, float, float]
    rows: int


def compared(
    candidate: store.Entry, champion: store.Entry, loaded: LoadedRecipe | None, *, whole: bool = False
) -> Compared:
    """Compare a candidate with the champion as a proof compares a variant with its source.

    Args:
        loaded: the recipe, for its metrics, limits and conditions.
        whole: ask all of the recipe's evaluation rows; else those that the store keeps.

    Raises:
        HoneError: there are no rows or no recipe, one of the two can't run here, or a metric can't be computed.
    """
    policy = Policy.from_environment()
    artifacts = [open_to_run(entry, policy) for entry in (champion, candidate)]
    if loaded is None:
        raise HoneError("nothing is known of its recipe; give it: --recipe FILE")
    dataset = _rows(candidate, artifacts[1], loaded, whole=whole)
    return _proven(artifacts, dataset, loaded)


def _rows(candidate: store.Entry, artifact: Artifact, loaded: LoadedRecipe, *, whole: bool) -> Dataset:
    signature = artifact.signature
    if whole:
        # Data sets are in the order of axes of the source model.
        inputs = tuple(source_layout(spec) for spec in signature.inputs)
        return load_dataset(loaded, "evaluation", loaded.recipe.evaluation, Signature(inputs=inputs))
    own = [spec.metric for spec in (loaded.recipe.quality, *loaded.recipe.quality.also) if ":" in spec.metric]
    if own:
        raise HoneError(f"its metric {own[0]} is code beside the recipe; give that: --recipe FILE")
    kept = read_rows(candidate.path)
    if kept is None:
        raise HoneError(f"no evaluation rows of {candidate.tag} are kept here; give its recipe: --recipe FILE")
    return Dataset(
        {spec.name: _as_source(kept[spec.name], spec) for spec in signature.inputs}, read_labels(candidate.path)
    )


def _as_source(array: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Return rows that are kept as an artifact takes them as its source does, which is what a proof asks with."""
    return array.transpose(np.argsort(spec.source_axes)) if spec.source_axes else array


def _proven(artifacts: list[Artifact], dataset: Dataset, loaded: LoadedRecipe) -> Compared:
    budget, quality = loaded.recipe.budget, loaded.recipe.quality
    at = budget.at
    threads = resolve_threads(at.threads)
    measure = MeasureSpec(batches=(at.batch,), threads=(threads,), rounds=loaded.recipe.measure.rounds)
    subjects = [
        Subject(name, one, steps=ready_steps(one))
        for name, one in zip(("champion", "candidate"), artifacts, strict=True)
    ]
    judges = make_judges(loaded, subjects[0].output_names, has_labels=dataset.labels is not None)
    with TemporaryDirectory(prefix="hone-promote-") as scratch:
        file = Path(scratch) / "rows.npz"
        save_dataset(dataset, file)
        prove(subjects, file, Path(scratch), measure, judges[0], lambda *_: None)
    champion, candidate = subjects
    if candidate.failure:
        raise HoneError(f"the candidate can't be measured here: {candidate.failure}")
    if not dataset.slices:
        budget = budget.model_copy(update={"worst_slice_drop": None})
    asked = Asked(judges, budget, [budget.quality_drop, *(spec.drop for spec in quality.also)])
    ruling = verdict_of(champion.outputs, candidate.outputs, dataset.labels, asked, dataset.slices)
    ours, theirs = (one.measured.at(at.batch, threads) for one in (candidate, champion))
    if ours is None or theirs is None:
        raise HoneError("neither was timed")
    return Compared(ruling, ratio_interval(ours.rounds, theirs.rounds), dataset.rows)
