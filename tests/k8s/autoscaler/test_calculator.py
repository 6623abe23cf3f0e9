"""The cases of Kubernetes' own replica calculator (replica_calculator.json says which, and what is left out)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hone.k8s.autoscaler.hpa.calculator import (
    NoMetricError,
    Pods,
    Proposal,
    Sample,
    Tolerances,
    group,
    of_average,
    of_request,
    of_total,
    of_value,
)
from hone.k8s.autoscaler.hpa.flags import Flags
from hone.k8s.autoscaler.hpa.quantities import to_milli

Case = dict[str, Any]
CASES: Case = json.loads((Path(__file__).parent / "replica_calculator.json").read_text())
NEVER = -6e10
"""Go's zero time, in seconds from now."""

FLAGS = Flags(initialization_s=120, readiness_s=10, release=(1, 20))
NEWEST = Flags(initialization_s=120, readiness_s=10)


def pods_of(case: Case) -> list[Pods]:
    """Return the pods as the table's test builds them: ready, running and started long ago unless it says otherwise."""
    resource, count = case.get("resource"), max(case["current"], len(case.get("phase", [])))
    levels = resource["levels"] if resource else [[level] for level in case["metric"]["levels"]]
    if resource and "names" in resource:
        levels = []  # of pods that aren't there
    container = int(case["container"][-1]) - 1 if "container" in case else None

    def of(name: str, at: int, default: Any) -> Any:
        values = case.get(name, [])
        return values[at] if at < len(values) else default

    def request(at: int) -> int:
        requests = resource["requests"] if resource else []
        containers = 2 if container is None else 1
        return containers * to_milli(requests[at], "request") if at < len(requests) else 0

    def sample(at: int) -> Sample | None:
        if at >= len(levels):
            return None
        return Sample(sum(levels[at]) if container is None else levels[at][container], NEVER, 60)

    return [
        Pods(
            phase=of("phase", at, "Running"), ready=of("ready", at, True), changed=NEVER,
            started=of("started", at, NEVER), deleted=of("deleted", at, False), request=request(at), sample=sample(at),
        )
        for at in range(count)
    ]  # fmt: skip


def proposal(case: Case, flags: Flags) -> Proposal:
    pods, current = pods_of(case), case["current"]
    tolerances = Tolerances(*case.get("tolerances", [0.1, 0.1]))
    if "resource" in case:
        target = case["resource"]["target"]
        return of_request(current, target, pods, tolerances, cpu=True, now=0, flags=flags)
    metric = case["metric"]
    ready = sum(bool(each.ready) for each in pods)
    total = sum(metric["levels"])
    if metric["type"] == "podMetric":
        return of_value(current, metric["target"], pods, tolerances, cpu=False, now=0, flags=flags)
    if metric["type"].endswith("PerPodMetric"):
        return of_average(current, metric["target"], total, tolerances)
    return of_total(current, metric["target"], total, ready, tolerances)


@pytest.mark.parametrize("flags", [FLAGS, NEWEST], ids=["1.20", "newest"])
@pytest.mark.parametrize("case", CASES["cases"], ids=lambda case: case["case"])
def test_case_of_the_replica_calculator(case: Case, flags: Flags) -> None:
    check(case, flags)


@pytest.mark.parametrize("case", CASES["later"], ids=lambda case: case["case"])
def test_case_of_a_later_replica_calculator(case: Case) -> None:
    """Tolerances for each direction, targets above 100 %, more pods than wanted, very large values."""
    check(case, NEWEST)


def check(case: Case, flags: Flags) -> None:
    if "error" in case:
        with pytest.raises(NoMetricError):
            proposal(case, flags)
        return
    found = proposal(case, flags)
    assert found.replicas == case["expected"]
    wanted = case["resource"].get("percent", 0) if "resource" in case else case["metric"]["value"]
    assert found.value == wanted


def test_minimal_change_beyond_the_tolerance_scales_and_a_smaller_one_does_not() -> None:
    """The calculated case of the table: ten pods that use half of their requests, which differ a little."""
    spread = (100, -100, 10, -10, 2, -2, 1, -1, 0, 0)
    pods = [Pods(started=NEVER, changed=NEVER, request=2 * (300 + by), sample=Sample(300, 0, 60)) for by in spread]
    for room, scaled in ((0.01, True), (0.004, False)):
        target = 1 / (2 * 0.9) + room
        expected = math.ceil(1500 / (3000 * target) * 10) if scaled else 10
        found = of_request(10, int(target * 100), pods, Tolerances(0.1, 0.1), cpu=True, now=0, flags=FLAGS)
        assert (found.replicas, found.value) == (expected, 50)


@pytest.mark.parametrize("case", CASES["groups"], ids=lambda case: case["case"])
def test_pods_are_grouped_as_the_controller_groups_them(case: Case) -> None:
    """Requests are the pods' numbers here, so that groups can be told apart."""
    pods, names = [], {}
    for number, each in enumerate(case["pods"], 1):
        sample = each.get("sample")
        names[number] = each["name"]
        pods.append(
            Pods(
                phase=each["phase"], ready=each.get("ready"), changed=each.get("changed", NEVER),
                started=each.get("started"), deleted=each.get("deleted", False), request=number,
                sample=sample and Sample(sample[0], NEVER if sample[1] is None else sample[1], sample[2]),
            )
        )  # fmt: skip
    found = group(pods, case["resource"] == "cpu", 0, FLAGS)
    assert found.counted == case["counted"]
    assert [names[request] for _, _, request in found.unready] == case["unready"]
    assert [names[request] for _, _, request in found.missing] == case["missing"]
    grouped = found.counted + len(found.unready) + len(found.missing)
    assert len(pods) - grouped == len(case["ignored"])


def test_pods_that_are_alike_count_as_often_as_they_are_there() -> None:
    alike = [Pods(count=700, request=2000, sample=Sample(1500)), Pods(count=300, request=2000, sample=Sample(700))]
    single = [Pods(request=each.request, sample=each.sample) for each in alike for _ in range(each.count)]
    for pods in (alike, single):
        found = of_request(1000, 50, pods, Tolerances(0.1, 0.1), cpu=True, now=1000, flags=Flags())
        assert found == Proposal(1260, 63)
