"""Load over time: from a file of `t,rate`, or a shape by name."""

from __future__ import annotations

import csv
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hone.errors import HoneError, did_you_mean

Rates = np.ndarray[tuple[int], np.dtype[np.float64]]


@dataclass(frozen=True)
class Trace:
    """Requests per second that arrive, each for as long as the next.

    Attributes:
        start: of the first rate, in seconds.
        every_s: how long each rate holds.
        rates: one after another.
    """

    start: float
    every_s: float
    rates: Rates

    @property
    def duration_s(self) -> float:
        return self.every_s * len(self.rates)

    @property
    def peak(self) -> float:
        return float(self.rates.max())

    def ticks(self, tick_s: float) -> Rates:
        """Return the rate of each tick from the start on: the mean over it, so that nothing that arrives is lost."""
        sums = np.concatenate(([0.0], np.cumsum(self.rates))) * self.every_s
        edges = np.arange(math.ceil(self.duration_s / tick_s - 1e-9) + 1) * tick_s
        at = np.interp(edges, np.arange(len(sums)) * self.every_s, sums)
        # The last tick may be longer than what is left of the trace.
        lengths = np.minimum(edges[1:], self.duration_s) - edges[:-1]
        return np.diff(at) / lengths


def read_trace(file: Path) -> Trace:
    """Read a CSV file with the columns `t` (seconds) and `rate` (requests per second), at equal distances.

    Raises:
        HoneError: it can't be read, a column is missing, or a row is wrong; the message names the line.
    """
    return _checked(file, read_rows(file))


def read_rows(file: Path, time: Callable[[str], float] = float) -> list[tuple[int, float, float]]:
    """Return (line, t, rate) of each row of a CSV file, as they stand there.

    Args:
        file: with the columns `t` and `rate`.
        time: what makes a number of a text of `t`, or raises ValueError.

    Raises:
        HoneError: it can't be read, a column is missing, or a row holds something else than numbers.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, skipinitialspace=True)
            names = [name.strip() for name in reader.fieldnames or []]
            if not {"t", "rate"} <= set(names):
                raise HoneError(f"{file}: the first line has to name the columns t,rate, not '{','.join(names)}'")
            reader.fieldnames = names
            return [(reader.line_num, *_numbers(f"{file}:{reader.line_num}", row, time)) for row in reader]
    except OSError as error:
        raise HoneError(f"{file}: {error.strerror or error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise HoneError(f"{file}: not CSV: {error}") from None


def _numbers(place: str, row: dict[str, str | None], time: Callable[[str], float]) -> tuple[float, float]:
    def number(column: str) -> float:
        text = (row[column] or "").strip()
        try:
            value = time(text) if column == "t" else float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise HoneError(f"{place}: {column} is '{text}', not a number; a trace has no holes")
        return value

    return number("t"), number("rate")


def _checked(file: Path, rows: list[tuple[int, float, float]]) -> Trace:
    if not rows:
        raise HoneError(f"{file}: no rows; give seconds and requests per second, such as 0,1200")
    if len(rows) < 2:
        raise HoneError(f"{file}: one row; give at least two, so that it is known how long a rate holds")
    every = rows[1][1] - rows[0][1]
    for (_, before, _), (line, t, _) in itertools.pairwise(rows):
        if t <= before:
            raise HoneError(f"{file}:{line}: t goes from {before:g} to {t:g}; it has to grow")
        if not math.isclose(t - before, every, rel_tol=1e-6, abs_tol=1e-6):
            raise HoneError(
                f"{file}:{line}: a hole: t goes from {before:g} to {t:g}, where the first rows are {every:g} s apart"
            )
    for line, _, rate in rows:
        if rate <= 0:
            raise HoneError(f"{file}:{line}: rate is {rate:g}; give the requests per second that arrive, more than 0")
    if every * len(rows) > LONGEST_S:
        raise HoneError(
            f"{file}: {every * len(rows) / DAY_S:,.0f} days; at most {LONGEST_S / DAY_S:g} are simulated at once"
        )
    return Trace(rows[0][1], every, np.array([rate for _, _, rate in rows]))


DAY_S = 24 * 3600.0
LONGEST_S = 31 * DAY_S
"""Of a trace: each of its seconds takes memory."""

EVERY_S = 15.0
"""Distance of the rates of a shape."""

HOUR = 3600.0


def _constant(at: Rates, _: float) -> Rates:
    return np.ones_like(at)


def _step(at: Rates, factor: float) -> Rates:
    return np.where(at < 0.25, 1.0, factor)


def _ramp(at: Rates, factor: float) -> Rates:
    return 1 + (factor - 1) * np.clip((at - 0.1) / 0.6, 0, 1)


def _burst(at: Rates, factor: float) -> Rates:
    return np.where((at >= 0.25) & (at < 0.4), factor, 1.0)


def _day(at: Rates, factor: float) -> Rates:
    """Lowest at four in the morning, highest at four in the afternoon, with a second, smaller peak in the evening."""
    daily = (1 - np.cos(2 * np.pi * (at - 4 / 24))) / 2
    evening = 0.3 * np.exp(-(((at - 20.5 / 24) * 24) ** 2))
    shape = daily + evening
    return 1 + (factor - 1) * (shape - shape.min()) / (shape.max() - shape.min())


SHAPES: dict[str, tuple[Callable[[Rates, float], Rates], float]] = {
    "constant": (_constant, HOUR),
    "step": (_step, HOUR),
    "ramp": (_ramp, HOUR),
    "burst": (_burst, HOUR),
    "day": (_day, DAY_S),
}
"""By name: the rate as a multiple of the lowest, over the share of the time that has passed, and how long it is."""


def shape(name: str, lowest: float, highest: float) -> Trace:
    """Return a shape by name, from one rate to another.

    Args:
        name: of `SHAPES`.
        lowest: requests per second at first.
        highest: at its peak.

    Raises:
        HoneError: there is no such shape, or its peak is below its lowest rate.
    """
    if highest < lowest:
        raise HoneError(f"--peak: {highest:g} is less than the lowest rate, {lowest:g}; give more, or a lower --rate")
    if name not in SHAPES:
        raise HoneError(f"--trace: '{name}' is neither a file nor a shape{did_you_mean(name, SHAPES)}")
    rates, seconds = SHAPES[name]
    at = np.arange(0, seconds, EVERY_S) / seconds
    return Trace(0.0, EVERY_S, lowest * rates(at, highest / lowest))
