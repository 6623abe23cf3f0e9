"""A page that shows in a minute what has moved: the verdict, every column's change with its bounds, and shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hone.pages.figures import BLUE, GRAY, GREEN, ORANGE, RED, new_figure, to_svg
from hone.pages.render import render

from .findings import WORDS, Drift, Finding

SHOWN = 20
"""Columns in the picture of changes."""
SHAPES = 6
COLORS = {"missed": RED, "undecided": ORANGE, "met": GREEN}


def to_html(drift: Drift) -> str:
    """Return the page."""
    drawn = [one for one in drift.findings if one.column in drift.shapes][:SHAPES]
    return render(
        Path(__file__).with_name("drift.html"),
        drift=drift,
        words=WORDS,
        word=WORDS[drift.verdict],
        changes=changes_svg(drift) if drift.findings else "",
        shapes=[(one, shape_svg(one, drift.shapes[one.column])) for one in drawn],
        thin=max(drift.findings, key=lambda one: one.smallest, default=None),
    )


def changes_svg(drift: Drift) -> str:
    """Return a picture of the columns' changes with their bounds, beside the threshold."""
    shown = drift.findings[:SHOWN]
    figure, (axes,) = new_figure(9, 0.9 + 0.32 * len(shown))
    for place, one in enumerate(reversed(shown)):
        color = COLORS[one.verdict]
        axes.plot([one.low, one.high], [place, place], color=color, linewidth=2.4, solid_capstyle="round")
        axes.plot([one.effect], [place], "o", color=color, markersize=6)
    axes.axvline(drift.threshold, color=GRAY, linestyle="--", linewidth=1.2)
    axes.set_yticks(range(len(shown)), [one.column[:48] for one in reversed(shown)])
    axes.set_xlim(0, max(0.3, *(min(1.0, one.high * 1.05) for one in shown)))
    axes.set_xlabel("largest change of a share of rows, with its bounds; dashed: the threshold")
    return to_svg(figure)


def shape_svg(finding: Finding, shape: dict[str, Any]) -> str:
    """Return a picture of the shares of rows in each cell, before and now."""
    cells = [
        (name, before, after)
        for name, before, after in zip(shape["names"], shape["before"], shape["after"], strict=True)
        if before or after
    ]
    figure, (axes,) = new_figure(6.2, 2.6)
    places = range(len(cells))
    axes.bar([place - 0.2 for place in places], [100 * cell[1] for cell in cells], 0.38, color=GRAY, label="proof")
    axes.bar([place + 0.2 for place in places], [100 * cell[2] for cell in cells], 0.38, color=BLUE, label="now")
    axes.set_xticks(list(places), [cell[0][:12] for cell in cells], rotation=40, ha="right", fontsize=8.5)
    axes.set_ylabel("% of rows")
    axes.legend(frameon=False, fontsize=9)
    axes.set_title(finding.column[:60], loc="left", fontsize=10.5)
    return to_svg(figure)
