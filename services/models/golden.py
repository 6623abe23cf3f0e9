"""Whether a model answers here as it did in its proof: its golden rows, asked when it is loaded and while it serves."""

from __future__ import annotations

import logging

import numpy as np

from hone.artifact import Artifact
from hone.errors import GoldenError
from hone.golden.check import Ask, check_rows
from hone.golden.rows import GoldenRows, read_rows
from hone.plan import Plan
from hone.runtimes.base import Runtime
from hone.signature import Tensors
from hone.steps.pipeline import ReadySteps

from ..batching.padding import Joiner
from ..batching.queue import Work
from ..observe.metrics import count_golden

logger = logging.getLogger("hone.serving")

_unchecked: set[str] = set()
"""Tags without golden rows of which the log has told."""


def golden_rows(tag: str, artifact: Artifact) -> GoldenRows | None:
    """Return the golden rows of an artifact; None, with one line in the log, when it was made without.

    Raises:
        ArtifactError: they are broken, of another signature, or their tolerance lets everything pass.
    """
    golden = artifact.manifest.golden
    if golden is not None:
        return read_rows(artifact.path, golden, artifact.signature)
    if tag not in _unchecked:
        _unchecked.add(tag)
        logger.info("%s has no golden rows: whether it answers here as it was proven isn't checked", tag)
    return None


def compare(
    tag: str,
    artifact: Artifact,
    runtime: Runtime,
    plan: Plan,
    rows: GoldenRows | None,
    steps: ReadySteps | None = None,
) -> None:
    """Compare a loaded model's answers with those of its proof; rows are joined as requests are.

    Raises:
        GoldenError: they differ.
    """
    golden = artifact.manifest.golden
    if rows is None or golden is None:
        return
    checked = check_rows(rows, golden, as_served(runtime, artifact, plan), plan.max_batch_rows, steps=steps)
    name, _, version = tag.partition(":")
    count_golden(name, version, checked.match)
    if not checked.match:
        raise GoldenError(f"{tag} gives {checked.describe()}; see hone doctor {tag}")
    logger.info("%s: %s", tag, checked.describe())


def as_served(runtime: Runtime, artifact: Artifact, plan: Plan) -> Ask:
    """Return a function that runs rows as if each came with a request of its own."""
    if not artifact.signature.batchable:
        return runtime.run
    joiner = Joiner(artifact.signature, pad=plan.pad)

    def ask(rows: Tensors) -> Tensors:
        each = [{name: array[i : i + 1] for name, array in rows.items()} for i in range(len(rows[joiner.first]))]
        works = [Work(inputs, 1, 0.0, joiner.bucket(inputs)) for inputs in each]
        parts = joiner.split(runtime.run(joiner.join(works)), works)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return ask
