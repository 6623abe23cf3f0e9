"""Write a capacity: `capacity.json`, and beside it a page with its curve, a table, and JUnit XML for pipelines."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from hone.capacity import Capacity, Trial, read_capacity
from hone.files import atomic_write
from hone.pages.figures import BLUE, GREEN, ORANGE, RED, new_figure, to_svg
from hone.pages.render import render

from .junit import Case, junit

COLUMNS = (
    "rate", "answered", "goodput", "p50_ms", "p95_ms", "p99_ms", "p999_ms", "mean_ms", "requests", "over", "failed",
    "effect", "verdict", "passed", "duration_s", "warm_up_s", "late_share", "cpu_cores", "rss_mb",
)  # fmt: skip


def write_capacity_report(capacity: Capacity, file: Path) -> None:
    """Write a capacity and, beside its file, what is drawn of it; the JSON last: where it is, all is."""
    draw(capacity, file)
    atomic_write(file, capacity.model_dump_json(indent=2) + "\n")


def redraw(file: Path) -> None:
    """Draw what stands beside a `capacity.json` again."""
    draw(read_capacity(file), file)


def draw(capacity: Capacity, file: Path) -> None:
    page = render(
        Path(__file__).with_name("capacity.html"), capacity=capacity, plot=plot(capacity), trials=trials_of(capacity)
    )
    atomic_write(file.with_suffix(".csv"), to_csv(capacity))
    atomic_write(file.with_suffix(".xml"), to_junit(capacity))
    atomic_write(file.with_suffix(".html"), page)


def trials_of(capacity: Capacity) -> list[Trial]:
    """Return all trials, by their rate."""
    return sorted([*capacity.search, *capacity.repeats], key=lambda trial: trial.rate)


def to_csv(capacity: Capacity) -> str:
    """Return the latency-throughput curve as a table: a line a trial, by its rate."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([getattr(trial, name) for name in COLUMNS] for trial in trials_of(capacity))
    return stream.getvalue()


def to_junit(capacity: Capacity) -> str:
    proven = capacity.rate_lower_95 is not None
    seconds = sum(trial.took_s for trial in trials_of(capacity))
    case = Case(
        f"{capacity.slo.words}, errors <= {capacity.slo.errors:g}",
        "met" if proven else "undecided",
        capacity.summary() if proven else capacity.open_question,
        seconds,
    )
    return junit(f"hone bench capacity {capacity.model}", [case])


def plot(capacity: Capacity) -> str:
    """Return an SVG: latency over the rate that was answered."""
    figure, (axes,) = new_figure(8.2, 3.8)
    near = [trial for trial in trials_of(capacity) if trial.rate <= 1.6 * capacity.rate]
    for name, color in (("p50_ms", BLUE), ("p95_ms", GREEN), ("p99_ms", ORANGE)):
        values = [getattr(trial, name) for trial in near]
        axes.plot([trial.answered for trial in near], values, "o", color=color, markersize=4, alpha=0.8)
        axes.plot(*_line(near, name), color=color, linewidth=1.8, label=name.removesuffix("_ms"))
    axes.axhline(capacity.slo.limit_ms, color=RED, linewidth=1.2, linestyle="--")
    axes.annotate(f" limit of {capacity.slo.words.split()[0]}", (0, capacity.slo.limit_ms), color=RED, va="bottom")
    if capacity.rate_lower_95 is not None:
        axes.axvspan(capacity.rate_lower_95, capacity.rate, color=BLUE, alpha=0.15, linewidth=0)
    axes.axvline(capacity.rate, color=BLUE, linewidth=1)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_xlim(left=0)
    axes.set_xlabel("requests/s answered (line: capacity; band: down to its lower bound)")
    axes.set_ylabel("latency, ms (log scale)")
    axes.legend(frameon=False, loc="upper left")
    return to_svg(figure)


def _line(trials: list[Trial], name: str) -> tuple[list[float], list[float]]:
    """Return the curve through the trials: of several at one rate, their median."""
    rates = sorted({trial.rate for trial in trials})
    groups: list[list[Any]] = [sorted((t for t in trials if t.rate == rate), key=lambda t: t.p99_ms) for rate in rates]
    middle = [group[len(group) // 2] for group in groups]
    return [trial.answered for trial in middle], [getattr(trial, name) for trial in middle]
