"""torch's own profiler around some runs of a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hone.runtimes.trace import RAW, WARM_UPS, NodeTime, Trace, timed


def profile(run: Callable[[], object], runs: int, folder: Path) -> Trace:
    """Return what each operator took by itself; torch knows operators by their type and shapes, not by layers.

    Args:
        run: one batch.
        runs: that count.
        folder: for the trace.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiling

    timed(run, WARM_UPS)
    with profiling(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        seconds = timed(run, runs)
    profiler.export_chrome_trace(str(folder / RAW))
    nodes = [
        NodeTime(
            f"{event.key} {_sizes(event.input_shapes)}".strip(),
            event.key.removeprefix("aten::"),
            "CPU",
            "",
            event.self_cpu_time_total / 1e6 / runs,
            event.count / runs,
        )
        for event in profiler.key_averages(group_by_input_shape=True)
    ]
    return Trace(tuple(nodes), seconds, sum(node.seconds for node in nodes))


def _sizes(shapes: list[list[int]]) -> str:
    return " ".join("x".join(map(str, shape)) for shape in shapes if shape)
