"""Were the answers right: a sample of them beside what the artifact itself computes, in this process."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import HoneError, one_line
from hone.runtimes.base import Runtime

from ..records import Answers
from .sending.trial import Kept
from .target import Target
from .workload import Workload

EXACT = ("fp32", "fp64", "float32", "float64")
TOLERANCE, COARSE = 1e-3, 5e-2
"""Of an output's largest value, how far an answer may be off: a batch of another size adds up in another order, and a
model of low precision rounds, or scales by its batch."""
FLIPS = 0.02
"""Of the classes or texts that a model of low precision gives, the share that may differ for the same reason."""


def check(target: Target, artifact: Artifact | None, workload: Workload, kept: Kept, wire: str) -> Answers:
    """Compare answers that were kept with the artifact's own.

    Args:
        target: who answered.
        artifact: that answered, where this host has it.
        workload: what was asked.
        kept: which call, the head, the body.
        wire: protocol of the answers; those in JSON are compared.
    """
    if artifact is None:
        return Answers(compared=0, wrong=0, reason=f"{target.tag} is not in this host's store")
    if wire != "json" or not kept:
        return Answers(compared=0, wrong=0, reason="none was kept" if not kept else f"they are in {wire}")
    try:
        runtime = runtimes.load(artifact)
    except Exception as error:  # noqa: BLE001 - a runtime's own error, of any kind: the service may have what this lacks
        return Answers(compared=0, wrong=0, reason=f"the artifact doesn't load here: {one_line(error)}")
    try:
        return _compared(runtime, artifact, workload, kept)
    except HoneError as error:
        return Answers(compared=0, wrong=0, reason=f"the artifact doesn't run here: {error}")
    finally:
        runtime.close()


def _compared(runtime: Runtime, artifact: Artifact, workload: Workload, kept: Kept) -> Answers:
    expected: dict[int, Mapping[str, np.ndarray]] = {}
    wrong, reason = 0, ""
    for call, _, body in kept:
        if call not in expected:
            inputs = workload.inputs[call]
            expected[call] = runtime.run({spec.name: spec.fit(inputs[spec.name]) for spec in artifact.signature.inputs})
        why = difference(orjson.loads(body)["outputs"], expected[call], exact=artifact.manifest.precision in EXACT)
        wrong, reason = wrong + bool(why), reason or why
    return Answers(compared=len(kept), wrong=wrong, reason=reason)


def difference(outputs: Mapping[str, Any], expected: Mapping[str, np.ndarray], *, exact: bool) -> str:
    """Return how an answer differs from what was expected, in words; empty when it doesn't.

    Args:
        outputs: nested lists by name; one may leave outputs out.
        expected: of the artifact.
        exact: of full precision; else answers may differ by what rounding does.
    """
    for name, values in outputs.items():
        if name not in expected:
            return f"output '{name}' is none of the artifact's"
        known = np.asarray(expected[name])
        found = np.asarray(values, known.dtype if known.dtype.kind in "biufO" else None)
        if found.shape != known.shape:
            return f"output '{name}' has shape {list(found.shape)}, not {list(known.shape)}"
        if known.dtype.kind == "f":
            room = (TOLERANCE if exact else COARSE) * max(float(np.abs(known).max(initial=0)), 1e-6)
            off = float(np.abs(found.astype(float) - known.astype(float)).max(initial=0))
            if not off <= room:
                return f"output '{name}' is off by {off:.3g}, over {room:.3g}"
        elif (share := float((found != known).mean())) > (0.0 if exact else FLIPS):
            return f"output '{name}' differs in {share:.0%} of its values"
    return ""
