"""A page that shows in a minute who wins: the outcome, each variant's difference with its interval, and what was
checked."""

from __future__ import annotations

from pathlib import Path

from hone.pages.figures import BLUE, GRAY, GREEN, RED, new_figure, to_svg
from hone.pages.render import render

from .report import WORDS, Compared, Report, between, number, percent, signed, span


def to_html(report: Report) -> str:
    """Return the page."""
    drawn = [(one, picture(one)) for one in report.compared if any(row.low is not None for row in one.rows)]
    return render(
        Path(__file__).with_name("ab.html"), report=report, word=WORDS[report.outcome], drawn=drawn, number=number,
        signed=signed, between=between, percent=percent, span=span,
    )  # fmt: skip


def picture(compared: Compared) -> str:
    """Return a picture of the variants' differences from the control with their intervals."""
    rows = [row for row in compared.rows if row.low is not None and row.high is not None]
    sign = 1 if compared.better == "higher" else -1
    figure, (axes,) = new_figure(8, 0.9 + 0.42 * len(rows))
    for place, row in enumerate(reversed(rows)):
        low, high = sorted((sign * (row.low or 0.0), sign * (row.high or 0.0)))
        color = GREEN if low > 0 else RED if high < 0 else BLUE
        axes.plot([row.low or 0.0, row.high or 0.0], [place, place], color=color, linewidth=2.6, solid_capstyle="round")
        axes.plot([row.difference or 0.0], [place], "o", color=color, markersize=6)
    axes.axvline(0, color=GRAY, linestyle="--", linewidth=1.2)
    axes.set_yticks(range(len(rows)), [row.arm[:40] for row in reversed(rows)])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(f"{compared.metric}: difference from the control, with its interval ({compared.better} is better)")
    return to_svg(figure)
