"""An experiment in a terminal: lines, and tables as rows of cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hone.errors import HoneError
from hone.files import atomic_write

from .page import to_html
from .planning import Plan
from .report import Compared, Report, between, number, percent, signed, span
from .state import Experiment

Table = list[tuple[str, ...]]


def planned(found: Plan) -> str:
    """Return a plan in a line or two."""
    days = f", {found.days:.1f} days" if found.days is not None else ""
    once = f", {found.once_days:.1f} days" if found.once_days is not None else ""
    return (
        f"{found.units:,} units of all arms{days}: by then a difference of {number(found.effect)} is found in "
        f"{found.power:.0%} of all tests, in half of them by {found.half:,}\n"
        f"{found.once:,}{once}, if one looked once, then, and never before"
    )


def shown(report: Report) -> Iterator[str | Table]:
    """Yield what is known, for a terminal."""
    where = f"{len(report.services)} services" if len(report.services) > 1 else report.services[0]
    yield f"A/B test of {report.model} at {where}: {report.status}, {span(report.ran_s)}"
    yield _arms(report)
    for one in report.compared:
        yield ""
        yield f"{one.metric} ({one.better} is better){' decides' if one.metric == report.metric else ''}"
        yield one.problem or _rows(one, report)
    yield ""
    yield f"dealt      {report.dealt.state}: {report.dealt.told}"
    for guard in report.guards:
        yield f"guardrail  {guard.arm} {guard.state}: {guard.told}"
    for note in report.notes:
        yield f"note       {note}"
    yield f"verdict    {report.told}"
    if report.answer:
        yield f"answer     {report.answer}: {report.why_ended}"


def _arms(report: Report) -> Table:
    rows: Table = [("ARM", "VERSION", "PERCENT", "REQUESTS", "FAILED", "P99", f"{report.unit.upper()}S")]
    for arm in report.arms:
        p99 = "-" if arm.p99_ms is None else f"{arm.p99_ms:.3g} ms"
        units = "-" if arm.units is None else f"{arm.units:,}"
        rows.append((arm.name, arm.version, f"{arm.weight:g}", f"{arm.requests:,}", f"{arm.errors:,}", p99, units))
    return rows


def _rows(one: Compared, report: Report) -> Table:
    cost = ("BANDIT",) if report.bandit else ()
    rows: Table = [
        ("ARM", "MEAN", "DIFFERENCE", f"{100 * report.confidence:g} % INTERVAL", "RELATIVE", "COUNTED", *cost)
    ]
    for row in one.rows:
        apart = "" if row.difference is None else between(row)
        longer = ("" if row.cost is None else f"{row.cost:.2f} times as long",) if report.bandit else ()
        cells = (number(row.mean), signed(row.difference), apart, percent(row.relative), f"{row.counts:,}")
        rows.append((row.arm, *cells, *longer))
    return rows


def overview(found: Sequence[Experiment], now: float) -> Table:
    """Return every experiment, a row each."""
    rows: Table = [("MODEL", "STATUS", "RAN", "ARMS", "DECIDES", "TOLD")]
    for one in found:
        arms = ", ".join(f"{arm} {weight:g}" for arm, weight in zip(one.arms, one.weights_now, strict=True))
        rows.append(
            (one.name, one.status, span(one.ran_s(one.seen_at if one.ended else now)), arms, one.metric.name, one.told)
        )
    return rows


def write_report(report: Report, file: Path) -> None:
    """Write a report as JSON or as a page, by the name of the file.

    Raises:
        HoneError: it can't be written.
    """
    text = to_html(report) if file.suffix in (".html", ".htm") else report.model_dump_json(indent=2) + "\n"
    try:
        atomic_write(file, text)
    except OSError as error:
        raise HoneError(f"{file}: can't be written: {error.strerror}") from None
