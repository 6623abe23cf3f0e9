"""How every picture of a report looks: colors, fonts, axes, and SVG text that stands in a page."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe-Ito colors: told apart by color-blind readers too.
GREEN, BLUE, ORANGE, RED, GRAY, INK, GRID = "#009E73", "#0072B2", "#D55E00", "#CC3311", "#B8B8B8", "#1f2933", "#e4e7eb"
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "DejaVu Sans"],
    "font.size": 10.5,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.color": INK,
    "svg.fonttype": "none",
    "svg.hashsalt": "hone",
}


def new_figure(width: float, height: float, rows: int = 1) -> tuple[Figure, list[Axes]]:
    """Return a figure of `rows` axes, in inches; without pyplot, whose global state doesn't belong in a library."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]
    figure = Figure(figsize=(width, height), layout="constrained")
    panels: list[Axes] = list(figure.subplots(rows, 1, squeeze=False)[:, 0])
    for axes in panels:
        axes.grid(color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    return figure, panels


def log_axis(axes: Axes) -> None:
    """Make the x axis logarithmic, labeled in plain numbers at 1, 2 and 5."""
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:.1e}"[0] in "25" else "")


def to_svg(figure: Figure) -> str:
    """Return the `<svg>` element alone; the same figure gives the same text."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]
