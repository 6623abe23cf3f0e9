"""Forecasts of simulated loads, whose future is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.k8s.planning.forecast import look_ahead
from hone.k8s.planning.history import History
from hone.k8s.planning.outlook import forecast
from hone.k8s.planning.seasons import Floats, fit
from tests.capacities import capacity

pytest.importorskip("statsmodels")
START = 1_700_438_400  # a Monday, 00:00 UTC
WEEK = 168


def load(kind: str, seed: int, hours: int) -> Floats:
    """Return a simulated hourly rate: seasons on a logarithm with errors that last for some hours."""
    random = np.random.default_rng(seed)
    t = np.arange(hours)
    weekend = (t // 24) % 7 >= 5
    day = 0.8 * np.sin(2 * np.pi * (t - 8) / 24) + 0.25 * np.sin(4 * np.pi * (t - 3) / 24)
    errors = np.zeros(hours)
    shocks = random.normal(0, 0.08, hours)
    for hour in range(1, hours):
        errors[hour] = 0.7 * errors[hour - 1] + shocks[hour]
    logs = 4 + day - 0.5 * weekend + errors
    if kind == "trend":
        logs += random.uniform(-1, 1) * 0.07 * t / WEEK
    if kind == "weekends unlike weekdays":
        logs -= 0.6 * day * weekend
    if kind == "a level that wanders":
        logs += np.cumsum(random.normal(0, 0.01, hours))
    rates: Floats = np.exp(logs)
    if kind == "counts":
        rates = random.poisson(np.exp(-1 + day - 0.5 * weekend) * 3600) / 3600
    if kind == "idle nights":
        rates = np.where(t % 24 < 6, 0, rates)
    return rates


KINDS = ("plain", "trend", "weekends unlike weekdays", "counts", "idle nights", "a level that wanders")


def covered(kind: str, seeds: range, weeks: float, ahead: int) -> float:
    """Return the share of held-out hours in the interval, over many series."""
    shares = []
    for seed in seeds:
        rates = load(kind, seed, int(weeks * WEEK) + ahead)
        found = look_ahead(rates[:-ahead], ahead)
        came = rates[-ahead:]
        shares.append(((found.low <= came) & (came <= found.high)).mean())
    return float(np.mean(shares))


def test_interval_holds_nine_tenths_of_what_comes() -> None:
    assert np.mean([covered(kind, range(1), 3, 72) for kind in KINDS]) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("weeks", "ahead"), [(2.5, WEEK), (5, WEEK), (8, 720)])
def test_interval_holds_nine_tenths_of_each_kind_of_load(kind: str, weeks: float, ahead: int) -> None:
    # How far a level wanders is seen only in histories that are many times as long as what is to come.
    least = 0.8 if kind == "a level that wanders" else 0.9
    assert covered(kind, range(100, 120), weeks, ahead) >= least


def test_interval_is_not_simply_wide() -> None:
    """The errors' own deviation is 0.11 of the rate: an interval of 95 % takes 1.5 times the rate from end to end."""
    found = look_ahead(load("plain", 1, 3 * WEEK), WEEK)
    assert float(np.median(found.high / found.low)) < 2


