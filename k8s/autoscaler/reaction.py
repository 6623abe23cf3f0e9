"""How fast an autoscaler answers a step in load: each link of the chain, and all of it by simulation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .hpa.flags import TOLERANCE, Flags
from .hpa.spec import DEFAULT_UP, Autoscaler
from .pod import Pod
from .sight import Scraping
from .simulate import Run, Setting, held_on_target, simulate
from .trace import EVERY_S, Trace

FACTOR = 5
BEFORE_S, AFTER_S = 300, 2700


@dataclass(frozen=True)
class Link:
    """A part of the reaction, how long it takes, and why."""

    name: str
    value: str
    why: str


def reaction(pod: Pod, autoscaler: Autoscaler, flags: Flags, scraping: Scraping) -> tuple[Link, ...]:
    """Return the links from a change in load to pods that hold it; the last is a simulated step."""
    up = autoscaler.up or DEFAULT_UP
    policies = " or ".join(
        f"{policy.value} {'%' if policy.kind == 'Percent' else 'pods'} in {policy.period_s} s" for policy in up.policies
    )
    select = {"Max": "the larger of ", "Min": "the smaller of ", "Disabled": "none: "}[up.select]
    links = [
        Link("scrape", f"up to {scraping.every_s:g} s", "the processor's sample is the mean between two scrapes"),
    ]  # fmt: skip
    if any(metric.kind in ("Pods", "External", "Object") for metric in autoscaler.metrics):
        links.append(Link("window", f"{scraping.window_s:g} s", "the rate of row-seconds, by the adapter's rule"))
    links += [
        Link("turn", f"up to {flags.sync_s:g} s", "of the controller: --horizontal-pod-autoscaler-sync-period"),
        Link("tolerance", f"{_tolerance(up.tolerance, flags):.0%}", "of the target; within it nothing is done"),
        Link("window upward", f"{up.window_s or 0} s", "the lowest recommendation of that time counts"),
        Link("policy", (select if len(up.policies) > 1 else "") + policies, "behavior.scaleUp"),
        Link("start", f"{pod.start_s:g} s", "measured, from start to ready, without placing and pulling"),
    ]  # fmt: skip
    return (*links, _step(pod, autoscaler, flags, scraping))


def _tolerance(own: float | None, flags: Flags) -> float:
    return flags.tolerance if own is None or flags.release < TOLERANCE else own


def _step(pod: Pod, autoscaler: Autoscaler, flags: Flags, scraping: Scraping) -> Link:
    low = max(autoscaler.minimum, 1) * min(
        pod.capacity_rps, *(held_on_target(pod, metric) for metric in autoscaler.metrics)
    )
    times = (np.arange(0, BEFORE_S + AFTER_S, EVERY_S) < BEFORE_S).astype(float)
    trace = Trace(0.0, EVERY_S, low * np.where(times, 1.0, FACTOR))
    run = simulate(Setting(pod, autoscaler, flags, scraping, replicas=max(autoscaler.minimum, 1)), trace)
    name = f"{low:,.0f} to {FACTOR * low:,.0f} requests/s"
    path = " → ".join(map(str, dict.fromkeys(step.desired for step in run.steps)))
    if run.steps[-1].violating:
        held = autoscaler.maximum * pod.capacity_rps
        reason = (
            f"maxReplicas {autoscaler.maximum} hold {held:,.0f}" if held < FACTOR * low
            else f"the metrics don't ask for more: {path} pods"
        )  # fmt: skip
        return Link(name, "never holds", f"simulated; {reason}")
    return Link(name, f"{_outside_s(run):.0f} s outside the SLO", f"simulated; {path} pods")


def _outside_s(run: Run) -> float:
    return sum(length for step, length in zip(run.steps, run.lengths, strict=True) if step.violating)
