"""Pods that are there before a peak: hours of the week, from a forecast, as triggers of KEDA's cron scaler."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hone.capacity import Capacity
from hone.errors import HoneError

from ..numbers import Object, pods_for
from .outlook import Forecast, read_forecast

LEAD_MINUTES = 10
"""Before an hour, at which its pods are asked for: a node may have to come, and an image to be pulled."""

WEEK = range(7)
"""As cron counts: Sunday is 0."""


@dataclass(frozen=True)
class Window:
    """Hours of some days in which so many pods are there at least.

    Attributes:
        start, end: hours of the day, UTC; the end is not in it, 24 at most.
        days: of the week, Sunday is 0.
        pods: for the forecast's upper bound.
    """

    start: int
    end: int
    days: tuple[int, ...]
    pods: int

    @property
    def trigger(self) -> Object:
        """As an entry of a ScaledObject's `triggers`."""
        minutes = 60 * self.start - LEAD_MINUTES
        first = [(day - 1) % 7 for day in self.days] if minutes < 0 else self.days
        last = [(day + 1) % 7 for day in self.days] if self.end == 24 else self.days
        metadata = {
            "timezone": "Etc/UTC",
            "start": f"{minutes % 60} {minutes // 60 % 24} * * {','.join(map(str, sorted(first)))}",
            "end": f"0 {self.end % 24} * * {','.join(map(str, sorted(last)))}",
            "desiredReplicas": str(self.pods),
        }
        return {"type": "cron", "metadata": metadata}


@dataclass(frozen=True)
class Schedule:
    """What a forecast asks for beforehand.

    Attributes:
        windows: of its first week.
        peak: requests/s that its hours stay below with 97.5 % probability.
        origin: where it is from, in words.
    """

    windows: tuple[Window, ...]
    peak: float
    origin: str

    def highest(self, peak: float | None) -> float:
        """Return the requests/s that are expected at most: those of the user, if they aren't below the forecast's."""
        if peak is None:
            return math.ceil(self.peak)
        if peak < self.peak:
            raise HoneError(f"--peak: {peak:g} is below the {self.peak:,.0f}/s of {self.origin}; give more, or none")
        return peak


def schedule_of(file: Path, capacity: Capacity, minimum: int) -> Schedule:
    """Return the hours of a forecast that take more pods than always run.

    A window is the part of a day that takes more than the middle between the minimum and the day's most; other hours
    are the other triggers' business.

    Args:
        file: that `hone capacity forecast --out` wrote, of a week at least.
        capacity: of a pod.
        minimum: pods that always run.

    Raises:
        HoneError: it is no forecast, is shorter than a week, was made for another model, or has no such hours.
    """
    found = read_forecast(file)
    if found.capacity not in (None, capacity.model):
        raise HoneError(f"{file}: counts the pods of {found.capacity}, not of {capacity.model}; forecast with that")
    if len(found.points) < 24 * len(WEEK):
        raise HoneError(f"{file}: {len(found.points)} hours; a schedule takes a week: hone capacity forecast --days 7")
    hours = defaultdict[tuple[int, int, int], list[int]](list)
    for day, start, end, pods in _windows(found, capacity, minimum):
        hours[start, end, pods].append(day)
    if not hours:
        raise HoneError(f"{file}: no hour takes more than the {minimum} pods that always run; leave --forecast out")
    windows = tuple(Window(start, end, tuple(days), pods) for (start, end, pods), days in sorted(hours.items()))
    return Schedule(windows, max(each.peak.upper for each in found.horizons), f"{file.name}, from {found.source}")


def _windows(found: Forecast, capacity: Capacity, minimum: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield (day, start, end, pods) of each part of a day in which more are needed."""
    needed = {
        ((point.t.weekday() + 1) % 7, point.t.hour): pods_for(capacity, point.high) for point in found.points[: 24 * 7]
    }
    for day in WEEK:
        pods = [needed[day, hour] for hour in range(24)]
        bound = (minimum + max(pods)) / 2
        start = 0
        while start < 24:
            end = start
            while end < 24 and pods[end] > bound:
                end += 1
            if end > start and max(pods[start:end]) > minimum:
                yield day, start, end, max(pods[start:end])
            start = end + 1


def schedule_patches(schedule: Schedule) -> list[str]:
    """Return the lines of a kustomization that put a schedule in the place of the component's example."""
    first, *others = (json.dumps(window.trigger) for window in schedule.windows)
    return [
        "  - target: {kind: ScaledObject, name: hone}",
        "    patch: |-",
        f"      - {{op: replace, path: /spec/triggers/2, value: {first}}}",
        *(f"      - {{op: add, path: /spec/triggers/-, value: {trigger}}}" for trigger in others),
    ]


def schedule_remarks(schedule: Schedule) -> tuple[str, ...]:
    """Return what a schedule is, for numbers.md."""
    hours = [
        f"{','.join(NAMES[day] for day in window.days)} {window.start:02}:00-{window.end:02}:00 {window.pods} pods"
        for window in schedule.windows
    ]
    return (f"Scheduled peaks (UTC; {schedule.origin}): {'; '.join(hours)}; each from {LEAD_MINUTES} minutes before.",)


NAMES = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
