"""Write a run's report: `report.json` for programs, and `report.html`, one self-contained page, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hone.errors import HoneError, one_line
from hone.files import atomic_write
from hone.pages.render import render

from .records import Report, VariantReport

JSON_NAME, HTML_NAME = "report.json", "report.html"


def write_report(report: Report, folder: Path) -> Path:
    """Write both files; return the page's.

    Raises:
        HoneError: one can't be written.
    """
    try:
        atomic_write(folder / JSON_NAME, report.model_dump_json(indent=2) + "\n")
        return write_html(report, folder)
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise HoneError(f"the report can't be written to {folder}: {reason}") from error


def write_html(report: Report, folder: Path) -> Path:
    """Draw the page from the record alone, so that it can be drawn again from report.json."""
    from .plots import pareto_svg, size_svg

    page = render(
        Path(__file__).with_name(HTML_NAME),
        report=report,
        winner=report.variant(report.winner) if report.winner else None,
        baseline=report.baseline,
        built=sorted((v for v in report.variants if v.status == "built"), key=_order),
        absent=[variant for variant in report.variants if variant.status != "built"],
        at=(str(report.budget.at.batch), str(report.budget.at.threads)),
        budget=_budget(report),
        metric=_short(report.metric),
        legend=_legend(report),
        has_classes=any(variant.worst_class for variant in report.variants),
        has_slices=any(variant.worst_slice for variant in report.variants),
        has_energy=any(report.judged(v).joules_per_1000_rows is not None for v in report.variants if v.latency_ms),
        pareto=pareto_svg(report),
        sizes=size_svg(report),
        facts=_facts,
    )
    file = folder / HTML_NAME
    atomic_write(file, page)
    return file


def _order(variant: VariantReport) -> tuple[int, int]:
    return (1 if variant.baseline else 0, variant.rank if variant.rank is not None else 1_000)


def _budget(report: Report) -> list[str]:
    budget = report.budget
    drop = budget.quality_drop if isinstance(budget.quality_drop, str) else f"{budget.quality_drop:g}"
    lines = [f"{_short(report.metric)} drop ≤ {drop}"]
    if budget.quality_floor is not None:
        lines.append(f"{_short(report.metric)} {'≥' if report.higher_is_better else '≤'} {budget.quality_floor:g}")
    if budget.robustness_drop is not None:
        limit = budget.robustness_drop
        lines.append(f"drop on disturbed rows ≤ {limit if isinstance(limit, str) else f'{limit:g}'}")
    if budget.rows_per_s is not None:
        lines.append(f"rows/s ≥ {budget.rows_per_s:g}")
    for name, value, unit in (
        ("worst class's drop", budget.worst_class_drop, ""),
        ("worst slice's drop", budget.worst_slice_drop, ""),
        ("p50", budget.p50_ms, "ms"),
        ("p95", budget.p95_ms, "ms"),
        ("p99", budget.p99_ms, "ms"),
        ("load time", budget.load_ms, "ms"),
        ("peak memory", budget.peak_rss_mb, "MiB"),
        ("size", budget.size_mb, "MB"),
        ("energy of 1,000 rows", budget.energy_j, "J"),
    ):
        if value is not None:
            lines.append(f"{name} ≤ {value:g} {unit}".rstrip())
    return lines


def _short(metric: str) -> str:
    """A user's `module:function` is called by its function."""
    return metric.rpartition(":")[2]


def _legend(report: Report) -> list[str]:
    """Say what the marks of the picture are; those that it has."""
    built = [variant for variant in report.variants if variant.status == "built" and not variant.baseline]
    marks = (
        ("Star: winner.", report.winner is not None),
        ("Blue: meets the budget.", any(v.outcome == "met" and v.name != report.winner for v in built)),
        ("Violet: not decided.", any(v.outcome == "undecided" for v in built)),
        ("Gray: misses it.", any(v.outcome == "missed" for v in built)),
        ("Bars: what the quality is between.", any(v.loss_upper is not None for v in built)),
        ("Orange: the source.", True),
        ("The line is the Pareto front.", sum(v.pareto for v in report.variants) > 1),
    )
    return [text for text, there in marks if there]


def _facts(details: dict[str, Any]) -> str:
    """Return what a pass reported, on one line."""
    parts = []
    for key, value in details.items():
        if isinstance(value, dict):
            value = ", ".join(f"{name} {count}" for name, count in value.items())
        elif isinstance(value, list):
            value = ", ".join(map(str, value)) or "none"
        parts.append(f"{key.replace('_', ' ')}: {value}")
    return "; ".join(parts)
