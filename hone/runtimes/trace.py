"""What a runtime tells of its own time: how long each operator of a model took."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

WARM_UPS = 2
"""Runs before those that count: the first ones allocate memory, and pick kernels."""

RAW = "trace.json"
"""A runtime's own trace in the folder that it is given: Chrome's trace event format, which Perfetto opens, too."""
GRAPH = "optimized.onnx"
"""The graph that ONNX Runtime runs, in the same folder."""


@dataclass(frozen=True)
class NodeTime:
    """One operator of a model as it was run.

    Attributes:
        name: of the node.
        operator: its type, as the runtime calls it.
        where: what computed it: an execution provider, a device.
        kernel: what it was computed with, where the runtime tells: types of its inputs, the name of a kernel.
        seconds: of a run of the model; the median over the runs where each is told apart, else the mean.
        calls: in a run of the model.
    """

    name: str
    operator: str
    where: str
    kernel: str
    seconds: float
    calls: float


@dataclass(frozen=True)
class Trace:
    """What became of the time of some runs.

    Attributes:
        nodes: every operator that ran, in the order in which they first did.
        run_seconds: of each run as it was traced; noting times takes time itself.
        inside_seconds: of all operators in a run, the median over the runs where each is told apart, else the mean.
        note: what must be known to read the times, or an empty string.
    """

    nodes: tuple[NodeTime, ...]
    run_seconds: tuple[float, ...]
    inside_seconds: float
    note: str = ""


@dataclass(frozen=True)
class Call:
    """One call of an operator; the fields are those of `NodeTime`."""

    name: str
    operator: str
    where: str
    kernel: str
    seconds: float


def traced(calls: Iterable[Call], run_seconds: tuple[float, ...], note: str = "") -> Trace:
    """Return a trace of calls, in the order of the runs that they are of."""
    runs = len(run_seconds)
    found: dict[tuple[str, str, str], list[Call]] = defaultdict(list)
    for call in calls:
        found[call.name, call.operator, call.where].append(call)
    nodes = []
    inside = [0.0] * runs
    for key, group in found.items():
        times = _by_run([call.seconds for call in group], runs)
        inside = [before + own for before, own in zip(inside, times, strict=True)]
        nodes.append(NodeTime(*key, group[-1].kernel, statistics.median(times), len(group) / runs))
    return Trace(tuple(nodes), run_seconds, statistics.median(inside), note)


def _by_run(seconds: list[float], runs: int) -> list[float]:
    """Return an operator's seconds in each run; where runs differ in how often they call it, their mean for each."""
    each, left = divmod(len(seconds), runs)
    if left:
        return [sum(seconds) / runs] * runs
    return [sum(seconds[run * each : (run + 1) * each]) for run in range(runs)]


def timed(run: Callable[[], object], runs: int) -> tuple[float, ...]:
    """Return the seconds of each of some runs."""
    seconds = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return tuple(seconds)


def chrome_events(calls: Iterable[Call]) -> dict[str, Any]:
    """Return calls one after another in Chrome's trace event format, for runtimes that tell how long and not when."""
    events, at = [], 0.0
    for call in calls:
        arguments = {"op_name": call.operator, "provider": call.where, "kernel": call.kernel}
        event = {"name": call.name, "cat": "Node", "ph": "X", "pid": 1, "tid": 1, "ts": at, "args": arguments}
        events.append({**event, "dur": call.seconds * 1e6})
        at += call.seconds * 1e6
    return {"traceEvents": events}