def test_a_load_without_noise_is_known() -> None:
    t = np.arange(6 * WEEK)
    rates = 300 * np.exp(0.5 * np.sin(2 * np.pi * t / 24) + 0.02 * t / WEEK) * np.where((t // 24) % 7 < 5, 1, 0.7)
    found = look_ahead(rates[:-WEEK], WEEK)
    assert np.abs(found.rates / rates[-WEEK:] - 1).max() < 0.15
    assert found.trials.error < 0.06 < found.trials.naive_error + 0.06
    assert found.model.form.trend


def test_same_history_gives_the_same_forecast() -> None:
    rates = load("plain", 3, 3 * WEEK)
    assert look_ahead(rates, 48).high.tolist() == look_ahead(rates, 48).high.tolist()


@pytest.mark.parametrize("hours", [48, 60, 100, 200])
def test_short_histories_are_forecast_without_a_week(hours: int) -> None:
    found = fit(load("plain", 5, hours))
    assert (found.form.weekly, found.form.trend) == (0, False)
    ahead = look_ahead(load("plain", 5, hours), 24)
    assert np.isfinite(ahead.high).all() and (ahead.low <= ahead.rates).all() and (ahead.rates <= ahead.high).all()


@pytest.mark.parametrize("rates", [np.full(200, 7.0), np.r_[np.zeros(199), 1.0], np.tile([0.0, 1e6], 100)])
def test_odd_histories_give_numbers(rates: Floats) -> None:
    found = look_ahead(rates, 48)
    assert np.isfinite(found.high).all() and (found.low >= 0).all()


@pytest.mark.parametrize("hours", [60, 100, 400, 600])
def test_a_load_that_repeats_exactly_does_not_run_away(hours: int) -> None:
    """Without errors the autoregression isn't determined: one that grows explains such a history as well."""
    rates = 100.0 + np.arange(hours) % 24
    found = look_ahead(rates, 48)
    assert found.high.max() < 150 and found.low.min() > 70


def history(hours: int, kind: str = "plain") -> History:
    return History(START, load(kind, 7, hours), "a test", ())


def test_peaks_have_a_time_a_bound_and_the_pods_for_it() -> None:
    measured = capacity(rate_lower_95=50)
    found, ahead = forecast(history(5 * WEEK), (1, 7), measured)
    week = found.horizons[1].peak
    at = int(np.argmax(ahead.rates))
    assert week.t.timestamp() == START + 3600 * (5 * WEEK + at)
    assert week.rate == ahead.rates[at]
    # Most paths stay below it all the time, and it is above the bound of each hour alone.
    assert float((ahead.paths.max(axis=1) <= week.upper).mean()) == pytest.approx(0.975, abs=0.01)
    assert week.upper >= ahead.high[at]
    assert week.pods == int(np.ceil(week.upper / (0.7 * 50))) + 1
    assert len(found.peaks) == 7 and len(found.points) == WEEK
    assert max(peak.rate for peak in found.peaks) == week.rate
    assert found.horizons[0].peak == found.peaks[0]


@pytest.mark.parametrize(
    ("days", "words"),
    [
        (3, "3.0 days of history: the shape of a week and a trend can't be known"),
        (16, "16.0 days of history: a trend can't be told from a week that was unlike the other"),
        (16, "30 days ahead from 16.0: growth slower than the history can't be seen in it"),
        (60, "the back-test looked 20.0 days ahead: beyond that the interval is the model's word"),
        (60, "seasons of a year, holidays and launches are not in it"),
    ],
)
def test_what_a_short_history_cannot_tell_is_said(tmp_path: Path, days: int, words: str) -> None:
    assert f"note: {words}" in ran(tmp_path, days)


def ran(folder: Path, days: int, *arguments: str) -> str:
    rates = load("plain", 7, 24 * days)
    file = folder / "load.csv"
    file.write_text("t,rate\n" + "".join(f"{START + 3600 * at},{rate}\n" for at, rate in enumerate(rates.tolist())))
    result = CliRunner().invoke(cli, ["capacity", "forecast", "--csv", str(file), *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_command_writes_table_record_and_page(tmp_path: Path) -> None:
    (tmp_path / "capacity.json").write_text(capacity().model_dump_json())
    out = tmp_path / "out" / "forecast.json"
    said = ran(tmp_path, 35, "--capacity", str(tmp_path / "capacity.json"), "--out", str(out))
    for words in ("next 7 days", "next 30 days", "day 7", "back-test: ", "as a week before", "Hyndman", "statsmodels"):
        assert words in said
    found = json.loads(out.read_text())
    assert len(found["points"]) == 720
    assert found["back_test"]["folds"] >= 2 and 0 < found["back_test"]["covered"] <= 1
    assert all(0 <= point["low"] <= point["rate"] <= point["high"] for point in found["points"])
    assert found["horizons"][0]["peak"]["pods"] >= 2
    page = out.with_suffix(".html").read_text()
    assert "<svg" in page and "Pods of digits:onnx-fp32-1" in page and said.splitlines()[-1].endswith("forecast.html")
