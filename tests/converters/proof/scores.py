"""What a registered metric gives."""

from __future__ import annotations

import numpy as np

from hone.converters.proof.metrics import Answers, all_metrics


def score(
    name: str, output: np.ndarray, labels: np.ndarray | None, source: np.ndarray | None = None, k: int = 5
) -> float:
    """Return a metric of a variant's output; the source's is the same unless another is given."""
    return all_metrics()[name].score(Answers(output, output if source is None else source, labels, k))
