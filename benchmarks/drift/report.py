"""The table of drift.json: drawn again from the record at any time."""

from __future__ import annotations

from typing import Any

KINDS = ("column", "category", "part")


def to_markdown(report: dict[str, Any]) -> str:
    """Return a line for each tool, way of calling and threshold."""
    sets = ", ".join(one["name"] for one in report["sets"])
    host = report["host"]
    lines = [
        "# Drift detection, side by side",
        "",
        f"{report['seeds']} streams each of {sets}: {report['days']} days of {report['rows_an_hour']} rows an hour, "
        f"then a change; {report['reference_rows']} rows of reference. {host['cpu']}, {host['cores']} cores.",
        "",
        "| tool | drift is | threshold | false alarms a month | looks that call | rows to find: column | category "
        "| part | missed | a look |",
        "|---|---|---|---|---|---|---|---|---|---|",
        *(_line(entry) for entry in report["results"]),
    ]
    if report["not_run"]:
        lines += ["", "## Not run", "", *(f"- {entry['name']}: {entry['error']}" for entry in report["not_run"])]
    return "\n".join(lines) + "\n"


def _line(entry: dict[str, Any]) -> str:
    name = f"| {entry['tool']} | {entry['way']} | {entry['setting']}"
    if "error" in entry:
        return f"{name} | {entry['error']} | | | | | | |"
    if entry["setting"] != "as shipped":
        name += f" (x {entry['factor']:.2f})"
    alarms = f"{entry['alarms']:.1f} ({entry['low']:.1f} to {_figure(entry['high'], '.1f')})"
    delays = " | ".join(_rows(entry["delays"], kind) for kind in KINDS)
    missed = f"{entry['missed']} of {entry['changes']}"
    return f"{name} | {alarms} | {entry['calling']:.2%} | {delays} | {missed} | {entry['seconds_a_look']:.2f} s |"


def _rows(delays: dict[str, float | None], kind: str) -> str:
    return _figure(delays[kind], ",.0f") if kind in delays else ""


def _figure(value: float | None, form: str) -> str:
    """Return a number; none is more than was looked for."""
    return "—" if value is None else format(value, form)
