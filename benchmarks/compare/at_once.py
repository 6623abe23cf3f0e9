"""Two services loaded at once, at equal rates: what the processes of each work for a request, window by window.

What slows a host down, a neighbor or a warm processor, hits both services in the same moment, so their ratio in a
window of a second is steadier than that of two loads one after the other. Work is processor time, which other programs
don't lengthen by taking turns, only by taking caches and cycles.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
    def log_ratio(self) -> float:
        """Of B's work for a request over A's."""
        (some, others), (first, second) = self.requests, self.cpu_s
        return math.log(second / others) - math.log(first / some)


def windows(
    a: Target, b: Target, scenario: Scenario, watch: Callable[[int], object] = lambda _: None
) -> Iterator[Window]:
    """Load both at once and yield what each did, until the scenario is over or nothing more is asked for.

    Args:
        a, b: the services; both are on this host.
        scenario: an open loop's; each gets this load. B's requests come half a mean gap after A's.
        watch: told how many requests failed.

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
        edges: list[Edge] = []
        records = np.zeros(0, RECORDS)
        while fleet.running:
            due = SETTLE_S if not edges else edges[-1][0] + WINDOW_S
            time.sleep(max(0.0, fleet.zero + due - time.monotonic()))
            edges.append((time.monotonic() - fleet.zero, *(worked_s(family) for family in families)))
            records = np.concatenate([records, fleet.more()])
            while len(edges) > 1 and edges[1][0] + LAG_S < edges[-1][0]:
                yield _window(edges[0], edges[1], records)
                records = records[records["ended"] > edges[1][0]]
                del edges[0]
        if failure := fleet.failure():
            raise HoneError(failure)


def _window(start: Edge, end: Edge, records: np.ndarray) -> Window:
    inside = records[(records["ended"] > start[0]) & (records["ended"] <= end[0]) & (records["error"] == 0)]
    some = int((inside["sender"] == 0).sum())
    return Window((some, len(inside) - some), (end[1] - start[1], end[2] - start[2]))
