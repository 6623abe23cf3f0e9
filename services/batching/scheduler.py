"""Shares a worker's cores between its models.

The next batch comes from the model that has used the least runtime so far (start-time fair queuing: core-seconds, not
requests, so that a slow model can't crowd out a fast one). A model that was idle starts at the others' clock and can't
save up time. Batches of models that run in threads go side by side while their threads fit the cores.

Before a batch starts, the event loop gets another turn as long as the last one brought rows: callers that were answered
together send their next requests a moment apart, and would otherwise be split into two smaller batches for good. There
is no timer in it: a turn that brings nothing costs some microseconds and ends the gathering. Between two batches that
hold the loop for long it gets some turns in any case: a request is read in one, decided on in the next and answered in
a third, and a batch in each of them would make even a refusal take several batches.
"""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Protocol

from .options import LaneOptions
from .queue import BatchQueue

MOST_TURNS = 8
"""So many turns of the event loop may bring rows before a batch starts that isn't full."""


LONG_S = 0.0005
"""After a batch that held the event loop for so long, the turns of a request cost little beside the next one."""

TURNS_BETWEEN = 4
"""So many turns a request takes from the socket to its answer, or its refusal."""


class Scheduled(Protocol):
    """A model whose batches are started here: a lane.

    Attributes:
        options: what a batch of it takes.
        queue: what waits.
        virtual_time: the core-seconds that it has used, on the clock of all.
    """

    options: LaneOptions
    queue: BatchQueue
    virtual_time: float

    @property
    def ready(self) -> bool:
        """True when a batch waits and may start."""
        ...

    def launch(self) -> bool:
        """Start the next batch; return False when nothing that waited could still be in time."""
        ...


class Scheduler:
    """Starts batches of all lanes of a worker.

    Args:
        cores: that batches may keep busy together.
    """

    def __init__(self, cores: int = 1) -> None:
        self._cores = max(1, cores)
        self._lanes: list[Scheduled] = []
        self._used = 0
        self._clock = 0.0
        self._scheduled = False
        self._gathered = 0
        self._turns = 0
        self._owed = 0
        self._loop = asyncio.get_running_loop()

    def add(self, lane: Scheduled) -> None:
        lane.virtual_time = self._clock
        self._lanes.append(lane)

    def remove(self, lane: Scheduled) -> None:
        if lane in self._lanes:
            self._lanes.remove(lane)

    def activate(self, lane: Scheduled) -> None:
        """Note that an idle lane gets work: its clock starts at the others'."""
        if lane.virtual_time < self._clock:
            lane.virtual_time = self._clock

    def wake(self) -> None:
        """Start batches after the loop's next turns, so that requests read in them can share one."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pass)

    def landed(self, lane: Scheduled) -> None:
        """Note that a batch that ran in a thread has ended."""
        self._used -= lane.options.threads
        self.wake()

    def _pass(self) -> None:
        self._scheduled = False
        if self._gathering():
            self.wake()
            return
        while True:
            lane = self._next()
            if lane is None:
                return
            inline = lane.options.executor is None
            if not inline and self._used and self._used + lane.options.threads > self._cores:
                return  # its turn has come; letting others pass would starve a model that needs many cores
            self._clock = max(self._clock, lane.virtual_time)
            began = monotonic()
            if not lane.launch():
                continue
            if inline:
                self._owed = TURNS_BETWEEN if monotonic() - began > LONG_S else 0
                # The event loop reads sockets between batches, or arrivals could never join the next one.
                if self._next() is not None:
                    self.wake()
                return
            self._used += lane.options.threads

    def _gathering(self) -> bool:
        """Return whether to let the event loop read more requests before the next batch starts."""
        if self._owed:
            self._owed -= 1
            return True
        ready = [lane for lane in self._lanes if lane.ready]
        rows = sum(lane.queue.rows for lane in ready)
        full = any(lane.queue.rows >= lane.options.max_batch_rows for lane in ready)
        if rows > self._gathered and not full and self._turns < MOST_TURNS:
            self._gathered = rows
            self._turns += 1
            return True
        self._gathered = self._turns = 0
        return False

    def _next(self) -> Scheduled | None:
        lanes = self._lanes
        if len(lanes) == 1:
            return lanes[0] if lanes[0].ready else None
        return min((lane for lane in lanes if lane.ready), key=lambda lane: lane.virtual_time, default=None)
