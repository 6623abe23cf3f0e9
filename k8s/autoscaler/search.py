"""Settings of an autoscaler that keep a budget of minutes outside the SLO with the fewest pod-hours."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hone.errors import HoneError

from .hpa.quantities import from_milli
from .hpa.spec import parse_autoscaler
from .pod import Pod
from .simulate import Run, Setting, held_on_target, simulate
from .trace import Trace

SHARES = tuple(round(0.95 - 0.05 * step, 2) for step in range(17))
"""Of what a pod holds, at which the target may be: from nearly all down to 0.15."""

WINDOWS_S = (60, 300, 900)
"""Of stabilization downward."""

POLICIES: dict[str, list[dict[str, Any]]] = {
    "double in 30 s": [
        {"type": "Percent", "value": 100, "periodSeconds": 30},
        {"type": "Pods", "value": 2, "periodSeconds": 30},
    ],
    "double in 15 s": [
        {"type": "Percent", "value": 100, "periodSeconds": 15},
        {"type": "Pods", "value": 4, "periodSeconds": 15},
    ],
    "tenfold in 15 s": [
        {"type": "Percent", "value": 900, "periodSeconds": 15},
        {"type": "Pods", "value": 20, "periodSeconds": 15},
    ],
}
"""Upward, from slow to fast."""

Object = dict[str, Any]


@dataclass(frozen=True)
class Found:
    """An autoscaler that keeps the budget.

    Attributes:
        item: the object.
        run: its simulation.
        share: of what a pod holds, at which its targets are.
        tried: simulations that it took.
    """

    item: Object
    run: Run
    share: float
    tried: int


@dataclass(frozen=True)
class _Choice:
    share: float
    minimum: int
    window_s: int
    policy: str


def search(
    setting: Setting, item: Object, trace: Trace, budget_minutes: float, tell: Callable[[int], None] = lambda _: None
) -> Found:
    """Search target, minimum, windows and policies.

    A target is lowered until the budget holds, for each policy and each of a few minima; then the windows of the
    cheapest are tried. `maxReplicas` and the kinds of metrics stay.

    Args:
        setting: pod, flags and scraping; its autoscaler is the one to start from.
        item: that autoscaler as an object.
        trace: the load.
        budget_minutes: outside the SLO, at most.
        tell: is told the number of simulations so far.

    Raises:
        HoneError: no setting keeps the budget.
    """
    runs: dict[_Choice, Run] = {}

    def run(choice: _Choice) -> Run:
        if choice not in runs:
            autoscaler = parse_autoscaler(_changed(item, setting.pod, choice), "the search")
            runs[choice] = simulate(replace(setting, autoscaler=autoscaler), trace)
            tell(len(runs))
        return runs[choice]

    def holds(choice: _Choice) -> bool:
        return run(choice).violation_minutes <= budget_minutes

    start = _Choice(SHARES[0], setting.autoscaler.minimum, WINDOWS_S[1], "double in 30 s")
    least = [_lowest_share(replace(start, minimum=minimum, policy=policy), holds)
             for policy in POLICIES for minimum in _minima(setting, trace)]  # fmt: skip
    kept = [choice for choice in least if choice is not None]
    if not kept:
        _refuse(setting, trace, budget_minutes, runs)
    cheapest = min(kept, key=lambda choice: run(choice).pod_hours)
    around = [_lowest_share(replace(cheapest, window_s=window), holds) for window in WINDOWS_S]
    best = min((choice for choice in (cheapest, *around) if choice), key=lambda choice: run(choice).pod_hours)
    return Found(_changed(item, setting.pod, best), run(best), best.share, len(runs))


def _lowest_share(choice: _Choice, holds: Callable[[_Choice], bool]) -> _Choice | None:
    """Return the choice with the highest target that holds, by halving; None when the lowest doesn't."""
    if not holds(replace(choice, share=SHARES[-1])):
        return None
    good, bad = len(SHARES) - 1, -1
    while good - bad > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if holds(replace(choice, share=SHARES[middle])) else (good, middle)
    return replace(choice, share=SHARES[good])


def _minima(setting: Setting, trace: Trace) -> list[int]:
    """Return the fewest replicas to try: the given ones, and what half, most and all of the time needs."""
    given, most = setting.autoscaler.minimum, setting.autoscaler.maximum
    needed: Iterable[float] = np.quantile(trace.rates, (0.5, 0.9, 1.0)) / setting.pod.capacity_rps
    return sorted({given, *(min(max(given, math.ceil(pods)), most) for pods in needed)})


def _changed(item: Object, pod: Pod, choice: _Choice) -> Object:
    changed = copy.deepcopy(item)
    spec = changed["spec"]
    spec["minReplicas"] = choice.minimum
    for entry, metric in zip(spec["metrics"], parse_autoscaler(item, "the search").metrics, strict=True):
        if metric.form == "Value":
            continue
        source = entry[metric.kind[0].lower() + metric.kind[1:]]
        value = metric.target * choice.share * pod.capacity_rps / held_on_target(pod, metric)
        if metric.form == "Utilization":
            source["target"]["averageUtilization"] = max(1, round(value))
        else:
            source["target"]["averageValue"] = from_milli(max(1, round(value)))
    behavior = spec.setdefault("behavior", {})
    up, down = behavior.setdefault("scaleUp", {}), behavior.setdefault("scaleDown", {})
    up |= {"stabilizationWindowSeconds": 0, "selectPolicy": "Max", "policies": copy.deepcopy(POLICIES[choice.policy])}
    down["stabilizationWindowSeconds"] = choice.window_s
    return changed


def _refuse(setting: Setting, trace: Trace, budget_minutes: float, runs: dict[_Choice, Run]) -> None:
    best = min(run.violation_minutes for run in runs.values())
    most, held = setting.autoscaler.maximum, setting.autoscaler.maximum * setting.pod.capacity_rps
    if held < trace.peak:
        reason = f"maxReplicas {most} hold {held:,.0f} of {trace.peak:,.0f} requests/s"
    else:
        reason = "load grows faster than pods start"
    raise HoneError(
        f"--budget: {budget_minutes:g} minutes can't be kept: {best:.1f} are outside the SLO with the best setting "
        f"tried ({reason}); raise maxReplicas (--peak) or the budget"
    )


def to_yaml(found: Found, command: str) -> str:
    """Return the autoscaler as a file for `hone k8s render --autoscaler` and for kubectl."""
    import yaml

    body: str = yaml.safe_dump(found.item, sort_keys=False)
    head = [
        f"# Found by {command}:",
        f"# {found.run.violation_minutes:.1f} minutes outside the SLO, {found.run.pod_hours:,.1f} pod-hours, "
        f"targets at {found.share:.0%} of what a pod holds.",
    ]
    return "\n".join(head) + "\n" + body
