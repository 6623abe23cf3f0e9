"""The cases of Kubernetes' own horizontal controller (horizontal.json says which, and what is left out)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hone.k8s.autoscaler.hpa import behavior
from hone.k8s.autoscaler.hpa.behavior import Moment, Past, limit, normalize, stabilize, without_behavior
from hone.k8s.autoscaler.hpa.calculator import Pods, Sample
from hone.k8s.autoscaler.hpa.controller import Controller, Seen
from hone.k8s.autoscaler.hpa.flags import Flags
from hone.k8s.autoscaler.hpa.quantities import to_milli
from hone.k8s.autoscaler.hpa.spec import DEFAULT_DOWN, DEFAULT_UP, Autoscaler, Metric, Policy, Rules

Case = dict[str, Any]
TABLES: Case = json.loads((Path(__file__).parent / "horizontal.json").read_text())
LONG_AGO = -6e10
OLD = Flags(initialization_s=120, readiness_s=10, release=(1, 20))
NEWEST = Flags(initialization_s=120, readiness_s=10)
both = pytest.mark.parametrize("flags", [OLD, NEWEST], ids=["1.20", "newest"])


@pytest.fixture
def _far_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables were made with replicas that may grow eightfold, so that other limits are seen."""
    monkeypatch.setattr(behavior, "FACTOR", 8.0)


def rules(numbers: list[int] | None, default: Rules) -> Rules:
    if numbers is None:
        return default
    pods, pods_s, percent, percent_s, window = numbers
    found = [Policy("Pods", pods, pods_s)] if pods else []
    found += [Policy("Percent", percent, percent_s)] if percent else []
    return Rules(window, "Max", tuple(found) or default.policies)


def spread(numbers: list[int], seconds: int) -> list[Moment]:
    """Return changes in the middle of equal parts of a time before now."""
    part = seconds / len(numbers)
    return [Moment(number, -int(seconds - part * (at + 1) + part / 2)) for at, number in enumerate(numbers)]


def metric_of(entry: Case, at: int) -> Metric:
    name = "cpu" if entry["type"] in ("Resource", "ContainerResource") else f"qps-{at}"
    kind = "External" if entry["type"] == "unknown" else entry["type"]
    if "percent" in entry:
        return Metric(kind, name, entry["percent"], "Utilization")
    form = "AverageValue" if "average" in entry else "Value"
    target = to_milli(entry.get("average", entry.get("value", 1)), "target")
    return Metric(kind, name, target, form)  # type: ignore[arg-type]


def pods_of(case: Case, kind: str) -> list[Pods]:
    requests = [to_milli(text, "request") for text in case.get("requests", ["1.0"] * case["there"])]
    halves = 1 if kind == "ContainerResource" else 2

    def level(at: int) -> int:
        return case["levels"][at] if kind == "Pods" else case["levels"][at] // 2 * halves

    pods = []
    for at, request in enumerate(requests):
        began = case["started"][at] if "started" in case else LONG_AGO
        pods.append(
            Pods(
                phase=case["phase"][at] if "phase" in case else "Running",
                ready=case["ready"][at] if "ready" in case else True, changed=began, started=began,
                deleted=case["deleted"][at] if "deleted" in case else False, request=request // 2 * halves,
                sample=Sample(level(at), 0, 60) if at < len(case["levels"]) else None,
            )
        )  # fmt: skip
    return pods


def seen_by(case: Case, metrics: tuple[Metric, ...]) -> Seen:
    seen: dict[Metric, Any] = {}
    for metric, entry in zip(metrics, case["metrics"], strict=True):
        if entry["type"] == "unknown" or entry.get("fails"):
            seen[metric] = None
        elif entry["type"] == "Object":
            seen[metric] = case["levels"][0]
        elif entry["type"] == "External":
            seen[metric] = sum(case["levels"])
        else:
            seen[metric] = pods_of(case, entry["type"]) or None
    return seen


LATER = {"TestScaleDownOneMetricInvalid", "TestScaleDownOneMetricEmpty"}
"""In later releases one metric that says nothing keeps the others from scaling down."""


