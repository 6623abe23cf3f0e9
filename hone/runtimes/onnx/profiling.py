"""ONNX Runtime's own profile: a trace of each kernel, and the graph that is left when its optimizations are done."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hone.errors import ArtifactError, one_line
from hone.runtimes.trace import GRAPH, RAW, WARM_UPS, Call, Trace, traced

KERNEL = "_kernel_time"
PREFIX = "onnxruntime"
WEIGHTS = "optimized.weights"
MOST_EVENTS = 1_000_000
"""That ONNX Runtime notes; it drops the rest."""


def profile_to(options: Any, folder: Path, *, compiled: bool) -> None:
    """Let a session write its trace and its optimized graph into a folder; nothing else about it changes.

    Args:
        options: of the session.
        folder: that is there.
        compiled: a provider makes engines of parts of the graph, which ONNX Runtime can't write.
    """
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / PREFIX)
    if compiled:
        return
    options.optimized_model_filepath = str(folder / GRAPH)
    # Weights beside the graph: it is then read in no time, and may be larger than a protobuf.
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", WEIGHTS)
    options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")


def finish(written: str, folder: Path) -> Path:
    """Give the trace that a session wrote its name, and drop the weights, which the model's own file has."""
    trace = folder / RAW
    Path(written).replace(trace)
    (folder / WEIGHTS).unlink(missing_ok=True)
    return trace


def read_trace(trace: Path, run_seconds: tuple[float, ...]) -> Trace:
    """Return the time of each node in the runs that came after the warm-ups.

    A node with a graph inside (If, Loop, Scan) has the time that those in it don't have.

    Args:
        trace: a JSON array of events, as ONNX Runtime writes it.
        run_seconds: of each run; each may call the session several times, for a part of the rows.

    Raises:
        ArtifactError: it can't be read, or is cut off.
    """
    try:
        events = json.loads(trace.read_bytes())
        if len(events) >= MOST_EVENTS:
            raise ArtifactError(f"ONNX Runtime noted {MOST_EVENTS:,} kernels and dropped the rest: run fewer --rows")
        started = sorted(event["ts"] for event in events if event.get("name") == "model_run")
        begins = started[len(started) * WARM_UPS // (WARM_UPS + len(run_seconds))]
        kernels = [event for event in events if str(event.get("name", "")).endswith(KERNEL)]
        kept = [event for event in kernels if event["ts"] >= begins]
        return traced(_calls(kept), run_seconds)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise ArtifactError(f"{trace}: ONNX Runtime's trace can't be read: {one_line(error)}") from error


def _calls(events: list[dict[str, Any]]) -> Iterator[Call]:
    """Yield each kernel's call with its own time, less that of kernels that ran inside it on its thread."""
    inside = [0.0] * len(events)
    order = sorted(range(len(events)), key=lambda index: (events[index]["tid"], events[index]["ts"]))
    around: list[int] = []
    for index in order:
        event = events[index]
        while around and not _holds(events[around[-1]], event):
            around.pop()
        if around and _has_graph(events[around[-1]]):
            inside[around[-1]] += event["dur"]
        around.append(index)
    for event, less in zip(events, inside, strict=True):
        facts = event["args"]
        name = event["name"].removesuffix(KERNEL)
        provider = facts.get("provider", "").removesuffix("ExecutionProvider")
        types = " ".join(name for shape in facts.get("input_type_shape", []) for name in shape)
        yield Call(name, facts.get("op_name", "?"), provider, types, max(0.0, event["dur"] - less) / 1e6)


def _holds(outer: dict[str, Any], inner: dict[str, Any]) -> bool:
    """Times are whole microseconds: a short kernel may seem to begin before the one in front of it ends."""
    ends = outer["ts"] + outer["dur"]
    return outer["tid"] == inner["tid"] and bool(inner["ts"] + inner["dur"] <= ends)


def _has_graph(event: dict[str, Any]) -> bool:
    return event["args"].get("op_name") in ("If", "Loop", "Scan", "SequenceMap", "BeamSearch", "GreedySearch")
