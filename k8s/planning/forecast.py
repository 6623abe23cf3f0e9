"""A forecast of the request rate: hours ahead with intervals, how earlier forecasts would have done, and peaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .seasons import DAY_H, WEEK_H, Floats, Model, fit

LEVEL = 0.95
"""Share of the hours that lie in the interval."""

FOLDS = 4
"""Earlier forecasts that are made again at most."""


@dataclass(frozen=True)
class Trials:
    """Forecasts that were made again from earlier hours, and compared with what came.

    Attributes:
        folds: how many; 0: the history is too short.
        hours: that each looked ahead.
        covered: share of those hours whose rate lay in the model's own interval.
        error: sum of absolute errors over the sum of rates (WAPE).
        naive_error: the same of 'as in the same hour a week (or a day) before'.
        widened: factor of the interval that would have held `LEVEL` of those hours; 1 at least.
    """

    folds: int
    hours: int
    covered: float
    error: float
    naive_error: float
    widened: float


@dataclass(frozen=True)
class Ahead:
    """What is to come, hour by hour.

    Attributes:
        rates: [hours] medians, in requests/s.
        low, high: [hours] bounds of the interval.
        paths: [paths, hours] that they are quantiles of.
        model: that was fitted to all of the history.
        trials: of earlier hours.
    """

    rates: Floats
    low: Floats
    high: Floats
    paths: Floats
    model: Model
    trials: Trials


def look_ahead(rates: Floats, hours: int, seed: int = 0) -> Ahead:
    """Return a forecast from hourly rates.

    Earlier forecasts are made again. Where fewer of their hours than `LEVEL` lay in the interval, it is widened until
    so many would have: a split conformal interval (Lei et al. 2018) over forecasts of rolling origin (FPP3 5.10).

    Args:
        rates: [hours] of the history in requests/s, two days or more.
        hours: to look ahead.
        seed: of the paths.
    """
    trials = _tried(rates, hours, seed)
    model = fit(rates)
    logs = model.paths(hours, seed)
    middle = np.median(logs, axis=0)
    paths = model.rates(middle + trials.widened * (logs - middle))
    low, mid, high = np.quantile(paths, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2), axis=0)
    return Ahead(mid, low, high, paths, model, trials)


def _tried(rates: Floats, hours: int, seed: int) -> Trials:
    count = len(rates)
    length = min(hours, count // 3)
    least = 2 * WEEK_H if count >= 3 * WEEK_H else count // 2
    origins = range(count - length, least - 1, -max(DAY_H, length // 2))[:FOLDS]
    scores: list[Floats] = []
    errors, naive, total = 0.0, 0.0, 0.0
    for origin in origins:
        past, came = rates[:origin], rates[origin : origin + length]
        if not past.any():
            continue  # Nothing was asked yet.
        model = fit(past)
        logs = model.paths(length, seed)
        low, middle, high = np.quantile(logs, ((1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2), axis=0)
        off = np.log(np.maximum(came + model.added, TINY)) - middle
        widths = np.where(off > 0, high - middle, middle - low)
        scores.append(np.abs(off) / np.maximum(widths, TINY))
        errors += float(np.abs(model.rates(middle) - came).sum())
        naive += float(np.abs(_as_before(past, length) - came).sum())
        total += float(came.sum())
    if not scores or not total:
        return Trials(0, 0, 0.0, 0.0, 0.0, 1.0)
    found: Any = np.concatenate(scores)
    widened = max(1.0, float(np.quantile(found, LEVEL)))
    return Trials(len(scores), length, float((found <= 1).mean()), errors / total, naive / total, widened)


TINY = 1e-6
"""In place of a rate of 0, whose logarithm is none, and of an interval without a width."""


def _as_before(past: Floats, hours: int) -> Floats:
    season = past[-WEEK_H:] if len(past) >= WEEK_H else past[-DAY_H:]
    return np.resize(season, hours)
