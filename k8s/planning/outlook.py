"""A forecast as a record: what is to come, its peaks and the pods for them, and what earlier forecasts were worth."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from hone.capacity import Capacity
from hone.errors import HoneError
from hone.files import atomic_write
from hone.pages.figures import BLUE, GRAY, RED, new_figure, to_svg
from hone.pages.render import render
from hone.records import Record, read_record

from ..numbers import pods_for
from .forecast import LEVEL, Ahead, look_ahead
from .history import HOUR_S, History, moment
from .seasons import DAY_H, WEEK_H

METHOD = (
    "dynamic harmonic regression with autoregressive errors on the logarithm (Hyndman & Athanasopoulos, Forecasting: "
    "Principles and Practice, 3rd ed., 12.1; statsmodels' AutoReg), intervals from simulated paths, widened until they "
    "held in earlier forecasts (split conformal)"
)
MOST_DAYS = 90


class Point(Record):
    """An hour."""

    t: datetime = Field(description="When it begins.")
    rate: float = Field(description="Median of its mean rate, in requests/s.")
    low: float
    high: float


class Peak(Record):
    """The highest hour of some days."""

    t: datetime = Field(description="When the median is highest.")
    rate: float = Field(description="The median then.")
    upper: float = Field(description="What the highest hour stays below with 97.5 % probability.")
    pods: int | None = Field(None, description="For `upper`; null without a capacity.")


class Horizon(Record):
    """Some days from the end of the history on."""

    days: int
    mean: float
    requests: float = Field(description="All together, at the medians.")
    peak: Peak


class BackTest(Record):
    """Forecasts that were made again from earlier hours, and compared with what came."""

    folds: int
    hours: int = Field(description="That each looked ahead.")
    covered: float = Field(description="Share of the hours that lay in the model's own interval.")
    error: float = Field(description="Sum of absolute errors over the sum of rates (WAPE).")
    naive_error: float = Field(description="The same of 'as a week before'.")
    widened: float = Field(description="Factor of the interval that holds `level` of those hours.")


class Forecast(Record):
    """`hone capacity forecast --out FILE`."""

    schema_version: Literal[1] = 1
    kind: Literal["forecast"] = "forecast"
    source: str
    history_start: datetime
    history_end: datetime
    method: str
    model: str = Field(description="The terms that were chosen.")
    level: float = Field(description="Share of the hours that lie between `low` and `high`.")
    capacity: str | None = Field(description="Tag of the artifact whose pods are counted.")
    horizons: list[Horizon]
    peaks: list[Peak] = Field(description="Of each day.")
    back_test: BackTest | None = Field(description="Null: the history is too short for one.")
    notes: list[str]
    points: list[Point]


def read_forecast(file: Path) -> Forecast:
    """Read what `hone capacity forecast --out` wrote.

    Raises:
        HoneError: it is missing, or none.
    """
    return read_record(file, Forecast, "a forecast", "hone capacity forecast --out FILE.json")


def forecast(history: History, days: Sequence[int], capacity: Capacity | None = None) -> tuple[Forecast, Ahead]:
    """Return the forecast of a history.

    Args:
        history: of two days or more.
        days: horizons, at most `MOST_DAYS`.
        capacity: whose pods the peaks take.
    """
    ahead = look_ahead(history.rates, max(days) * DAY_H)

    def peak(first: int, last: int) -> Peak:
        at = first + int(np.argmax(ahead.rates[first:last]))
        upper = float(np.quantile(ahead.paths[:, first:last].max(axis=1), (1 + LEVEL) / 2))
        pods = None if capacity is None else pods_for(capacity, upper)
        return Peak(t=_when(history.end + HOUR_S * at), rate=float(ahead.rates[at]), upper=upper, pods=pods)

    def horizon(number: int) -> Horizon:
        rates = ahead.rates[: number * DAY_H]
        requests = float(rates.sum()) * HOUR_S
        return Horizon(days=number, mean=float(rates.mean()), requests=requests, peak=peak(0, number * DAY_H))

    hours = enumerate(zip(ahead.rates.tolist(), ahead.low.tolist(), ahead.high.tolist(), strict=True))
    trials = ahead.trials
    found = Forecast(
        source=history.source,
        history_start=_when(history.start),
        history_end=_when(history.end),
        method=METHOD,
        model=ahead.model.form.words,
        level=LEVEL,
        capacity=None if capacity is None else capacity.model,
        horizons=[horizon(number) for number in days],
        peaks=[peak(DAY_H * day, DAY_H * (day + 1)) for day in range(max(days))],
        back_test=BackTest(**vars(trials)) if trials.folds else None,
        notes=[*history.notes, *_doubts(history, ahead, max(days))],
        points=[Point(t=_when(history.end + HOUR_S * at), rate=r, low=lo, high=hi) for at, (r, lo, hi) in hours],
    )
    return found, ahead


def _when(t: float) -> datetime:
    return datetime.fromtimestamp(round(t), UTC)


def _doubts(history: History, ahead: Ahead, days: int) -> list[str]:
    notes = []
    trials, known = ahead.trials, len(history.rates)
    if not trials.folds:
        notes.append("no back-test: the history is too short, so nothing is known of how wide the interval should be")
    elif trials.hours < days * DAY_H:
        notes.append(
            f"the back-test looked {trials.hours / DAY_H:.1f} days ahead: beyond that the interval is the model's word"
        )
    if trials.folds and trials.error > trials.naive_error:
        notes.append("in the back-test 'as a week before' was nearer: the seasons explain little of this load")
    if days * DAY_H > known:
        notes.append(f"{days} days ahead from {known / DAY_H:.1f}: growth slower than the history can't be seen in it")
    if known < 52 * WEEK_H:
        notes.append("seasons of a year, holidays and launches are not in it")
    return notes


def summary(found: Forecast) -> list[tuple[str, ...]]:
    """Return horizons and the days of the first week as rows of a table, under their heads."""
    pods = found.capacity is not None
    rows = [("", "mean", "highest hour", "its rate", "at most", *(("pods",) if pods else ()))]

    def row(title: str, mean: str, peak: Peak) -> tuple[str, ...]:
        when = moment(peak.t.timestamp())
        return (title, mean, when, _rate(peak.rate), _rate(peak.upper), *((str(peak.pods),) if pods else ()))

    rows += [row(f"next {each.days} days", _rate(each.mean), each.peak) for each in found.horizons]
    rows += [row(f"  day {number}", "", peak) for number, peak in enumerate(found.peaks[:7], 1)]
    return rows


def _rate(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 100 else f"{value:.3g}/s"


def back_test_line(found: Forecast) -> str:
    """Return in a line what earlier forecasts were worth."""
    test = found.back_test
    if test is None:
        return "back-test: none"
    wider = (
        "" if test.widened == 1 else f"; intervals are {test.widened:.2f} times as wide, which held {found.level:.0%}"
    )
    return (
        f"back-test: {test.folds} forecast(s) of {test.hours / DAY_H:.1f} days from earlier hours, mean error "
        f"{test.error:.1%} (as a week before: {test.naive_error:.1%}), {test.covered:.1%} of the hours in the model's "
        f"{found.level:.0%} interval{wider}"
    )


def check_out(file: Path) -> None:
    """Raise HoneError for a file that isn't named as JSON: the page is written beside it."""
    if file.suffix != ".json":
        raise HoneError(f"--out: '{file}' has to end with .json; the page is written beside it")


