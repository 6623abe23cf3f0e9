"""Choose ONNX Runtime's own graph optimizations by measuring them on this host."""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from hone.artifact import Artifact
from hone.data import Dataset
from hone.errors import PassError, one_line
from hone.evidence.bounds import is_faster, ratio_interval

from ...context import Built, PassContext, copy_files
from ...graph.execution import cpu_session
from ...registry import PassOptions, register

SUSPECTS = (
    "SkipLayerNormFusion", "BiasGeluFusion", "GeluFusionL2", "AttentionFusion", "MatMulAddFusion",
    "ConvActivationFusion",
)  # fmt: skip
"""Optimizers of ONNX Runtime whose fused operator has been slower than its parts on some processor."""
CALLS = 3
"""So many calls of a batch are timed in a turn, after one that isn't; the median counts."""


class Options(PassOptions):
    """Fusions that ONNX Runtime makes when it loads a graph, left out where the graph is faster without them."""

    batch: int = Field(8, ge=1, description="Rows of a batch that is timed, beside a single row.")
    rounds: int = Field(9, ge=3, description="Interleaved rounds; every session runs once in each.")
    gain: float = Field(
        0.03, ge=0, description="Least share of the time that leaving an optimizer out must save, beyond the noise."
    )


@register(
    "tune",
    consumes="onnx",
    produces="onnx",
    options=Options,
    needs=("calibration",),
    tools=("onnxruntime",),
    revision=2,
)
def tune(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Load the graph with each suspect optimizer disabled, time all in turns on calibration rows, keep what pays.

    An optimizer that finds nothing in this graph isn't timed. What looks faster without an optimizer is timed again,
    in new sessions against the graph as it is. The graph stays as it is; what was chosen is in the artifact's runtime
    options and holds for processors like this one.

    Raises PassError when the graph doesn't run.
    """
    plain = _optimized(model, [])
    at_work = [name for name in SUSPECTS if plain is None or _optimized(model, [name]) != plain]
    context.progress(f"timing the graph without each of {len(at_work)} optimizers")
    times = _time({name: [name] if name else [] for name in ("", *at_work)}, model, context.calibration, options)
    slow = [name for name in at_work if is_faster(times[name], times[""], options.gain)]
    together = 0.0
    if slow:
        again = _time({"": [], "chosen": slow}, model, context.calibration, options)
        together = 1 - ratio_interval(again["chosen"], again[""])[1]
        if not is_faster(again["chosen"], again[""], options.gain):
            slow, together = [], 0.0
    copy_files(model, out)
    runtime_options = {**model.manifest.runtime_options, **({"disabled_optimizers": slow} if slow else {})}
    details: dict[str, Any] = {
        "left_out": slow,
        "saved": round(together, 4),
        "saved_by_each": {name: round(1 - ratio_interval(times[name], times[""])[1], 4) for name in at_work},
        "nothing_to_do_for": [name for name in SUSPECTS if name not in at_work],
    }
    return Built(model.manifest.entry, runtime_options=runtime_options, details=details)


def _optimized(model: Artifact, disabled: list[str]) -> str | None:
    """Return a hash of the graph as ONNX Runtime runs it; None where it can't be written, as with compiled nodes."""
    import onnxruntime as ort

    settings = ort.SessionOptions()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimized.onnx"
        settings.optimized_model_filepath = str(file)
        try:
            cpu_session(model.entry, settings, disabled=disabled)
            with file.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except Exception:  # noqa: BLE001 - then it is timed
            return None


def _session(model: Artifact, disabled: list[str]) -> Any:
    from hone.runtimes.onnx.runtime import OnnxRuntime

    options = {**model.manifest.runtime_options, "disabled_optimizers": disabled}
    return OnnxRuntime(model.with_manifest(runtime_options=options))


def _time(choices: dict[str, list[str]], model: Artifact, data: Dataset, options: Options) -> dict[str, list[float]]:
    """Return the seconds of a row and a batch together in each round, by name of the choice of disabled optimizers.

    Each round starts with another session, and each session runs once before it is timed: the first after another
    finds cold caches and threads.
    """
    batches = [data.head(1).inputs, data.head(options.batch).inputs]
    times: dict[str, list[float]] = {name: [] for name in choices}
    names = list(choices)
    try:
        sessions = {name: _session(model, disabled) for name, disabled in choices.items()}
        for turn in range(options.rounds):
            first = turn % len(names)
            for name in names[first:] + names[:first]:
                times[name].append(sum(_call(sessions[name], batch) for batch in batches))
    except Exception as error:
        raise PassError(f"tune: the graph fails on the calibration rows: {one_line(error)}") from error
    return times


def _call(session: Any, batch: dict[str, np.ndarray]) -> float:
    session.run(batch)
    seconds = []
    for _ in range(CALLS):
        started = time.perf_counter()
        session.run(batch)
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds))
