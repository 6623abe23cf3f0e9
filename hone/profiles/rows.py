"""What a model is profiled with: rows of its evaluation where some are kept, else golden rows, else made up ones."""

from __future__ import annotations

import numpy as np

from hone.artifact import Artifact
from hone.errors import HoneError, SignatureError, one_line
from hone.golden.rows import read_rows as golden_rows
from hone.signature import BATCH, Tensors, TensorSpec
from hone.store.rows import read_rows as kept_rows

AXIS = 32
"""Length of a named axis of rows that are made up."""


def batch_of(artifact: Artifact, rows: int) -> tuple[Tensors, str]:
    """Return a batch for an artifact, and in words where its rows are from; fewer rows than a batch come again.

    Raises:
        HoneError: the model doesn't take so many rows at once.
    """
    found, source = rows_of(artifact)
    index = np.arange(rows) % max(1, min(len(array) for array in found.values()))
    specs = artifact.signature.inputs
    batch = {spec.name: found[spec.name][index] if spec.batchable else found[spec.name][:1] for spec in specs}
    if rows > 1 and not artifact.signature.batchable:
        raise HoneError(f"{artifact.manifest.name} takes one row at a time; leave --batch {rows} out")
    try:
        return artifact.signature.check(batch), source
    except SignatureError as error:
        raise HoneError(f"a batch of {rows} rows doesn't fit the model: {one_line(error)}") from None


def rows_of(artifact: Artifact) -> tuple[Tensors, str]:
    """Return all rows that are kept for an artifact, or one that is made up; and in words where they are from."""
    kept = kept_rows(artifact.path)
    specs = artifact.signature.inputs
    if kept is not None and all(spec.name in kept for spec in specs):
        return {spec.name: spec.fit(kept[spec.name]) for spec in specs}, "rows of its evaluation"
    golden = artifact.manifest.golden
    if golden is not None:
        kind = "of its evaluation" if golden.source == "evaluation" else "made up within its ranges"
        return golden_rows(artifact.path, golden, artifact.signature).inputs, f"golden rows, {kind}"
    generator = np.random.default_rng(0)
    made = {spec.name: _made_up(spec, generator) for spec in specs}
    named = f", named axes are {AXIS} long" if set(artifact.signature.dynamic_axes) - {BATCH} else ""
    return made, f"random rows: the artifact keeps none{named}"


def _made_up(spec: TensorSpec, generator: np.random.Generator) -> np.ndarray:
    """Return a row; integers are 0 or 1, which any table of embeddings has."""
    array = spec.example(1, AXIS)
    if array.dtype.kind == "f":
        return generator.standard_normal(array.shape).astype(array.dtype)
    if array.dtype.kind in "iub":
        return generator.integers(0, 2, array.shape).astype(array.dtype)
    return array
