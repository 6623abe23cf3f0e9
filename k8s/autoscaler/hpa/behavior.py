"""How fast the number of replicas may follow a proposal: windows, policies and bounds, as in the controller."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from .calculator import MOST
from .flags import Flags
from .spec import Autoscaler, Policy, Rules

FACTOR, LEAST = 2.0, 4.0
"""Without a `behavior` replicas at most double, or grow to four."""


@dataclass(frozen=True)
class Moment:
    """Something that happened: a recommendation of so many replicas, or a change by so many."""

    number: int
    at: float


@dataclass
class Past:
    """What the controller remembers of one autoscaler.

    Attributes:
        recommendations: before windows and policies.
        added: by how many pods the Deployment grew, and when.
        removed: by how many it shrank.
    """

    recommendations: deque[Moment] = field(default_factory=deque)
    added: deque[Moment] = field(default_factory=deque)
    removed: deque[Moment] = field(default_factory=deque)


@dataclass(frozen=True)
class Step:
    """The number of replicas that is set, and what limited it, in the controller's words for its condition."""

    replicas: int
    limited_by: str


def normalize(
    autoscaler: Autoscaler, flags: Flags, past: Past, current: int, proposed: int, minimum: int, now: float
) -> Step:
    """Return what becomes of a proposal; it is remembered.

    Args:
        autoscaler: its rules and the most replicas.
        flags: the controller's.
        past: of this autoscaler.
        current: replicas that are wanted now.
        proposed: by the metrics.
        minimum: the fewest replicas.
        now: in seconds.
    """
    if autoscaler.up is None or autoscaler.down is None:
        wanted = _highest(past, proposed, flags.downscale_window_s, now)
        return without_behavior(current, wanted, minimum, autoscaler.maximum)
    window = flags.downscale_window_s if autoscaler.down.window_s is None else autoscaler.down.window_s
    wanted = stabilize(past, current, proposed, autoscaler.up.window_s or 0, window, now, flags)
    return limit(autoscaler.up, autoscaler.down, past, current, wanted, minimum, autoscaler.maximum, now, flags)


def _highest(past: Past, proposed: int, window_s: float, now: float) -> int:
    recent = [moment.number for moment in past.recommendations if moment.at >= now - window_s]
    _remember(past, proposed, now, window_s)
    return max([proposed, *recent])


def stabilize(past: Past, current: int, proposed: int, up_s: float, down_s: float, now: float, flags: Flags) -> int:
    """Return a proposal held by the recommendations of the windows before: the lowest upward, the highest downward."""
    lowest = min([proposed, *_within(past.recommendations, up_s, now)])
    highest = max([proposed, *_within(past.recommendations, down_s, now)])
    _remember(past, proposed, now, max(up_s, down_s))
    if flags.old:
        return lowest if proposed >= current else highest
    return min(max(current, lowest), highest)


def _within(moments: Iterable[Moment], window_s: float, now: float) -> list[int]:
    return [moment.number for moment in moments if moment.at > now - window_s]


def _remember(past: Past, proposed: int, now: float, window_s: float) -> None:
    past.recommendations.append(Moment(proposed, now))
    while past.recommendations[0].at < now - window_s:
        past.recommendations.popleft()


def limit(
    up: Rules, down: Rules, past: Past, current: int, wanted: int, minimum: int, maximum: int, now: float, flags: Flags
) -> Step:
    """Return what policies and bounds leave of a number of replicas."""
    if wanted > current:
        most = max(current, up_limit(up, past, current, now, flags))
        allowed, why = (maximum, "TooManyReplicas") if maximum <= most else (most, "ScaleUpLimit")
        return Step(allowed, why) if wanted > allowed else Step(wanted, "DesiredWithinRange")
    if wanted < current:
        fewest = min(current, down_limit(down, past, current, now, flags))
        allowed, why = (minimum, "TooFewReplicas") if minimum >= fewest else (fewest, "ScaleDownLimit")
        return Step(allowed, why) if wanted < allowed else Step(wanted, "DesiredWithinRange")
    return Step(wanted, "DesiredWithinRange")


def up_limit(rules: Rules, past: Past, current: int, now: float, flags: Flags) -> int:
    """Return the most replicas that policies allow."""
    if rules.select == "Disabled":
        return current

    def allowed(policy: Policy) -> int:
        start = current - sum(_within(past.added, policy.period_s, now))
        start += 0 if flags.old else sum(_within(past.removed, policy.period_s, now))
        # Rounded up: a share of few pods must let them grow at all.
        return start + policy.value if policy.kind == "Pods" else math.ceil(start * (1 + policy.value / 100))

    return min(MOST, (min if rules.select == "Min" else max)(allowed(policy) for policy in rules.policies))


def down_limit(rules: Rules, past: Past, current: int, now: float, flags: Flags) -> int:
    """Return the fewest replicas that policies allow."""
    if rules.select == "Disabled":
        return current

    def allowed(policy: Policy) -> int:
        start = current + sum(_within(past.removed, policy.period_s, now))
        start -= 0 if flags.old else sum(_within(past.added, policy.period_s, now))
        return start - policy.value if policy.kind == "Pods" else int(start * (1 - policy.value / 100))

    return (max if rules.select == "Min" else min)(allowed(policy) for policy in rules.policies)


def without_behavior(current: int, wanted: int, minimum: int, maximum: int) -> Step:
    """Return what is left of a number of replicas for an autoscaler without a `behavior`."""
    growth = int(max(FACTOR * current, LEAST))
    allowed, why = (growth, "ScaleUpLimit") if maximum > growth else (maximum, "TooManyReplicas")
    if wanted < minimum:
        return Step(minimum, "TooFewReplicas")
    return Step(allowed, why) if wanted > allowed else Step(wanted, "DesiredWithinRange")


def remember_change(autoscaler: Autoscaler, past: Past, before: int, after: int, now: float) -> None:
    """Remember that the number of replicas was changed; what no policy looks at any more is forgotten."""
    if autoscaler.up is None or autoscaler.down is None:
        return
    (past.added if after > before else past.removed).append(Moment(abs(after - before), now))
    longest = max(policy.period_s for rules in (autoscaler.up, autoscaler.down) for policy in rules.policies)
    for moments in (past.added, past.removed):
        while moments and moments[0].at < now - longest:
            moments.popleft()