def write_forecast(file: Path, found: Forecast, history: History) -> Path:
    """Write a forecast and, beside it, its page; return the page's file."""
    page = file.with_suffix(".html")
    template = Path(__file__).with_name("forecast.html")
    text = render(template, found=found, plot=_plot(found, history), rows=summary(found), tested=back_test_line(found))
    atomic_write(file, found.model_dump_json(indent=1) + "\n")
    atomic_write(page, text)
    return page


def _plot(found: Forecast, history: History) -> str:
    """Return an SVG: what was, and what is to come with its interval and the peaks' bounds."""
    figure, (axes,) = new_figure(8.2, 3.8)
    ahead = np.arange(len(found.points)) / DAY_H
    before = np.arange(-len(history.rates), 0)[-len(found.points) - WEEK_H :] / DAY_H
    axes.plot(before, history.rates[-len(before) :], color=GRAY, linewidth=1.2, label="history")
    low, high = ([getattr(point, name) for point in found.points] for name in ("low", "high"))
    axes.fill_between(ahead, low, high, color=BLUE, alpha=0.2, linewidth=0, label=f"{found.level:.0%} of the hours")
    axes.plot(ahead, [point.rate for point in found.points], color=BLUE, linewidth=1.2, label="forecast")
    for each in found.horizons:
        axes.hlines(each.peak.upper, 0, each.days, color=RED, linewidth=1, linestyle="--")
        axes.annotate(f"{each.days} days: at most", (each.days, each.peak.upper), ha="right", va="bottom", fontsize=9)
    axes.set_ylim(0)
    axes.set_xlabel(f"days from {moment(found.history_end.timestamp())}")
    axes.set_ylabel("requests/s")
    axes.legend(frameon=False, loc="upper left", ncols=3)
    return to_svg(figure)
