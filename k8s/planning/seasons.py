"""A model of an hourly request rate with the seasons of a day and a week, and paths that it may take from there on.

Dynamic harmonic regression (Hyndman & Athanasopoulos, Forecasting: Principles and Practice, 3rd ed., 12.1): the
logarithm of the rate is a constant, a linear trend, Fourier terms of a day and of a week, and what the last hours add
(an autoregression). How many terms, and whether there is a trend, is what the Bayesian information criterion prefers.
"""

from __future__ import annotations

import itertools
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hone.errors import UnavailableError

Floats = np.ndarray[Any, np.dtype[np.float64]]

DAY_H, WEEK_H = 24, 168
DAILY, WEEKLY = (3, 6, 10), (3, 6, 20)
"""Pairs of Fourier terms to choose from; 20 of a week let each weekday have a shape of its own."""

LAGS = 3
"""Hours that an hour depends on."""

PATHS = 400
TREND_H = 3 * WEEK_H
"""Hours from which on a trend can be told from a week that was unlike the other."""

LEAST_SHARE = 0.02
"""Of the mean rate, that is added before the logarithm where the rate comes near 0."""

STEADIEST = 0.995
"""Most of a shock that may be left an hour later: the rate would never come back from where it is otherwise."""


@dataclass(frozen=True)
class Form:
    """The terms of a model.

    Attributes:
        trend: whether there is a linear one, of the logarithm.
        daily, weekly: pairs of Fourier terms; weekly 0: a week was not seen twice.
    """

    trend: bool
    daily: int
    weekly: int

    @property
    def words(self) -> str:
        week = f", {self.weekly} of a week" if self.weekly else ""
        trend = "with a trend" if self.trend else "without a trend"
        return f"{self.daily} pairs of Fourier terms of a day{week}, {trend}, autoregression over {LAGS} h"

    def terms(self, first: int, last: int) -> Floats:
        """Return the terms of some hours, counted from the begin of the history: [hours, terms]."""
        hours = np.arange(first, last, dtype=np.float64)
        # A multiple of seven to the week is one of the day.
        cycles = [number / DAY_H for number in range(1, self.daily + 1)]
        cycles += [number / WEEK_H for number in range(1, self.weekly + 1) if number % (WEEK_H // DAY_H)]
        waves = 2 * np.pi * np.outer(hours, cycles)
        straight = [np.ones(len(hours)), *([hours / WEEK_H] if self.trend else [])]
        return np.column_stack((*straight, np.sin(waves), np.cos(waves)))


@dataclass(frozen=True)
class Model:
    """A fitted model.

    Attributes:
        form: its terms.
        result: of statsmodels.
        logs: [hours] the history that it was fitted to.
        added: to a rate before its logarithm.
    """

    form: Form
    result: Any
    logs: Floats
    added: float

    def rates(self, logs: Floats) -> Floats:
        """Return the rates of logarithms."""
        most = self.logs.max() + np.log(MOST_GROWTH)
        return np.maximum(np.exp(np.minimum(logs, most)) - self.added, 0.0)

    def paths(self, hours: int, seed: int = 0) -> Floats:
        """Return what may come, [PATHS, hours], as logarithms.

        Each path has coefficients of its own, drawn from the distribution of their estimates, and the model's own
        errors in random order (bootstrap, FPP3 5.5): neither is taken to be known, or normal.
        """
        random = np.random.default_rng(seed)
        terms = self.form.terms(len(self.logs), len(self.logs) + hours)
        covariance = np.asarray(self.result.cov_params())
        drawn = random.multivariate_normal(np.asarray(self.result.params), covariance, PATHS, check_valid="ignore")
        lags = drawn.shape[1] - terms.shape[1]
        # A draw that would run away is the estimate instead, with all of its terms: they belong together.
        drawn[_reach(drawn[:, :lags]) > STEADIEST] = np.asarray(self.result.params)
        level, carried = drawn[:, lags:] @ terms.T, drawn[:, :lags]
        errors = np.asarray(self.result.resid)
        # Fitted errors are smaller than true ones, by the degrees of freedom that the terms took.
        errors = errors * np.sqrt(len(errors) / max(1, len(errors) - drawn.shape[1]))
        shocks = random.choice(errors, (PATHS, hours))
        past = np.tile(self.logs[::-1][:lags], (PATHS, 1))
        logs = np.empty((PATHS, hours))
        for hour in range(hours):
            logs[:, hour] = level[:, hour] + (carried * past).sum(axis=1) + shocks[:, hour]
            past = np.column_stack((logs[:, hour], past))[:, :lags]
        return logs


MOST_GROWTH = 1000.0
"""Times the highest rate of the history: no path goes further, so that none is infinite."""


def _reach(carried: Floats) -> Floats:
    """Return of autoregressions, [any, lags], what share of a shock is left an hour later in the long run."""
    count, lags = carried.shape
    if not lags:
        return np.zeros(count)
    companion = np.zeros((count, lags, lags))
    companion[:, 0, :] = carried
    companion[:, np.arange(1, lags), np.arange(lags - 1)] = 1.0
    found: Floats = np.abs(np.linalg.eigvals(companion)).max(axis=1)
    return found


def fit(rates: Floats) -> Model:
    """Return the model of a history that the criterion prefers.

    Args:
        rates: [hours] in requests/s, 0 or more, two days or more.
    """
    added = 0.0 if rates.min() > LEAST_SHARE * rates.mean() else LEAST_SHARE * rates.mean()
    logs = np.log(rates + added)
    weekly = WEEKLY if len(rates) >= 2 * WEEK_H else (0,)
    forms = [Form(False, daily, week) for daily, week in itertools.product(DAILY, weekly)]
    # Enough hours are left for the terms to be told from chance.
    forms = [form for form in forms if 2 * (form.daily + form.weekly) < len(rates) / 4] or forms[:1]
    best = min(forms, key=lambda form: _criterion(form, logs))
    if len(rates) >= TREND_H:
        best = min(best, replace(best, trend=True), key=lambda form: _criterion(form, logs))
    return _fitted(best, logs, added)


def _criterion(form: Form, logs: Floats) -> float:
    """Return the Bayesian information criterion of a form, up to a constant.

    By the normal equations, which are solved in no time: statsmodels takes three singular value decompositions a fit.
    """
    lags = np.column_stack([logs[LAGS - lag : -lag] for lag in range(1, LAGS + 1)])
    known, wanted = np.column_stack((lags, form.terms(LAGS, len(logs)))), logs[LAGS:]
    found = np.linalg.lstsq(known.T @ known, known.T @ wanted, rcond=None)[0]
    errors = float(((wanted - known @ found) ** 2).mean())
    return float(len(wanted) * np.log(max(errors, LEAST_ERROR)) + known.shape[1] * np.log(len(wanted)))


LEAST_ERROR = 1e-12
"""Mean square of the errors of a form that explains all of a history; the fewest terms do it then."""


def _fitted(form: Form, logs: Floats, added: float) -> Model:
    try:
        from statsmodels.tsa.ar_model import AutoReg
    except ImportError:
        raise UnavailableError("a forecast needs statsmodels", "pip install 'hone[deploy]'") from None
    terms = form.terms(0, len(logs))
    with warnings.catch_warnings():
        # A load that never changes is explained by several terms alike: which of them does it is all the same.
        warnings.simplefilter("ignore")
        result = AutoReg(logs, LAGS, trend="n", exog=terms).fit()
        if _reach(np.asarray(result.params)[None, :LAGS])[0] > STEADIEST:
            # It would run away. The seasons alone, then: their errors are larger, and so is the interval.
            result = AutoReg(logs, 0, trend="n", exog=terms).fit()
        return Model(form, result, logs, added)
