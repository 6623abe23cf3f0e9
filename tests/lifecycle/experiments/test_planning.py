"""How long a test takes, told before it begins."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.lifecycle.experiments.metrics import ExperimentError
from hone.lifecycle.experiments.planning import plan

HALVES = (50.0, 50.0)


def test_units_go_with_the_spread_over_the_squared_effect() -> None:
    one = plan(HALVES, 10.0, "1", 5.0, 0.8, None)
    assert plan(HALVES, 10.0, "0.5", 5.0, 0.8, None).units == pytest.approx(4 * one.units, rel=1e-3)
    assert plan(HALVES, 10.0, "1", 10.0, 0.8, None).units == pytest.approx(4 * one.units, rel=1e-3)
    assert plan((90.0, 10.0), 10.0, "1", 5.0, 0.8, None).units == pytest.approx(one.units / 0.36, rel=1e-2)
    assert one.once < one.units, "the price of looking always"
    assert one.half == pytest.approx(one.once, rel=0.05), "which half of all tests don't pay"
    assert plan((34.0, 33.0, 33.0), 10.0, "1", 5.0, 0.8, None).units > one.units * 1.5


def test_a_test_that_is_looked_at_once_takes_what_the_tables_say() -> None:
    """Fleiss, Statistical Methods for Rates and Proportions: 10 % to 12 %, 5 %, 80 %: 3,841 in each group."""
    assert plan(HALVES, 0.10, "0.02", None, 0.8, None).once == pytest.approx(2 * 3841, rel=0.005)


def test_plan_is_told_in_days_and_as_json() -> None:
    words = ["ab", "plan", "--baseline", "0.1", "--effect", "10%", "--rate", "5000"]
    assert "days" in CliRunner().invoke(cli, words).output
    found = json.loads(CliRunner().invoke(cli, [*words, "--json", "--variants", "2"]).output)
    assert found["effect"] == pytest.approx(0.01)
    assert found["days"] == pytest.approx(found["units"] / 5000)


@pytest.mark.parametrize(
    ("baseline", "effect", "said"),
    [(5.0, "0.1", "give the standard deviation"), (0.1, "0", "no test finds that"), (0.1, "x", "is no difference")],
)
def test_what_can_not_be_planned_is_told(baseline: float, effect: str, said: str) -> None:
    with pytest.raises(ExperimentError, match=said):
        plan(HALVES, baseline, effect, None, 0.8, None)
