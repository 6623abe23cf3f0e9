"""The request rate of the past, hour by hour: from Prometheus or a CSV file, checked."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np

from hone.errors import HoneError

from ..autoscaler.trace import read_rows
from .prometheus import ANYBODY, Access, series_of
from .seasons import DAY_H, WEEK_H, Floats

HOUR_S = 3600.0
QUERY = "sum(rate(hone_requests_total[1h]))"
LEAST_DAYS = 2
"""Of history: what was seen once is not known to come again."""

MOST_DAYS = 400
"""Prometheus answers with 11,000 points at most."""

Sample = tuple[str, float, float]
"""Where it stands, for messages; seconds since 1970; requests per second."""


@dataclass(frozen=True)
class History:
    """Mean rates of whole hours, one after another.

    Attributes:
        start: of the first hour, in seconds since 1970.
        rates: [hours] in requests/s.
        source: where they are from, in words.
        notes: what was done to them, and what they can't tell.
    """

    start: float
    rates: Floats
    source: str
    notes: tuple[str, ...]

    @property
    def end(self) -> float:
        return self.start + HOUR_S * len(self.rates)


def moment(t: float) -> str:
    """Return a time as people read it."""
    return datetime.fromtimestamp(t, UTC).strftime("%a %Y-%m-%d %H:%M UTC")


def read_csv(file: Path, fill_h: float = 0) -> History:
    """Read a CSV file with the columns `t` (seconds since 1970, or ISO 8601) and `rate` (requests/s).

    Args:
        file: at equal distances of an hour at most.
        fill_h: hours of a hole that are filled in, by a straight line.

    Raises:
        HoneError: it can't be read, or a row is wrong; the message names the line.
    """
    samples = [(f"{file}:{line}", t, rate) for line, t, rate in read_rows(file, _seconds)]
    return _history(samples, str(file), fill_h)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def ask_prometheus(
    url: str, query: str, days: float, now: float, fill_h: float = 0, access: Access = ANYBODY
) -> History:
    """Ask a Prometheus for the hourly rates of the last days.

    Args:
        url: of its HTTP API, without a path or with the prefix that it is served under.
        query: PromQL of one series, the mean rate of the hour before.
        days: of history that is asked for; it may have fewer.
        now: seconds since 1970; the last whole hour before it is the last of the history.
        fill_h: hours of a hole that are filled in.
        access: to it.

    Raises:
        HoneError: it doesn't answer, lets this caller not in, refuses the query, has no such data, or several series.
    """
    end = HOUR_S * math.floor(now / HOUR_S)
    span = {"start": end - days * 24 * HOUR_S, "end": end, "step": HOUR_S}
    series = series_of(url, "/api/v1/query_range", {"query": query, **span}, access)
    if not series:
        raise HoneError(f"{url}: nothing in the last {days:g} days for {query}; give another --query, or --history")
    if len(series) > 1:
        raise HoneError(f"{url}: {len(series)} series for {query}; give a --query of one, such as sum(…)")
    # The rate at the end of an hour is that of the hour.
    values = series[0].get("values") or []
    samples = [(f"{url}: {moment(float(t))}", float(t) - HOUR_S, _number(text)) for t, text in values]
    return _history(samples, f"{url}: {query}", fill_h)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _history(samples: Sequence[Sample], source: str, fill_h: float) -> History:
    if len(samples) < 2:
        raise HoneError(f"{source}: {len(samples)} sample(s); a forecast takes {LEAST_DAYS} days of them at least")
    for (_, before, _), (place, t, _) in pairwise(samples):
        if t <= before:
            raise HoneError(f"{place}: time goes from {moment(before)} to {moment(t)}; it has to grow")
    for place, _, rate in samples:
        if not math.isfinite(rate):
            raise HoneError(f"{place}: the rate is not a number; is something divided by 0?")
        if rate < 0:
            raise HoneError(f"{place}: the rate is {rate:g}; requests per second are 0 or more")
    every = statistics.median(b[1] - a[1] for a, b in pairwise(samples))
    if every > HOUR_S * 1.001:
        raise HoneError(f"{source}: samples are {every:,.0f} s apart; a day's shape takes one an hour at least")
    if abs(HOUR_S / every - round(HOUR_S / every)) > 0.01:
        raise HoneError(f"{source}: samples are {every:g} s apart; an hour has to be a multiple of that")
    times, rates, filled = _filled(samples, every, fill_h)
    start, hourly = _hourly(times, rates, every)
    if len(hourly) < LEAST_DAYS * DAY_H:
        raise HoneError(f"{source}: {len(hourly)} whole hours; a forecast takes {LEAST_DAYS} days at least")
    if not hourly.any():
        raise HoneError(f"{source}: every rate is 0; there is nothing to forecast")
    notes = [f"{filled} sample(s) that were missing are filled in by straight lines"] if filled else []
    return History(start, hourly, source, (*notes, *_unknown(len(hourly))))


def _filled(samples: Sequence[Sample], every: float, fill_h: float) -> tuple[Floats, Floats, int]:
    """Return samples at equal distances, and how many of them were missing."""
    times, rates, filled = [samples[0][1]], [samples[0][2]], 0
    for place, t, rate in samples[1:]:
        steps = (t - times[-1]) / every
        count = round(steps)
        if count < 1 or abs(steps - count) > 0.01 * max(count, 1):
            raise HoneError(
                f"{place}: {t - times[-1]:g} s after the one before, where the others are {every:g} s apart"
            )
        hole_h = (count - 1) * every / HOUR_S
        if hole_h > fill_h:
            raise HoneError(
                f"{place}: a hole: nothing between {moment(times[-1])} and {moment(t)}; give what is after it, or "
                f"--fill {math.ceil(hole_h)} for a straight line across it"
            )
        before, last = times[-1], rates[-1]
        for step in range(1, count):
            times.append(before + step * (t - before) / count)
            rates.append(last + step * (rate - last) / count)
        filled += count - 1
        times.append(t)
        rates.append(rate)
    return np.array(times), np.array(rates), filled


def _hourly(times: Floats, rates: Floats, every: float) -> tuple[float, Floats]:
    """Return the begin of the first whole hour, and the mean rate of each whole hour."""
    in_hour = round(HOUR_S / every)
    first = int(np.argmax(times % HOUR_S < every))
    count = (len(times) - first) // in_hour
    return float(times[first]), rates[first : first + count * in_hour].reshape(count, in_hour).mean(axis=1)


def _unknown(hours: int) -> list[str]:
    """Return what so short a history can't tell."""
    days = f"{hours / DAY_H:.1f} days of history"
    if hours < 2 * WEEK_H:
        return [f"{days}: the shape of a week and a trend can't be known; a weekend may look like any day"]
    if hours < 3 * WEEK_H:
        return [f"{days}: a trend can't be told from a week that was unlike the other; none is assumed"]
    return []
