"""Stored models with one signature, ranked by how far they answer as one of them does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from hone import runtimes, store
from hone.artifact import Artifact
from hone.describe.layers import compare_layers
from hone.errors import HoneError, SignatureError, StoreError, UnavailableError, one_line
from hone.profiles.rows import rows_of
from hone.signature import Signature, Tensors
from hone.similar.answers import Agreement, agreement
from hone.store import Entry
from hone.store.choice import host_problem
from hone.store.trust import Policy, open_to_run

ROWS = 200
BATCH = 32


@dataclass(frozen=True)
class Similar:
    """One model beside the one that was asked for.

    Attributes:
        tag: of it.
        answers: how far they agree; None: it can't run here.
        weights: mean cosine of layers that are matched by name or shape, by their size; None: they can't be read.
        matched: share of the weights of both that are in matched layers.
        source: both were made of the same source model.
        note: why something is missing.
    """

    tag: str
    answers: Agreement | None
    weights: float | None
    matched: float
    source: bool
    note: str = ""

    @property
    def order(self) -> tuple[float, float, float]:
        if self.answers is None:
            return (1.0, 0.0, -(self.weights or 0.0))
        off = float("inf") if self.answers.off is None else self.answers.off
        return (-self.answers.share, off, -(self.weights or 0.0))


@dataclass(frozen=True)
class Ranked:
    """What was found.

    Attributes:
        tag: of the model that was asked for.
        rows: that all were asked.
        rows_from: in words.
        found: the most similar first.
    """

    tag: str
    rows: int
    rows_from: str
    found: tuple[Similar, ...]


def similar(reference: str, name: str | None = None, rows: int = ROWS) -> Ranked:
    """Rank the stored models with the inputs and outputs of one.

    Args:
        reference: of a stored artifact.
        name: look at versions of this name only.
        rows: that they are asked, at most: of its evaluation where they are kept, else golden ones.

    Raises:
        StoreError: nothing answers to the reference.
        HoneError: it may not run here, or fails.
    """
    entry, policy = store.resolve(reference), Policy.from_environment()
    if problem := host_problem(entry):
        raise StoreError(f"{entry.tag} can't run here: {problem}")
    artifact = open_to_run(entry, policy)
    kept, source = rows_of(artifact)
    by_row = {spec.name for spec in artifact.signature.inputs if spec.batchable or not artifact.signature.batchable}
    inputs = {one: array[:rows] if one in by_row else array for one, array in kept.items()}
    wanted = _answers(artifact, inputs)
    others = (other for other in store.entries(name) if other.tag != entry.tag)
    found = [_compared(other, artifact, inputs, wanted, policy) for other in others if _fits(other, artifact.signature)]
    count = min(len(inputs[one]) for one in by_row)
    return Ranked(entry.tag, count, source, tuple(sorted(found, key=lambda one: one.order)))


def _fits(entry: Entry, signature: Signature) -> bool:
    """The same inputs and outputs: names, types and axes, whatever a dynamic axis is called."""
    return entry.artifact is not None and _shape(entry.artifact.signature) == _shape(signature)


def _shape(signature: Signature) -> object:
    def form(shape: tuple[int | str, ...]) -> tuple[int | None, ...]:
        return tuple(axis if isinstance(axis, int) else None for axis in shape)

    return (
        sorted((spec.name, spec.dtype, form(spec.shape)) for spec in signature.inputs),
        sorted((spec.name, form(spec.shape)) for spec in signature.outputs),
    )


def _compared(entry: Entry, first: Artifact, inputs: Tensors, wanted: Tensors, policy: Policy) -> Similar:
    notes, answers = [], None
    second = entry.artifact
    assert second is not None
    try:
        if problem := host_problem(entry):
            raise StoreError(problem)
        second = open_to_run(entry, policy)
        answers = agreement(wanted, _answers(second, inputs))
    except (HoneError, SignatureError) as error:
        notes.append(f"answers: {one_line(error)}")
    weights, matched = None, 0.0
    try:
        weights, matched = _weights(first, second)
    except UnavailableError:
        notes.append(f"weights of {first.runtime} and {second.runtime} can't be compared")
    except HoneError as error:
        notes.append(f"weights: {one_line(error)}")
    return Similar(entry.tag, answers, weights, matched, _source(first) == _source(second), "; ".join(notes))


def _answers(artifact: Artifact, inputs: Tensors) -> Tensors:
    """Return a model's answers to all rows.

    Raises:
        HoneError: it fails on them.
    """
    runtime = runtimes.load(artifact)
    try:
        parts = [runtime.run(artifact.signature.check(part)) for part in _parts(artifact, inputs)]
    except HoneError:
        raise
    except Exception as error:
        raise HoneError(f"it fails on the rows: {one_line(error)}") from error
    finally:
        runtime.close()
    return {name: np.concatenate([np.atleast_1d(part[name]) for part in parts]) for name in parts[0]}


def _parts(artifact: Artifact, inputs: Tensors) -> Iterator[Tensors]:
    signature = artifact.signature
    by_row = {spec.name for spec in signature.inputs if spec.batchable or not signature.batchable}
    count = min(len(inputs[name]) for name in by_row)
    size = BATCH if signature.batchable else 1
    for start in range(0, count, size):
        stop = min(start + size, count)
        yield {name: array[start:stop] if name in by_row else array[:1] for name, array in inputs.items()}


def _weights(first: Artifact, second: Artifact) -> tuple[float | None, float]:
    """Return the mean cosine of matched layers by size, and the share of all weights that they hold."""
    total = matched = 0
    product = 0.0
    for layer in compare_layers(first, second):
        sizes = [side.values.size for side in (layer.first, layer.second) if side is not None]
        total += sum(sizes)
        if layer.cosine is not None:
            matched += sum(sizes)
            product += layer.cosine * sum(sizes)
    return (product / matched, matched / total) if matched else (None, 0.0)


def _source(artifact: Artifact) -> str:
    """Return the digest of the model that the first pass took."""
    lineage = artifact.manifest.lineage
    return (lineage[0].parent if lineage else None) or artifact.digest
