"""How many replicas one metric asks for: the arithmetic of the controller's replica calculator.

Pods that are alike are one `Pods` with a count, so that a thousand pods cost as much as one. Values are in thousandths,
as in the controller, and are divided as there: what it rounds down is rounded down here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from .flags import Flags

MOST = 2**31 - 1
Entry = tuple[int, int, int]
Ratio = Callable[[list[Entry]], float]


class NoMetricError(Exception):
    """A metric says nothing at this time; the others decide, or nothing changes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a metric says of one pod: a value in thousandths, when it was taken, and over how many seconds before."""

    value: int
    at: float = 0.0
    window_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Pods:
    """Pods that are alike.

    Attributes:
        count: of them.
        ready: their condition; None where there is none yet.
        changed: when that condition changed last, in seconds.
        started: when they were started, in seconds; None where they weren't.
        request: of each pod, in thousandths of the resource.
        sample: what the metric says of each; None where it says nothing.
    """

    count: int = 1
    phase: Literal["Pending", "Running", "Succeeded", "Failed"] = "Running"
    ready: bool | None = True
    changed: float = 0.0
    started: float | None = 0.0
    deleted: bool = False
    request: int = 0
    sample: Sample | None = None


@dataclass(frozen=True)
class Tolerances:
    """Shares of the target by which a metric may differ before anything is done."""

    down: float
    up: float

    def hold(self, ratio: float) -> bool:
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True)
class Proposal:
    """What a metric asks for, and what it was: percent of the request, or a mean in thousandths."""

    replicas: int
    value: int


@dataclass(frozen=True)
class Grouped:
    """Pods by what the controller makes of them; those that go or have failed are in no group.

    Attributes:
        counted: number of pods whose sample counts.
        measured: (count, sample's value, request) of these.
        unready: (count, 0, request) of pods whose sample doesn't count, or who wait to be placed.
        missing: (count, 0, request) of pods without a sample.
    """

    counted: int
    measured: list[Entry]
    unready: list[Entry]
    missing: list[Entry]


def group(pods: Sequence[Pods], cpu: bool, now: float, flags: Flags) -> Grouped:
    """Sort pods as the controller does.

    Args:
        pods: all of the Deployment's.
        cpu: whether the metric is the processor, whose first minutes don't count.
        now: in seconds.
        flags: the controller's.
    """
    found = Grouped(0, [], [], [])
    counted = 0
    for each in pods:
        if each.deleted or each.phase == "Failed" or not each.count:
            continue
        if each.phase == "Pending":
            found.unready.append((each.count, 0, each.request))
        elif each.sample is None:
            found.missing.append((each.count, 0, each.request))
        elif cpu and _too_early(each, each.sample, now, flags):
            found.unready.append((each.count, 0, each.request))
        else:
            counted += each.count
            found.measured.append((each.count, each.sample.value, each.request))
    return Grouped(counted, found.measured, found.unready, found.missing)


def _too_early(pods: Pods, sample: Sample, now: float, flags: Flags) -> bool:
    if pods.ready is None or pods.started is None:
        return True
    if pods.started + flags.initialization_s > now:
        return not pods.ready or sample.at < pods.changed + sample.window_s
    return not pods.ready and pods.started + flags.readiness_s > pods.changed


def of_request(
    current: int, target: int, pods: Sequence[Pods], tolerances: Tolerances, *, cpu: bool, now: float, flags: Flags
) -> Proposal:
    """Return what a Resource metric with a utilization target asks for.

    Args:
        current: replicas that are wanted now.
        target: percent of the request.
        pods: with samples and requests.
        tolerances: of both directions.
        cpu: whether the resource is the processor.
        now: in seconds.
        flags: the controller's.

    Raises:
        NoMetricError: no sample counts.
    """

    def used(entries: list[Entry]) -> tuple[float, int]:
        total = sum(count * value for count, value, _ in entries)
        requests = sum(count * request for count, _, request in entries)
        if not requests:
            raise NoMetricError("no metrics of known pods")
        percent = total * 100 // requests
        return percent / target, percent

    def when_missing(request: int) -> int:
        return request if flags.old else request * max(100, target) // 100

    found = group(pods, cpu, now, flags)
    if not found.measured:
        raise NoMetricError("no metrics of ready pods")
    ratio, percent = used(found.measured)
    if found.missing and ratio < 1.0:
        filled = [(count, when_missing(request), request) for count, _, request in found.missing]
    else:
        filled = found.missing if ratio > 1.0 else []
    replicas = _rebalanced(current, found, ratio, filled, tolerances, lambda entries: used(entries)[0], keeps_way=True)
    return Proposal(replicas, percent)


def of_value(
    current: int, target: int, pods: Sequence[Pods], tolerances: Tolerances, *, cpu: bool, now: float, flags: Flags
) -> Proposal:
    """Return what a metric of each pod asks for that is held against a value.

    Args:
        current: replicas that are wanted now.
        target: for each pod, in thousandths.
        pods: with samples.
        tolerances: of both directions.
        cpu: whether it is the processor.
        now: in seconds.
        flags: the controller's.

    Raises:
        NoMetricError: no sample counts.
    """

    def mean(entries: list[Entry]) -> int:
        return sum(count * value for count, value, _ in entries) // sum(count for count, _, _ in entries)

    found = group(pods, cpu, now, flags)
    if not found.measured:
        raise NoMetricError("no metrics of ready pods")
    value = mean(found.measured)
    ratio = value / target
    if found.missing and ratio < 1.0:
        filled = [(count, target, request) for count, _, request in found.missing]
    else:
        filled = found.missing if ratio > 1.0 or flags.old else []
    replicas = _rebalanced(
        current, found, ratio, filled, tolerances, lambda entries: mean(entries) / target, keeps_way=not flags.old
    )
    return Proposal(replicas, value)


def _rebalanced(
    current: int, found: Grouped, ratio: float, filled: list[Entry], tolerances: Tolerances,
    ratio_of: Ratio, *, keeps_way: bool,
) -> int:  # fmt: skip
    """Return the replicas for a ratio, after unready and missing pods were counted against the change."""
    upward = bool(found.unready) and ratio > 1.0
    if not upward and not found.missing:
        return current if tolerances.hold(ratio) else _ceil(ratio * found.counted)
    entries = found.measured + filled + (found.unready if upward else [])
    again = ratio_of(entries)
    if tolerances.hold(again) or (ratio < 1.0 < again) or (ratio > 1.0 > again):
        return current
    replicas = _ceil(again * sum(count for count, _, _ in entries))
    if keeps_way and ((again < 1.0 and replicas > current) or (again > 1.0 and replicas < current)):
        return current
    return replicas


def of_total(current: int, target: int, total: int, ready: int, tolerances: Tolerances) -> Proposal:
    """Return what an Object or External metric asks for that is held against a value.

    Args:
        current: replicas that are wanted now.
        target: in thousandths.
        total: what the metric says, in thousandths.
        ready: number of pods that are running and ready.
        tolerances: of both directions.
    """
    ratio = total / target
    if current == 0:
        return Proposal(_ceil(ratio), total)
    return Proposal(current if tolerances.hold(ratio) else _ceil(ratio * ready), total)


def of_average(there: int, target: int, total: int, tolerances: Tolerances) -> Proposal:
    """Return what an Object or External metric asks for that is held against a value for each pod.

    Args:
        there: pods that the Deployment has, as its status says.
        target: for each pod, in thousandths.
        total: what the metric says, in thousandths.
        tolerances: of both directions.
    """
    within = there > 0 and tolerances.hold(total / (target * there))
    return Proposal(there if within else _ceil(total / target), -(-total // there) if there else total)


def _ceil(value: float) -> int:
    return min(MOST, math.ceil(value))
