"""What a report says of counts and figures: who wins, what isn't to be believed, what is missing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from hone.lifecycle.experiments import judge as judging
from hone.lifecycle.experiments.counts import Counts
from hone.lifecycle.experiments.figures import Figures, tally
from hone.lifecycle.experiments.judge import Judge
from hone.lifecycle.experiments.metrics import ExperimentError, parse_metric
from hone.lifecycle.experiments.page import to_html
from hone.lifecycle.experiments.report import Report
from hone.lifecycle.experiments.state import Experiment, Stage
from hone.services.arms.counts import Done
from tests.lifecycle.experiments.test_figures import SINCE, answer, experiment


def counted(requests: int, errors: int = 0) -> dict[str, Any]:
    done = Done(requests=requests, errors=errors)
    done.bins[10] = requests - errors
    return done.plain()


def report(one: Experiment, counts: dict[str, dict[str, Any]], answers: Iterable[Any] = ()) -> Report:
    """Return the report on an experiment of which one service says `counts`, and these answers are kept."""
    taken = Counts(one)
    taken.take({"http://127.0.0.1:1": counts})
    kept = list(answers)

    def gathered(of: Experiment, metrics: Any, _: float) -> Figures:
        return tally(of, metrics, kept)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(judging, "gather", gathered)
        return Judge(one, taken, SINCE + 3600).report()


def answers(worths: dict[str, float], **sizes: int) -> list[Any]:
    """Return answers of each arm, 300 by default, whose revenue has the mean that is asked for."""
    rng, found = np.random.default_rng(1), []
    for place, (arm, mean) in enumerate(worths.items()):
        drawn = rng.normal(0, 1, sizes.get(arm, 300))
        version = {"control": "a"}.get(arm, arm)
        for number, worth in enumerate(drawn - drawn.mean() + mean):
            one = answer(place * 10_000 + number, arm, version=version, figures={"revenue": float(worth)})
            found.append(one)
    return found


def test_several_variants_share_the_risk_and_the_best_bound_wins() -> None:
    three = experiment(
        arms=("control", "b", "c"), versions=("a", "b", "c"), weights=(40.0, 30.0, 30.0),
        stages=(Stage(since=SINCE, weights=(40.0, 30.0, 30.0)),),
    )  # fmt: skip
    found = report(three, {}, answers({"control": 10.0, "b": 12.0, "c": 10.7}, control=400, b=300, c=300))
    assert (found.outcome, found.winner) == ("winner", "b")
    assert "c is better than it, too" in found.told
    alone = report(experiment(), {}, answers({"control": 10.0, "b": 12.0}))
    widths = [row.high - row.low for one in (found, alone) for row in one.compared[0].rows if row.arm == "b"]
    assert widths[0] > widths[1], "of two variants each has half of the risk"
    assert "b wins" in to_html(found)


def test_arms_that_got_other_callers_are_not_to_be_believed() -> None:
    found = report(experiment(), {}, answers({"control": 10.0, "b": 12.0}, control=600, b=450))
    assert (found.outcome, found.winner, found.dealt.state) == ("invalid", "", "not as meant")
    assert "600 : 450 callers" in found.told
    one = experiment(sticky="", metric=parse_metric("errors"))
    counts = report(one, {"control": counted(9000), "b": counted(8000, 90)})
    assert counts.outcome == "invalid"


def test_what_is_missing_is_told_and_an_effect_that_can_not_matter_ends_it() -> None:
    found = report(experiment(), {}, answers({"control": 10.0, "b": 10.12}))
    assert found.outcome == "undecided"
    assert found.missing is not None and f"about {found.missing:,} more callers" in found.told
    assert report(experiment(effect=1.5), {}, answers({"control": 10.0, "b": 10.12})).outcome == "equal"
    assert report(experiment(), {}, answers({"control": 10.0, "b": 8.0})).outcome == "control"
    nothing = report(experiment(), {})
    assert nothing.outcome == "undecided" and nothing.compared[0].rows[1].low is None


def test_counted_metrics_decide_without_kept_answers() -> None:
    one = experiment(sticky="", metric=parse_metric("errors"), feedback="")
    found = report(one, {"control": counted(5000, 400), "b": counted(5000, 20)})
    assert (found.outcome, found.winner) == ("winner", "b")
    assert found.arms[0].requests == 5000


def test_counts_of_a_service_that_was_started_again_are_added() -> None:
    one = experiment(sticky="", metric=parse_metric("errors"))
    counts = Counts(one)
    url = "http://127.0.0.1:1"
    for first, second in ((100, 90), (120, 110), (5, 130), (9, 131)):  # the second arm alone doesn't show the restart
        counts.take({url: {"control": counted(first), "b": counted(second)}})
    assert {name: done.requests for name, done in counts.pooled.arms.items()} == {"control": 129, "b": 241}
    counts.take({"http://127.0.0.1:2": {"control": counted(1), "b": counted(2)}})
    assert counts.pooled.arms["b"].requests == 243
    with pytest.raises(ExperimentError, match="same version of Hone"):
        counts.take({url: {"control": {"requests": 1, "errors": 0}}})
