"""A Deployment under load and its autoscaler, turn by turn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .fleet import Fleet, Load
from .hpa.controller import Controller
from .hpa.flags import Flags
from .hpa.spec import Autoscaler, Metric
from .pod import Pod
from .sight import IN_FLIGHT, Scraping, Sight
from .trace import Trace

TICK_S = 1.0


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        pod: one of the pods.
        autoscaler: of them.
        flags: of the controller.
        scraping: of the metrics.
        replicas: at first; None for as many as hold the first rate on target.
        turns: when the controller looks, in seconds after the trace's start; None for every `flags.sync_s`.
        tick_s: of the load.
    """

    pod: Pod
    autoscaler: Autoscaler
    flags: Flags = field(default_factory=Flags)
    scraping: Scraping = field(default_factory=Scraping)
    replicas: int | None = None
    turns: Sequence[float] | None = None
    tick_s: float = TICK_S


@dataclass(frozen=True)
class Step:
    """From one turn of the controller to the next.

    Attributes:
        t: of the turn, in seconds, as the trace counts.
        rate: mean requests per second until the next turn.
        desired: replicas that are wanted from this turn on.
        ready: pods that are ready at it.
        violating: whether the pods held less than arrived, or requests had to wait, until the next turn.
    """

    t: float
    rate: float
    desired: int
    ready: int
    violating: bool


@dataclass(frozen=True)
class Run:
    """What a simulation found.

    Attributes:
        steps: one for each turn.
        lengths: of the steps, in seconds.
        shed_share: share of all requests that were refused.
        limited_minutes: minutes in which more than `maxReplicas` were asked for.
    """

    steps: tuple[Step, ...]
    lengths: tuple[float, ...]
    shed_share: float
    limited_minutes: float

    @property
    def violation_minutes(self) -> float:
        return sum(length for step, length in zip(self.steps, self.lengths, strict=True) if step.violating) / 60

    @property
    def pod_hours(self) -> float:
        return sum(step.desired * length for step, length in zip(self.steps, self.lengths, strict=True)) / 3600


def held_on_target(pod: Pod, metric: Metric) -> float:
    """Return the requests per second of one pod that put a metric on its target; infinity for a target of all pods."""
    if metric.form == "Value":
        return math.inf
    if metric.form == "Utilization":
        return metric.target / 100 * pod.cpu_request / 1000 / pod.cpu_cores * pod.capacity_rps
    if metric.name == "cpu":
        return metric.target / 1000 / pod.cpu_cores * pod.capacity_rps
    return metric.target / 1000 / (pod.latency_s * pod.rows if metric.name == IN_FLIGHT else 1.0)


def at_rest(pod: Pod, autoscaler: Autoscaler, rate: float) -> int:
    """Return the replicas that an autoscaler keeps under a rate that has lasted."""
    per_pod = min(held_on_target(pod, metric) for metric in autoscaler.metrics)
    return min(max(autoscaler.minimum, math.ceil(rate / per_pod - 1e-9), 1), autoscaler.maximum)


def simulate(setting: Setting, trace: Trace) -> Run:
    """Run a trace; its first rate is taken to have lasted before it."""
    pod, tick = setting.pod, setting.tick_s
    lead = math.ceil((setting.scraping.window_s + 3 * setting.scraping.every_s) / tick)
    rates = trace.ticks(tick)
    load = Load.of(np.concatenate((np.full(lead, rates[0]), rates)), tick)
    replicas = setting.replicas
    if replicas is None:
        replicas = at_rest(pod, setting.autoscaler, float(rates[0]))
    fleet = Fleet(pod, replicas)
    load.advance(0, lead, replicas, pod)
    load.waiting = 0.0
    sight = Sight(load, pod, setting.scraping, lead * tick)
    controller = Controller(setting.autoscaler, setting.flags)
    turns = _turns(setting, trace)
    found = []
    limited = 0.0
    for now, after in zip(turns, [*turns[1:], trace.duration_s], strict=True):
        seen = sight.seen(setting.autoscaler.metrics, fleet, now)
        decision = controller.turn(now, replicas, fleet.count, fleet.ready(now), seen)
        replicas = decision.replicas
        fleet.resize(replicas, now)
        ready = fleet.ready(now)
        limited += (decision.limited_by == "TooManyReplicas") * (after - now)
        first, last = (lead + min(round(t / tick), len(rates)) for t in (now, after))
        _work(load, fleet, pod, first, last, lead)
        span = slice(first, max(last, first + 1))
        rate = float(load.arrivals[span].mean())
        found.append(Step(trace.start + now, rate, replicas, ready, bool(load.outside[span].any())))
    lengths = tuple(b - a for a, b in zip(turns, [*turns[1:], trace.duration_s], strict=True))
    shed = float(load.shed[lead:].sum() / (load.arrivals[lead:].sum() * tick))
    return Run(tuple(found), lengths, shed, limited / 60)


def _turns(setting: Setting, trace: Trace) -> list[float]:
    if setting.turns is not None:
        return [float(t) for t in setting.turns if 0 <= t < trace.duration_s]
    count = math.ceil(trace.duration_s / setting.flags.sync_s - 1e-9)
    return [number * setting.flags.sync_s for number in range(count)]


def _work(load: Load, fleet: Fleet, pod: Pod, first: int, last: int, lead: int) -> None:
    """Let the pods work until the next turn; those that turn ready between join in."""
    while first < last:
        now = (first - lead) * load.tick_s
        joined = fleet.next_ready(now + 1e-9)
        until = last
        if joined < np.inf:
            until = min(last, max(first + 1, lead + math.ceil(joined / load.tick_s - 1e-9)))
        load.advance(first, until, fleet.ready(now + 1e-9), pod)
        first = until