@both
@pytest.mark.usefixtures("_far_limit")
@pytest.mark.parametrize("case", TABLES["cases"], ids=lambda case: case["case"])
def test_case_of_the_controller(case: Case, flags: Flags) -> None:
    metrics = tuple(metric_of(entry, at) for at, entry in enumerate(case["metrics"]))
    shaped = "up" in case or "down" in case
    autoscaler = Autoscaler(
        case["min"], case["max"], metrics,
        up=rules(case.get("up"), DEFAULT_UP) if shaped else None,
        down=rules(case.get("down"), DEFAULT_DOWN) if shaped else None,
    )  # fmt: skip
    controller = Controller(autoscaler, flags)
    if case.get("recommendations") is not None:
        # An empty list is one that was started: the number of replicas at first isn't remembered.
        past = [Moment(number, -ago["ago"]) for number, ago in case["recommendations"]] or [Moment(0, LONG_AGO)]
        controller.past.recommendations.extend(past)
    ready = sum(each.phase == "Running" and bool(each.ready) for each in pods_of(case, "Resource"))
    found = controller.turn(0, case["replicas"], case["there"], ready, seen_by(case, metrics))
    later = case["case"] in LATER and not flags.old
    assert found.replicas == (case["replicas"] if later else case["expected"])


@pytest.mark.usefixtures("_far_limit")
@pytest.mark.parametrize("case", TABLES["bounds"], ids=lambda case: case["case"])
def test_case_of_the_bounds_without_behavior(case: Case) -> None:
    found = without_behavior(case["current"], case["wanted"], case["min"], case["max"])
    assert (found.replicas, found.limited_by) == (case["expected"], case["limited_by"])


@both
@pytest.mark.parametrize("case", TABLES["policies"], ids=lambda case: case["case"])
def test_case_of_the_policies(case: Case, flags: Flags) -> None:
    past = Past()
    past.added.extend(spread(*case["added"]) if "added" in case else [])
    past.removed.extend(spread(*case["removed"]) if "removed" in case else [])
    up, down = rules(case.get("up"), DEFAULT_UP), rules(case.get("down"), DEFAULT_DOWN)
    found = limit(up, down, past, case["current"], case["wanted"], case["min"], case["max"], 0, flags)
    assert (found.replicas, found.limited_by) == (case["expected"], case["limited_by"])


@pytest.mark.parametrize("case", TABLES["highest"], ids=lambda case: case["case"])
def test_case_of_the_downscale_stabilization(case: Case) -> None:
    past = remembered(case)
    found = normalize(Autoscaler(0, 1000, ()), Flags(), past, 5, case["proposed"], 0, 0)
    assert found.replicas == case["expected"]


@both
@pytest.mark.parametrize("case", TABLES["windows"], ids=lambda case: case["case"])
def test_case_of_the_stabilization_windows(case: Case, flags: Flags) -> None:
    past = remembered(case)
    found = stabilize(past, case["current"], case["proposed"], case["up_s"], case["down_s"], 0, flags)
    assert found == case["expected"]
    assert past.recommendations[-1].number == case["proposed"]


def remembered(case: Case) -> Past:
    past = Past()
    # The controller writes into places that are free, so its list has no order; ours has.
    past.recommendations.extend(sorted((Moment(n, -ago) for n, ago in case["recommendations"]), key=lambda m: m.at))
    return past


@pytest.mark.parametrize("case", TABLES["events"], ids=lambda case: case["case"])
def test_case_of_the_changes_that_are_remembered(case: Case) -> None:
    """What a period of a minute has seen decides how much more may be added, and old changes are forgotten."""
    shaped = rules(case["rules"], DEFAULT_UP) if case["rules"] else None
    past = Past()
    past.added.extend(sorted((Moment(number, -ago) for number, ago in case["past"]), key=lambda moment: moment.at))
    minute = Rules(0, "Max", (Policy("Pods", 100, 60),))
    assert behavior.up_limit(minute, past, 1000, 0, OLD) == 1100 - case["within_60_s"]
    before = len(past.added)
    behavior.remember_change(Autoscaler(0, 100, (), shaped, shaped), past, 10, 10 + case["change"], 0)
    if shaped is None:
        assert len(past.added) == before
        return
    longest = max(policy.period_s for policy in shaped.policies)
    assert past.added[-1].number == case["change"]
    assert all(moment.at >= -longest for moment in past.added)
    assert len(past.added) == 1 + sum(ago <= longest for _, ago in case["past"])


def test_policies_that_select_the_least_change() -> None:
    policies = (Policy("Pods", 2, 60), Policy("Percent", 50, 60))
    rules_of_least = Rules(300, "Min", policies)
    assert behavior.up_limit(rules_of_least, Past(), 1, 0, NEWEST) == 2
    assert behavior.down_limit(rules_of_least, Past(), 5, 0, NEWEST) == 3


def test_disabled_direction_stays() -> None:
    none = Rules(0, "Disabled", (Policy("Pods", 5, 15),))
    assert limit(none, none, Past(), 5, 9, 1, 10, 0, NEWEST).replicas == 5
    assert limit(none, none, Past(), 5, 1, 1, 10, 0, NEWEST).replicas == 5
