"""What the proof says of a model: its answers to rows with labels, as far as they are kept here."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hone import runtimes, store
from hone.artifact import Artifact
from hone.converters.proof.judge import Judge, make_judges
from hone.errors import HoneError
from hone.hardware import cores
from hone.recipe import LoadedRecipe
from hone.signature import Tensors
from hone.store.rows import read_labels, read_rows
from hone.store.trust import Policy, open_to_run

from ..registry.changes import terms_of

BATCH = 64


@dataclass(frozen=True)
class Baseline:
    """What live answers are compared with.

    Attributes:
        tag: of the model.
        judges: of its recipe, those that need labels.
        outputs: that the model gives to rows of its proof here; empty where none are kept.
        labels: of these rows.
        scores: of the proof itself, by metric, with its rows: all there is where no rows are kept.
    """

    tag: str
    judges: tuple[Judge, ...]
    outputs: Tensors = field(default_factory=dict)
    labels: np.ndarray | None = None
    scores: dict[str, tuple[float, int]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return 0 if self.labels is None else len(self.labels)


def baseline(model: str, loaded: LoadedRecipe | None = None) -> tuple[store.Entry, Baseline]:
    """Return a stored model and what its proof says of it; the rows that are kept of its evaluation are asked here.

    Args:
        model: NAME, NAME@ALIAS or NAME:VERSION.
        loaded: its recipe; None: as the registry has it.

    Raises:
        HoneError: there is no such model, nothing is known of its recipe, or no metric of it needs labels.
    """
    entry = store.resolve(model)
    loaded = loaded or terms_of(entry)
    if loaded is None:
        raise HoneError(f"{entry.tag}: nothing is known of its recipe; give it: --recipe FILE")
    artifact = open_to_run(entry, Policy.from_environment())
    judges = tuple(
        judge
        for judge in make_judges(loaded, list(artifact.signature.output_names), has_labels=True)
        if judge.metric is None or judge.metric.needs_labels
    )
    if not judges:
        raise HoneError(f"{entry.tag}: no metric of its recipe compares with labels; give quality.metric one that does")
    scores = {}
    if artifact.manifest.measurements is not None:
        quality = artifact.manifest.measurements.quality
        scores = {quality.metric: (quality.value, quality.rows)}
    rows, labels = read_rows(entry.path), read_labels(entry.path)
    if rows is None or labels is None:
        return entry, Baseline(entry.tag, judges, scores=scores)
    return entry, Baseline(entry.tag, judges, _answers(artifact, rows), labels, scores)


def _answers(artifact: Artifact, rows: Tensors) -> Tensors:
    """Return what an artifact gives to rows, in batches of at most 64."""
    inputs = {spec.name: spec.fit(rows[spec.name]) for spec in artifact.signature.inputs}
    count = len(next(iter(inputs.values())))
    step = BATCH if artifact.signature.batchable else 1
    runtime = runtimes.load(artifact, cores())
    try:
        parts = [
            runtime.run({name: array[start : start + step] for name, array in inputs.items()})
            for start in range(0, count, step)
        ]
    finally:
        runtime.close()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
