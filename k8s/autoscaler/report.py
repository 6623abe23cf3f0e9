"""What a simulation found, as a file, a picture and a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError
from hone.files import atomic_write, check_writable
from hone.pages.figures import BLUE, GRAY, ORANGE, RED, new_figure, to_svg

from ..prices import Price
from .pod import Pod
from .simulate import Run, Setting
from .trace import Trace

Object = dict[str, Any]


def pod_hour(price: Price, pod: Pod, memory_mib: int | None) -> float | None:
    """Return a pod's price for an hour; None where no price was given.

    Raises:
        HoneError: memory has a price, but the pod's isn't known.
    """
    if not price.known:
        return None
    if price.gb_hour and memory_mib is None:
        raise HoneError("--gb-hour: a pod file says nothing of memory; give --capacity")
    return sum(price.parts(pod.cpu_request / 1000, memory_mib or 0).values())


def to_record(run: Run, setting: Setting, item: Object, trace: str, cost_hour: float | None) -> Object:
    """Return a simulation as it is written to a file.

    Args:
        run: what was found.
        setting: what was simulated.
        item: the autoscaler, as an object.
        trace: a file or the name of a shape.
        cost_hour: of a pod.
    """
    return {
        "schema_version": 1,
        "kind": "autoscaling",
        "trace": trace,
        "kubernetes": ".".join(map(str, setting.flags.release)),
        "pod": setting.pod.model_dump(),
        "autoscaler": item["spec"],
        "violation_minutes": round(run.violation_minutes, 4),
        "pod_hours": round(run.pod_hours, 4),
        "cost": None if cost_hour is None else round(run.pod_hours * cost_hour, 4),
        "shed_share": run.shed_share,
        "limited_minutes": round(run.limited_minutes, 4),
        "steps": [
            {
                "t": step.t,
                "rate": round(step.rate, 6),
                "desired": step.desired,
                "ready": step.ready,
                "violating": step.violating,
            }
            for step in run.steps
        ],
    }


def check_out(file: Path) -> None:
    """Refuse a file that a simulation can't be written to.

    Raises:
        HoneError: it isn't named as JSON, or its folder can't be written to.
    """
    if file.suffix != ".json":
        raise HoneError(f"--out: '{file}' has to end with .json; the picture is written beside it")
    check_writable(file.parent, "--out")


def write_run(file: Path, record: Object, run: Run, pod: Pod) -> Path:
    """Write the record and, before it and beside it, its picture; return the picture's file."""
    import json

    picture = file.with_suffix(".svg")
    svg = plot(run, pod)
    atomic_write(picture, svg)
    atomic_write(file, json.dumps(record, indent=1, allow_nan=False) + "\n")
    return picture


def plot(run: Run, pod: Pod) -> str:
    """Return an SVG: load and what the ready pods hold above, pods below, times outside the SLO in red."""
    figure, (above, below) = new_figure(8.2, 5.6, rows=2)
    seconds = np.array([step.t for step in run.steps])
    unit, name = (3600.0, "hours") if seconds[-1] - seconds[0] > 2 * 3600 else (60.0, "minutes")
    at = seconds / unit
    lengths = np.array(run.lengths) / unit
    held = [step.ready * pod.capacity_rps for step in run.steps]
    above.step(at, held, where="post", color=GRAY, linewidth=1.6, label="held by the ready pods")
    above.step(at, [step.rate for step in run.steps], where="post", color=BLUE, linewidth=1.8, label="arriving")
    below.step(at, [step.desired for step in run.steps], where="post", color=ORANGE, linewidth=1.8, label="wanted")
    below.step(at, [step.ready for step in run.steps], where="post", color=BLUE, linewidth=1.4, label="ready")
    outside = [(at[n], lengths[n]) for n, step in enumerate(run.steps) if step.violating]
    for axes in (above, below):
        top = axes.get_ylim()[1]
        axes.broken_barh(outside, (0, top), color=RED, alpha=0.15, linewidth=0)
        axes.set_ylim(0, top)
        axes.legend(frameon=False, loc="upper left", ncols=2)
    above.set_ylabel("requests/s")
    below.set_ylabel("pods")
    below.set_xlabel(name + (" (red: outside the SLO)" if outside else ""))
    return to_svg(figure)


def summary(run: Run, setting: Setting, trace: Trace, cost_hour: float | None) -> str:
    """Return the result in a few lines, for the terminal."""
    wanted = [step.desired for step in run.steps]
    lines = [
        f"{run.violation_minutes:.1f} of {trace.duration_s / 60:.0f} minutes outside the SLO"
        + (f", {run.shed_share:.2%} of the requests refused" if run.shed_share else ""),
        f"{run.pod_hours:,.1f} pod-hours, {min(wanted)} to {max(wanted)} pods"
        + (f", cost {run.pod_hours * cost_hour:,.2f}" if cost_hour is not None else ""),
    ]
    if run.limited_minutes:
        maximum = setting.autoscaler.maximum
        lines.append(f"note: for {run.limited_minutes:.1f} minutes more than maxReplicas {maximum} were asked for")
    return "\n".join(lines)
