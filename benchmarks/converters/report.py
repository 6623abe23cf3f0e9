"""The table and the plot of converters.json: redrawn from the records at any time."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from hone.files import atomic_write
from hone.pages.figures import BLUE, ORANGE, new_figure


def to_markdown(report: dict[str, Any]) -> str:
    """Return one table a model: its variants, and the other tools' results."""
    lines = ["# Converters, side by side", "", f"{report['machine']}; {', '.join(report['cpu_features'])}."]
    peaks = ", ".join(f"{name} {value:,.0f}" for name, value in report.get("peak_gops", {}).items())
    lines += (
        ["", f"One large matrix product on all cores reaches, in 1e9 operations a second: {peaks}."] if peaks else []
    )
    lines += _ahead(report["models"])
    for model in report["models"]:
        lines += [
            "",
            f"## {model['name']} ({model['source']}, {model['metric']})",
            "",
            f"{model['seconds']:g} s for the whole run, {model['recipe_lines']} lines of recipe.",
            "",
            "| variant | speed-up, batch 1 | quality lost | size | rows/s by batch | share of peak |",
            "|---|---|---|---|---|---|",
        ]
        for variant in model["variants"]:
            mark = " (chosen)" if variant["variant"] == model["winner"] else ""
            lines.append(_line(variant["variant"] + mark, variant))
        lines += [_line(f"*{peer['name']}*", peer) for peer in model["peers"]]
    if report["not_run"]:
        lines += ["", "## Not run", "", *(f"- {entry['name']}: {entry['error']}" for entry in report["not_run"])]
    return "\n".join(lines) + "\n"


def _ahead(models: list[dict[str, Any]]) -> list[str]:
    """Return a table of how many times as fast each chosen variant is as the fastest of what other tools made that is
    proven to keep to the same budget, by batch; in brackets what that is between at 95 % confidence."""
    chosen = [model for model in models if model["chosen"]]
    batches = list(dict.fromkeys(batch for model in chosen for batch in model["chosen"]["rows_per_s"]))
    head = ["chosen, over the fastest tool within the budget", *(f"batch {batch}" for batch in batches)]
    lines = ["", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for model in chosen:
        cells = [_over_fastest(model, batch) for batch in batches]
        lines.append(f"| {model['name']}: {model['winner']} | " + " | ".join(cells) + " |")
    return lines if chosen else []


def _over_fastest(model: dict[str, Any], batch: str) -> str:
    allowed = model["chosen"].get("loss_allowed") or 0.0
    timed = [peer for peer in model["peers"] if batch in peer.get("chosen_is_faster", {})]
    others = [peer for peer in timed if peer["loss_upper"] is not None and peer["loss_upper"] <= allowed]
    if not others:
        return "none"
    fastest = max(others, key=lambda peer: float(peer["rows_per_s"][batch]))
    middle, low, high = fastest["chosen_is_faster"][batch]
    return f"{middle:.2f} ({low:.2f} to {high:.2f}) *{fastest['name']}*"


def _line(name: str, entry: dict[str, Any]) -> str:
    if "rows_per_s" not in entry:
        return f"| {name} | | | | {entry.get('reason') or entry.get('error', '')} | |"
    rates = ", ".join(f"{batch}: {rate:,.0f}" for batch, rate in entry["rows_per_s"].items())
    loss = f"{entry['quality_loss_pct']:.2f} %" if entry["quality_loss_pct"] is not None else "?"
    found = entry.get("peak_share")
    share = f"{found['share']:.0%} of {found['of']}" if found else ""
    figures = f"{entry['speedup_vs_source'] or 0:.2f}x | {loss} | {entry['size_ratio'] or 0:.2f}"
    return f"| {name} | {figures} | {rates} | {share} |"


def draw(report: dict[str, Any], file: Path) -> None:
    """Draw speed-up against quality lost, a panel a model: variants as dots, other tools' results as crosses."""
    models = [model for model in report["models"] if model["variants"]]
    if not models:
        return
    figure, panels = new_figure(6.5, 3.4 * len(models), rows=len(models))
    for panel, model in zip(panels, models, strict=True):
        for entries, marker, color in ((model["variants"], "o", BLUE), (model["peers"], "x", ORANGE)):
            for entry in entries:
                point = entry.get("speedup_vs_source"), entry.get("quality_loss_pct")
                if None in point:
                    continue
                panel.plot(*point, marker, color=color)
                panel.annotate(entry.get("variant") or entry["name"], point, fontsize=6)
        panel.set(title=model["name"], xlabel="speed-up over the source, batch 1", ylabel="quality lost, %")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    atomic_write(file, stream.getvalue())
