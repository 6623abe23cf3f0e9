"""Write a search of serving settings: `tune.json`, and beside it a page with its front."""

from __future__ import annotations

from pathlib import Path

from hone.files import atomic_write
from hone.pages.figures import BLUE, GRAY, GREEN, new_figure, to_svg
from hone.pages.render import render

from ..tuned import Tried, Tuning


def write_tuning_report(tuning: Tuning, file: Path) -> None:
    """Write a search and its page; the JSON last: where it is, all is."""
    left = sorted((tried for tried in tuning.tried if tried.out), key=lambda tried: -(tried.rate or 0.0))
    page = render(Path(__file__).with_name("tune.html"), tuning=tuning, plot=plot(tuning), left=left)
    atomic_write(file.with_suffix(".html"), page)
    atomic_write(file, tuning.model_dump_json(indent=2) + "\n")


def plot(tuning: Tuning) -> str:
    """Return an SVG: rate over cost, the front as steps."""
    figure, (axes,) = new_figure(8.2, 4.2)
    left = [tried for tried in tuning.tried if tried.out and tried.cost and tried.rate]
    axes.plot([_cost(tuning, t) for t in left], [t.holds for t in left], "o", color=GRAY, markersize=5)
    shown = sorted((tried for tried in tuning.front if tried.cost), key=lambda tried: _cost(tuning, tried))
    costs, rates = [_cost(tuning, tried) for tried in shown], [tried.holds for tried in shown]
    axes.step(costs, rates, where="post", color=BLUE, linewidth=1.4)
    axes.plot(costs, rates, "o", color=BLUE, markersize=7)
    axes.plot([_cost(tuning, tuning.best)], [tuning.best.holds], "o", color=GREEN, markersize=10)
    for tried, cost in zip(shown, costs, strict=True):
        plan = tried.plan
        if plan is not None:
            text = f"  {plan.workers} x {plan.threads} x {plan.in_flight}, {plan.max_batch_rows} rows"
            axes.annotate(text, (cost, tried.holds), va="top", fontsize=9)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("price of an hour" if tuning.prices.given else "cores that it keeps busy")
    axes.set_ylabel("requests/s within the limit")
    return to_svg(figure)


def _cost(tuning: Tuning, tried: Tried) -> float:
    return tried.cost.axes(tuning.prices)[0] if tried.cost else 0.0
