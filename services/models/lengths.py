"""Whether rows of several lengths may share a batch: filling the short ones up must not change their answers."""

from __future__ import annotations

import logging

import numpy as np

from hone.artifact import Artifact
from hone.runtimes.base import Runtime
from hone.signature import Signature, Tensors

from ..batching.padding import Joiner, can_pad
from ..batching.queue import Work
from .measuring import repeated

logger = logging.getLogger("hone.serving")

PAD_TOLERANCE = 0.02
"""Of an answer's range: so much may filling up change it in any case."""


def check_padding(runtime: Runtime, artifact: Artifact, example: Tensors) -> tuple[bool, str]:
    """Return whether rows of several lengths may share a batch, and a line about it.

    A row runs alone, beside one of its own length, and filled up beside a longer one. What filling up may change is a
    small share of the values' range, or as much as company of the same length does: dynamic quantization scales
    activations by the whole batch, so with it any batch changes an answer a little.
    """
    signature = artifact.signature
    if not can_pad(signature):
        return False, ""
    row = repeated(example, 1)
    other = {name: array[-1:] for name, array in example.items()}
    longer = {
        spec.name: np.pad(
            other[spec.name],
            [
                (0, max(1, size // 8) if i and isinstance(spec.shape[i], str) else 0)
                for i, size in enumerate(other[spec.name].shape)
            ],
            mode="edge",
        )
        for spec in signature.inputs
    }
    alone = runtime.run(row)
    company = _changed(runtime, signature, alone, row, other)
    filled = _changed(runtime, signature, alone, row, longer)
    note = f"filling rows up changes an answer by {filled:.2g} of its range, company of equal length by {company:.2g}"
    if filled <= max(PAD_TOLERANCE, 1.5 * company):
        return True, note
    logger.warning("%s: lengths are kept apart: %s", artifact.path, note)
    return False, f"lengths are kept apart: {note}"


def _changed(runtime: Runtime, signature: Signature, alone: Tensors, row: Tensors, other: Tensors) -> float:
    """Return how far a row's answer is from the one it gets alone when it shares a batch with another."""
    joiner = Joiner(signature, pad=True)
    works = [Work(inputs, 1, 0.0, joiner.bucket(inputs)) for inputs in (row, other)]
    together = joiner.split(runtime.run(joiner.join(works)), works)[0]
    return max((_difference(alone[name], together[name]) for name in alone), default=0.0)


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest difference as a share of the range of values."""
    if first.shape != second.shape or first.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(first, second) else 1.0
    scale = float(np.ptp(first)) or float(np.abs(first).max()) or 1.0
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max()) / scale
