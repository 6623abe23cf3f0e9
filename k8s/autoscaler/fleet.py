"""The pods of a Deployment over time, those that were made together as one, and the load on them as a fluid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .pod import Pod
from .trace import Rates

QUEUE_ROWS = 4096
"""Rows that may wait in one pod before more are refused (`HONE_QUEUE_ROWS`)."""


@dataclass
class Cohort:
    """Pods that were made at one time."""

    count: int
    created: float
    ready_at: float


class Fleet:
    """The pods that are there, oldest first."""

    def __init__(self, pod: Pod, count: int) -> None:
        self._start_s = pod.start_s
        self.cohorts = [Cohort(count, -1e9, -1e9)] if count else []

    @property
    def count(self) -> int:
        return sum(cohort.count for cohort in self.cohorts)

    def ready(self, now: float) -> int:
        return sum(cohort.count for cohort in self.cohorts if cohort.ready_at <= now)

    def next_ready(self, now: float) -> float:
        """Return when the next pods turn ready, or infinity."""
        return min((cohort.ready_at for cohort in self.cohorts if cohort.ready_at > now), default=np.inf)

    def resize(self, count: int, now: float) -> None:
        """Add pods, or take away the newest; those that aren't ready yet are the newest."""
        more = count - self.count
        if more > 0:
            self.cohorts.append(Cohort(more, now, now + self._start_s))
        while more < 0:
            newest = self.cohorts[-1]
            taken = min(newest.count, -more)
            newest.count -= taken
            more += taken
            if not newest.count:
                self.cohorts.pop()
        self._merge(now)

    def _merge(self, now: float) -> None:
        """Make one cohort of those that have been ready so long that no metric tells them apart."""
        old = [cohort for cohort in self.cohorts if cohort.ready_at < now - LONG_READY_S]
        if len(old) > 1:
            whole = Cohort(sum(cohort.count for cohort in old), old[-1].created, old[-1].ready_at)
            self.cohorts = [whole, *self.cohorts[len(old) :]]


LONG_READY_S = 3600.0


@dataclass
class Load:
    """What the pods had to do, in ticks; the sums are of one pod that was ready all the time.

    Attributes:
        tick_s: length of a tick.
        arrivals: requests per second in each tick.
        cpu_s: core-seconds of one ready pod up to each tick's begin.
        row_s: row-seconds in flight of one ready pod; a refused row counts as long as those answered meanwhile took, as
            the service counts it (`services/observe/demand.py`).
        requests: that one ready pod has answered.
        outside: whether a tick was outside of the SLO.
        shed: requests that were refused in it.
        waiting: requests that wait, over all pods.
    """

    tick_s: float
    arrivals: Rates
    cpu_s: Rates
    row_s: Rates
    requests: Rates
    outside: np.ndarray[tuple[int], np.dtype[np.bool_]]
    shed: Rates
    waiting: float = 0.0

    @classmethod
    def of(cls, arrivals: Rates, tick_s: float) -> Load:
        def sums() -> Rates:
            return np.zeros(len(arrivals) + 1)

        outside = np.zeros(len(arrivals), dtype=bool)
        return cls(tick_s, arrivals, sums(), sums(), sums(), outside, np.zeros(len(arrivals)))

    def advance(self, first: int, last: int, ready: int, pod: Pod) -> None:
        """Let `ready` pods work from one tick to another; what they don't hold waits, too much is refused."""
        if first >= last:
            return
        arrivals = self.arrivals[first:last]
        if ready and not self.waiting and arrivals.max() <= ready * pod.capacity_rps:
            none = np.zeros(last - first)
            self._add(first, last, arrivals / ready, none, none, pod)
            return
        served, waiting = np.zeros(last - first), np.zeros(last - first)
        held = ready * pod.capacity_rps * self.tick_s
        most = ready * QUEUE_ROWS / pod.rows
        queue = self.waiting
        for at, arrived in enumerate((arrivals * self.tick_s).tolist()):
            served[at] = done = min(queue + arrived, held)
            left = queue + arrived - done
            queue = min(left, most)
            self.shed[first + at] = left - queue
            waiting[at] = queue
            self.outside[first + at] = left > EMPTY * held or not ready
        # What is left of a request in a fluid is none.
        self.waiting = queue if queue > EMPTY * held else 0.0
        pods = max(ready, 1)
        self._add(first, last, served / pods / self.tick_s, waiting / pods, self.shed[first:last] / pods, pod)

    def _add(self, first: int, last: int, rate: Rates, waiting: Rates, refused: Rates, pod: Pod) -> None:
        """Add what one ready pod did: answered so many per second, while so many waited and some were refused."""
        span = slice(first + 1, last + 1)
        answered = np.cumsum(rate) * self.tick_s
        self.requests[span] = self.requests[first] + answered
        self.cpu_s[span] = self.cpu_s[first] + answered * (pod.cpu_cores / pod.capacity_rps)
        seconds = (rate * pod.latency_s + waiting) * self.tick_s
        asked = 1 + np.divide(refused, rate * self.tick_s, out=np.zeros(last - first), where=rate > 0)
        self.row_s[span] = self.row_s[first] + np.cumsum(seconds * asked) * pod.rows


EMPTY = 1e-9
"""Share of what pods hold in a tick below which nothing waits: sums of floating-point numbers aren't exact."""
