"""Two services loaded at once, at equal rates: what the processes of each work for a request, window by window.

What slows a host down, a neighbor or a warm processor, hits both services in the same moment, so their ratio in a
window is steadier than that of two loads one after the other. Work is processor time, which other programs don't
lengthen by taking turns, only by taking caches and cycles. They take them on one core more than on another, so the
services have half of the cores each, and change places in the middle of every window.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from hone.errors import HoneError

from ..load.run import calls_for
from ..load.sending.fleet import Fleet
from ..load.sending.plan import MAX_IN_FLIGHT, RECORDS, Plan
from ..load.target import Target
from ..load.workload import at
from ..scenarios import Scenario
from ..usage import listeners, worked_s

WINDOW_S = 1.0
SETTLE_S = 2.0
"""Left out at the begin: connections are opened, caches filled."""
LAG_S = 1.0
"""After so long the senders have written down what was answered."""
MOST_ERRORS = 0.01
FEWEST_REQUESTS = 10
"""Of each service in a window that counts."""

Edge = tuple[float, float, float]
"""A moment, in seconds from the start, and the seconds that A's and B's processes have worked until then."""


@dataclass(frozen=True)
class Window:
    """What both services did in the same second or so.

    Attributes:
        requests: answered by A and by B.
        cpu_s: that their processes worked.
    """

    requests: tuple[int, int]
    cpu_s: tuple[float, float]

    @property
    def cpu_ms(self) -> tuple[float, float]:
        """For a request."""
        (some, others), (first, second) = self.requests, self.cpu_s
        return 1e3 * first / some, 1e3 * second / others

    @property
    def log_ratio(self) -> float:
        """Of B's work for a request over A's."""
        ours, theirs = self.cpu_ms
        return math.log(theirs / ours)


def windows(a: Target, b: Target, scenario: Scenario) -> Iterator[Window]:
    """Load both at once and yield what each did, until the scenario is over or nothing more is asked for.

    Args:
        a, b: the services; both are on this host.
        scenario: an open loop's; each gets this load. B's requests come half a mean gap after A's.

    Raises:
        HoneError: a sender or a service failed, or its processes aren't seen.
    """
    assert scenario.rate is not None
    families = [listeners(target.url) for target in (a, b)]
    with tempfile.TemporaryDirectory(prefix="hone-at-once-") as name, ExitStack() as stack:
        folders = [Path(name) / "a", Path(name) / "b"]
        for number, (target, folder) in enumerate(zip((a, b), folders, strict=True)):
            workload = at(calls_for(target, scenario.rows, scenario.seed), scenario)
            assert workload.arrivals is not None
            Plan.of(
                target, workload.calls, "json", arrivals=workload.arrivals + number * 0.5 / scenario.rate,
                order=workload.order, in_flight=MAX_IN_FLIGHT // 2, number=number,
            ).write(folder)  # fmt: skip
        fleet = Fleet(folders)
        stack.callback(fleet.end)
        places = stack.enter_context(Places(*families))
        edges: list[Edge] = []
        records = np.zeros(0, RECORDS)
        while fleet.running:
            due = SETTLE_S if not edges else edges[-1][0] + WINDOW_S / 2
            time.sleep(max(0.0, fleet.zero + due - time.monotonic()))
            edges.append((time.monotonic() - fleet.zero, worked_s(families[0]), worked_s(families[1])))
            places.change()
            records = np.concatenate([records, fleet.more()])
            while len(edges) > 2 and edges[2][0] + LAG_S < edges[-1][0]:
                window = window_of(edges[0], edges[2], records)
                if min(window.requests) >= FEWEST_REQUESTS and min(window.cpu_s) > 0:
                    yield window
                records = records[records["ended"] > edges[2][0]]
                del edges[:2]
        if failure := fleet.failure():
            raise HoneError(failure)


class Places:
    """Half of the cores for each of two families of processes, and the other half in turn.

    Where processes can't be kept to cores (macOS, another user's, a single core) they stay where they are. Afterwards
    each has the cores again that it had.

    Args:
        families: of the services.
    """

    def __init__(self, *families: list[psutil.Process]) -> None:
        self._families = families
        self._before: dict[int, set[int]] = {}
        self._turn = 0

    def __enter__(self) -> Places:
        if hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):
                self._before = {thread: os.sched_getaffinity(thread) for thread in self._threads(*self._families)}
        there = sorted(set.intersection(*self._before.values())) if self._before else []
        self._halves = (there[: len(there) // 2], there[len(there) // 2 :])
        return self

    def __exit__(self, *_: object) -> None:
        for thread in self._threads(*self._families):
            with contextlib.suppress(OSError):
                os.sched_setaffinity(thread, self._before.get(thread) or [*self._halves[0], *self._halves[1]])

    @property
    def change_of_place(self) -> bool:
        """Whether the services change places."""
        return bool(self._halves[0])

    def change(self) -> None:
        """Let the services change places."""
        if not self.change_of_place:
            return
        self._turn += 1
        for number, family in enumerate(self._families):
            half = self._halves[(number + self._turn) % 2]
            for thread in self._threads(family):
                with contextlib.suppress(OSError):
                    os.sched_setaffinity(thread, half)

    @staticmethod
    def _threads(*families: list[psutil.Process]) -> list[int]:
        found: list[int] = []
        for family in families:
            for process in family:
                with contextlib.suppress(OSError):
                    found += [int(thread.name) for thread in Path(f"/proc/{process.pid}/task").iterdir()]
        return found


def window_of(start: Edge, end: Edge, records: np.ndarray) -> Window:
    """Return what both did between two moments: what was answered then, and well, counts."""
    inside = records[(records["ended"] > start[0]) & (records["ended"] <= end[0]) & (records["error"] == 0)]
    some = int((inside["sender"] == 0).sum())
    return Window((some, len(inside) - some), (end[1] - start[1], end[2] - start[2]))
