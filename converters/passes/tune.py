"""Choose ONNX Runtime's own graph optimizations by measuring them on this host."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from converters.passes.base import Built, PassContext, PassOptions, copy_files, register
from hone.artifact import Artifact
from hone.data import Dataset
from hone.errors import PassError, one_line

SUSPECTS = (
    "SkipLayerNormFusion", "BiasGeluFusion", "GeluFusionL2", "AttentionFusion", "MatMulAddFusion",
    "ConvActivationFusion",
)  # fmt: skip
"""Optimizers of ONNX Runtime whose fused operator has been slower than its parts on some processor."""


class Options(PassOptions):
    """Fusions that ONNX Runtime makes when it loads a graph, left out where the graph is faster without them."""

    batch: int = Field(8, ge=1, description="Rows of a batch that is timed, beside a single row.")
    rounds: int = Field(9, ge=3, description="Interleaved rounds; the median of each counts.")
    gain: float = Field(0.03, ge=0, description="Least share of the time that leaving an optimizer out must save.")


@register("tune", consumes="onnx", produces="onnx", options=Options, needs=("calibration",), tools=("onnxruntime",))
def tune(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Load the graph with each suspect optimizer disabled, time all in turns on calibration rows, keep what pays.

    The graph stays as it is; what was chosen is in the artifact's runtime options and holds for processors like this
    one.

    Raises PassError when the graph doesn't run.
    """
    sessions = {name: _session(model, [name] if name else []) for name in ("", *SUSPECTS)}
    medians = _time(sessions, context.calibration, options, context)
    slow = [name for name in SUSPECTS if medians[name] < (1 - options.gain) * medians[""]]
    together = 0.0
    if slow:
        both = {"": sessions[""], "chosen": _session(model, slow)}
        again = _time(both, context.calibration, options, context)
        together = 1 - again["chosen"] / again[""]
        if together < options.gain:
            slow, together = [], 0.0
    copy_files(model, out)
    runtime_options = {**model.manifest.runtime_options, **({"disabled_optimizers": slow} if slow else {})}
    details: dict[str, Any] = {
        "left_out": slow,
        "saved": round(together, 4),
        "saved_by_each": {name: round(1 - medians[name] / medians[""], 4) for name in SUSPECTS},
    }
    return Built(model.manifest.entry, runtime_options=runtime_options, details=details)


def _session(model: Artifact, disabled: list[str]) -> Any:
    from hone.runtimes.onnx import OnnxRuntime

    options = {**model.manifest.runtime_options, "disabled_optimizers": disabled}
    return OnnxRuntime(model.with_manifest(runtime_options=options))


def _time(sessions: dict[str, Any], data: Dataset, options: Options, context: PassContext) -> dict[str, float]:
    """Return the median seconds of a row and a batch together, by session; the sessions take turns in each round."""
    batches = [data.head(1).inputs, data.head(options.batch).inputs]
    timings: dict[str, list[float]] = {name: [] for name in sessions}
    try:
        for session in sessions.values():
            for batch in batches:
                session.run(batch)
        for number in range(options.rounds):
            context.progress(f"round {number + 1} of {options.rounds}")
            for name, session in sessions.items():
                shares = []
                for batch in batches:
                    started = time.perf_counter()
                    session.run(batch)
                    shares.append(time.perf_counter() - started)
                timings[name].append(sum(shares))
    except Exception as error:
        raise PassError(f"tune: the graph fails on the calibration rows: {one_line(error)}") from error
    return {name: float(np.median(values)) for name, values in timings.items()}
