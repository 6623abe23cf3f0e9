"""A page that shows how a model's quality has gone: the verdict, each metric over time, the estimate."""

from __future__ import annotations

from pathlib import Path

from hone.pages.figures import BLUE, GRAY, ORANGE, RED, new_figure, to_svg
from hone.pages.render import render

from .findings import Measured, Quality


def to_html(found: Quality) -> str:
    """Return the page."""
    longest = {one.metric: one for one in sorted(found.measured, key=lambda one: one.live.rows)}
    return render(
        Path(__file__).with_name("quality.html"),
        found=found,
        drawn=[(one, over_time_svg(one, found)) for one in longest.values() if len(one.over_time) > 1],
    )


def over_time_svg(one: Measured, found: Quality) -> str:
    """Return a picture of a metric over time with its bounds, beside the proof's and the two thresholds."""
    figure, (axes,) = new_figure(9, 3.2)
    sign = -1 if one.higher_is_better else 1
    for place, part in enumerate(one.over_time):
        axes.plot([place, place], [part.low, part.high], color=BLUE, linewidth=2.2, solid_capstyle="round")
        axes.plot([place], [part.value], "o", color=BLUE, markersize=5)
    axes.axhline(one.proof.value, color=GRAY, linewidth=1.4, label="proof")
    for share, color, words in ((found.warn, ORANGE, "warn"), (found.act, RED, "act")):
        level = one.proof.value + sign * share * abs(one.proof.value)
        axes.axhline(level, color=color, linestyle="--", linewidth=1.2, label=f"{words}: {share:.0%} lost")
    axes.set_xticks(
        range(len(one.over_time)),
        [part.first[5:16].replace("T", " ") for part in one.over_time],
        rotation=30,
        ha="right",
    )
    axes.set_ylabel(one.metric)
    axes.legend(frameon=False, fontsize=9)
    axes.set_title(f"{one.metric} of {one.live.rows:,} labeled requests, in parts", loc="left", fontsize=10.5)
    return to_svg(figure)
