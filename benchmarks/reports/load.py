"""Write a load report: `load.json`, its plot, and a page; each can be drawn again from the JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hone.files import atomic_write
from hone.pages.figures import BLUE, ORANGE, RED, log_axis, new_figure, to_svg
from hone.pages.render import render

from ..records import LATE_MS, LATE_SHARE, LoadReport, read_load_report
from .junit import Case, junit

MAIN, TAIL, BAD = BLUE, ORANGE, RED


def write_load_report(report: LoadReport, folder: Path) -> None:
    """Write a report and what is drawn of it; the JSON last: where it is, all is."""
    draw(report, folder)
    atomic_write(folder / "load.json", report.model_dump_json(indent=2) + "\n")


def redraw(file: Path) -> None:
    """Draw the plot and the page of a `load.json` again."""
    draw(read_load_report(file), file.parent)


def draw(report: LoadReport, folder: Path) -> None:
    svg = "" if report.void else plot(report)
    if svg:
        atomic_write(folder / "load.svg", svg)
    else:
        (folder / "load.svg").unlink(missing_ok=True)  # of a run before: it is not of this one
    template = Path(__file__).with_name("load.html")
    page = render(template, report=report, plot=svg, late_ms=LATE_MS, late_limit=LATE_SHARE)
    atomic_write(folder / "load.html", page)
    if report.checks:
        atomic_write(folder / "load.xml", to_junit(report))


def to_junit(report: LoadReport) -> str:
    """Return what the run was judged by as JUnit XML."""
    cases = [Case(f"{check.name}, {check.against}", check.decision, check.words) for check in report.checks]
    return junit(f"hone bench {report.model}", cases)


def plot(report: LoadReport) -> str:
    """Return an SVG: latency over time above, its distribution below."""
    figure, (above, below) = new_figure(8.2, 5.6, rows=2)
    _over_time(above, report)
    _distribution(below, report)
    return to_svg(figure)


def _over_time(axes: Any, report: LoadReport) -> None:
    seconds = [point for point in report.timeline if point.p50_ms is not None]
    moments = [point.second + 0.5 for point in seconds]
    for name, color, values in (
        ("p99", TAIL, [point.p99_ms for point in seconds]),
        ("p50", MAIN, [point.p50_ms for point in seconds]),
    ):
        axes.plot(moments, values, color=color, linewidth=1.8)
        if moments:
            axes.annotate(f" {name}", (moments[-1], values[-1]), color=color, va="center", fontweight="bold")
    for point in report.timeline:
        if point.errors:
            axes.axvspan(point.second, point.second + 1, color=BAD, alpha=0.15, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds" + (" (red: seconds with errors)" if report.errors else ""))
    axes.set_ylabel("latency, ms")


def _distribution(axes: Any, report: LoadReport) -> None:
    bounds, counts = (np.array(column) for column in zip(*report.histogram, strict=True))
    share = 100 * counts.cumsum() / counts.sum()
    axes.step(bounds, share, where="post", color=MAIN, linewidth=1.8)
    marks = (
        ("p50", report.p50_ms, 50, -8, "right"),
        ("p95", report.p95_ms, 95, 8, "left"),
        ("p99", report.p99_ms, 99, 8, "left"),
    )
    for name, value, height, gap, side in marks:
        axes.plot([value], [height], "o", color=TAIL if name == "p99" else MAIN, markersize=5)
        text, lift = f"{name} {value:.2f} ms", 4 if side == "right" else -12
        axes.annotate(text, (value, height), xytext=(gap, lift), textcoords="offset points", ha=side, fontsize=9)
    log_axis(axes)
    axes.set_ylim(0, 104)
    axes.set_xlabel("latency from the intended start, ms (log scale)")
    axes.set_ylabel("% of requests")
