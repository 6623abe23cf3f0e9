"""Figures by unit from kept answers: who counts, what a missing figure is, which stage an answer is of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hone.lifecycle.experiments.figures import tally, value_of
from hone.lifecycle.experiments.metrics import ExperimentError, check_figures, parse_guard, parse_metric
from hone.lifecycle.experiments.state import Experiment, Stage
from hone.lifecycle.feedback.joined import Joined

SINCE = 1_000_000.0


def experiment(**fields: Any) -> Experiment:
    given = {
        "name": "dense", "urls": ("http://127.0.0.1:1",), "arms": ("control", "b"), "versions": ("a", "b"),
        "weights": (50.0, 50.0), "units": 1000, "metric": parse_metric("revenue"), "sticky": "X-User",
        "stages": (Stage(since=SINCE, weights=(50.0, 50.0)),), "status": "running", **fields,
    }  # fmt: skip
    return Experiment(**given)


def answer(number: int, arm: str = "b", after: float = 60.0, **fields: Any) -> Joined:
    given = {"arm": arm, "by": "split", "unit": f"u{number}", **fields}
    version = {"control": "a"}.get(arm, "b")
    return Joined(f"r{number}", SINCE + after, "dense", given.pop("version", version), **given)


def units(answers: list[Joined], **fields: Any) -> list[tuple[int, ...]]:
    one = experiment(**fields)
    return tally(one, one.metrics, answers).units


def test_a_caller_is_one_unit_and_a_request_without_one_is_its_own() -> None:
    answers = [answer(1), answer(1, figures={"revenue": 3.0}), answer(2, "control"), answer(3, unit="")]
    assert units(answers) == [(1, 2)]
    assert units([answer(1), answer(1), answer(2, "control", unit="u1")], sticky="") == [(1, 1)], "ids are the units"
    found = tally(experiment(), (parse_metric("revenue"),), answers)
    assert found.known["revenue"] == (0, 1)
    assert found.sums["revenue"][0][1].units == 1


def test_only_what_was_dealt_counts() -> None:
    strangers = [
        answer(1, by="header"), answer(2, by="fallback"), answer(3, "other"), answer(4, version="c"),
        answer(5, after=2.0), answer(6, after=-60.0),
    ]  # fmt: skip
    assert units(strangers) == [(0, 0)]
    assert tally(experiment(), (), [answer(1), answer(2, "control", unit="u1")]).strays == 1


def test_an_answer_near_a_change_of_the_weights_is_of_no_stage() -> None:
    stages = (
        Stage(since=SINCE, weights=(50.0, 50.0)),
        Stage(since=SINCE + 100),
        Stage(since=SINCE + 110, weights=(20.0, 80.0)),
    )
    answers = [answer(number, after=after) for number, after in enumerate((50, 97, 103, 107, 112, 120))]
    assert units(answers, stages=stages) == [(0, 1), (0, 0), (0, 1)]


def test_a_missing_figure_is_left_out_or_zero() -> None:
    bought, not_yet = answer(1, figures={"revenue": 9.0}), answer(2)
    left_out, zero = parse_metric("revenue"), parse_metric("revenue", zero=("revenue",))
    assert [value_of(one, left_out) for one in (bought, not_yet)] == [9.0, None]
    assert [value_of(one, zero) for one in (bought, not_yet)] == [9.0, 0.0]
    assert value_of(answer(1, seconds=0.02), parse_metric("latency")) == pytest.approx(20)
    assert value_of(answer(1), parse_metric("latency")) is None


@pytest.mark.parametrize(
    ("outputs", "label", "right", "off"),
    [
        (np.array([[0.1, 0.7, 0.2]]), 1, 1.0, None),
        (np.array([[0.1, 0.7, 0.2], [0.9, 0.0, 0.1]]), [1, 2], 0.5, None),
        (np.array([[0.8]]), 1, 1.0, 0.2),
        (np.array([0.3]), True, 0.0, 0.7),
        (np.array(["cat"], dtype=object), "cat", 1.0, None),
        (np.array([2], np.int64), 2, 1.0, 0.0),
        (np.array([3.5]), 3.0, 0.0, 0.5),
        (np.array([[0.8]]), [1, 0], None, None),
        (np.array([[0.8]]), None, None, None),
    ],
)
def test_a_label_says_how_good_an_answer_was(
    outputs: np.ndarray, label: Any, right: float | None, off: float | None
) -> None:
    one = answer(1, outputs={"scores": outputs}, label=label)
    assert value_of(one, parse_metric("accuracy")) == right
    assert value_of(one, parse_metric("accuracy"), "scores") == right
    assert value_of(one, parse_metric("accuracy"), "other") is None
    if off is not None or label is None:
        assert value_of(one, parse_metric("absolute_error")) == (None if off is None else pytest.approx(off))


def test_metrics_and_guardrails_are_read_and_what_is_none_is_told() -> None:
    assert parse_metric("latency").better == "lower" and parse_metric("revenue").better == "higher"
    refunds = parse_metric("refunds", ("refunds",), ("refunds",))
    assert (refunds.better, refunds.zero) == ("lower", True)
    guard = parse_guard("refunds=5%", ("refunds",))
    assert (guard.allowed, guard.relative, guard.metric.better) == (0.05, True, "lower")
    with pytest.raises(ExperimentError, match="is no metric"):
        parse_metric("a=b")
    for text, said in (("errors", "is no guardrail"), ("errors=-1", "is no guardrail"), ("p99=2%", "a share of all")):
        with pytest.raises(ExperimentError, match=said):
            parse_guard(text)
    with pytest.raises(ExperimentError, match="--lower refund: no figure of this test; did you mean 'refunds'"):
        check_figures(("refund",), (refunds,), "--lower")
    with pytest.raises(ExperimentError, match="--zero latency: no figure"):
        check_figures(("latency",), (parse_metric("latency"),), "--zero")
