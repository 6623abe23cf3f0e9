"""Tables of serving.json: redrawn from the records at any time."""

from __future__ import annotations

from typing import Any


def to_markdown(report: dict[str, Any]) -> str:
    """Return one table a model and payload, with each server's rate as a share of Hone's."""
    lines = [
        "# Serving, side by side",
        "",
        f"{report['machine']}; {report['rounds']} rounds of {report['seconds']:g} s.",
    ]
    keys = dict.fromkeys((run["model"], run["payload"]) for run in report["runs"])
    for model, payload in keys:
        runs = [run for run in report["runs"] if (run["model"], run["payload"]) == (model, payload)]
        hone = {run["connections"]: run["rows_per_s"] for run in runs if run["server"] == "hone"}
        lines += [
            "",
            f"## {model}, {payload}",
            "",
            "| server | connections | requests/s | rows/s | p50 ms | p99 ms | errors | Hone's rate is |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for run in sorted(runs, key=lambda run: (run["connections"], -run["rows_per_s"])):
            against = hone.get(run["connections"])
            ratio = f"{against / run['rows_per_s']:.2f}x" if against and run["rows_per_s"] else ""
            if run["errors"]:
                ratio = "errors"  # refusing is quicker than answering
            lines.append(
                f"| {run['server']} | {run['connections']} | {run['rps']:,.0f} | {run['rows_per_s']:,.0f} "
                f"| {run['p50_ms']:.2f} | {run['p99_ms']:.2f} | {run['errors']} | {ratio} |"
            )
    if report["not_run"]:
        lines += ["", "## Not run", ""]
        lines += [f"- {entry['server']} ({entry['model']}): {entry['error']}" for entry in report["not_run"]]
    lines += ["", "## Settings", ""]
    lines += [f"- **{server}**: {settings}" for server, settings in report["settings"].items()]
    return "\n".join(lines) + "\n"
