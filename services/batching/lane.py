"""One model's way from waiting requests to its runtime and back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import numpy as np

from hone.errors import InputError
from hone.signature import Tensors

from ..http.failures import DeadlineError, InferenceError, StoppingError
from .latency import LatencyModel, Reserve
from .options import LaneOptions
from .padding import FIXED, Joiner
from .queue import BatchQueue, Trail, Work
from .running import BatchTimes, Ran, Runner, failed, settle
from .scheduler import Scheduler

SOLO_LEARNS = 7
"""Of requests that run alone one in eight teaches the latency model: of thousands a second that is enough."""

SINGLE_BATCHES = 32
"""So many batches of one request each, one after the other, say that callers come one at a time."""


class Lane:
    """Joins concurrent requests of one model into batches and runs them, in order of arrival.

    Args:
        scheduler: shares the cores with the other models of the worker.
        run: the runtime: tensors in, tensors out.
        joiner: None runs each request alone.
        options: limits and threads.
        observe: told about every batch but those of `observe_solo`.
        observe_solo: told seconds and rows of a request that ran at once, alone.
        latency: what batches take; start-up calibration has seen some.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        run: Callable[[Tensors], Tensors],
        joiner: Joiner | None,
        options: LaneOptions | None = None,
        *,
        observe: Callable[[BatchTimes], None] = lambda _: None,
        observe_solo: Callable[[float, int], None] = lambda *_: None,
        latency: LatencyModel | None = None,
    ) -> None:
        self.options = options or LaneOptions()
        self.virtual_time = 0.0
        self.flying = 0
        self.failures_in_a_row = 0
        self._scheduler = scheduler
        self._run = run
        self._call = Runner(run, joiner).call
        self._joiner = joiner
        self._first = joiner.first if joiner is not None else ""
        self._one_length = joiner is None or joiner.one_length
        self._most_rows = self.options.max_batch_rows
        self._latency = latency or LatencyModel()
        self.queue = BatchQueue(
            self.options.max_batch_rows,
            self.options.max_queue_rows,
            self._latency.predict,
            self.options.in_flight,
            self.options.max_batch_cells,
        )
        self._reserve = Reserve()
        self.queue.reserve = self._reserve.share
        self._observe = observe
        self._observe_solo = observe_solo
        self._solo_runs = 0
        self._loop = asyncio.get_running_loop()
        self._ends: list[float] = []
        self._alone = False
        self._single_batches = 0
        self._ran_this_turn = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()
        scheduler.add(self)

    @property
    def ready(self) -> bool:
        """True when a batch waits and may start."""
        return self.queue.rows > 0 and self.flying < self.options.in_flight

    @property
    def idle(self) -> bool:
        """True when nothing waits and nothing runs."""
        return not self.queue.rows and not self.flying

    async def submit(
        self, inputs: Tensors, deadline: float | None = None, trail: Trail | None = None, *, alone: bool = False
    ) -> Tensors:
        """Return the outputs of these rows.

        Args:
            inputs: checked against the signature.
            deadline: the time (time.monotonic) after which the answer is worthless.
            trail: gets (seconds in the queue, seconds in the runtime, rows of the batch) of each part.
            alone: they share their batch with no other's.

        Raises:
            OverloadedError: the queue is full.
            DeadlineError: the answer would come too late.
            StoppingError: the lane is closing.
            InputError: these rows hold values that the model can't compute with.
            InferenceError: the runtime failed on these rows.
        """
        if self._closing:
            raise StoppingError
        if self._alone:
            if self._may_run_now(inputs, deadline):
                return self._run_now(inputs, trail)
            if not alone:
                self._crowded()
        now = monotonic()
        works = self._cut(inputs, now, deadline)
        if trail is not None or alone:
            for work in works:
                work.trail, work.alone = trail, work.alone or alone
        self._offer(works, now)
        try:
            if len(works) == 1:
                return await works[0].future  # type: ignore[misc]
            parts = await asyncio.gather(*(work.future for work in works if work.future is not None))
        except BaseException:
            for work in works:
                self.queue.withdraw(work)
            self._rest()
            raise
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def check_unread(self, deadline: float) -> None:
        """Refuse a request before its body is read where it can't be in time, whatever it brings.

        Raises:
            DeadlineError: it can't.
        """
        if self.queue.rows and self._one_length:
            now = monotonic()
            self.queue.check_unread(deadline - now, self._busy_s(now))

    def _offer(self, works: list[Work], now: float) -> None:
        """Queue all of a caller's works, or none; raises as `BatchQueue.offer`."""
        if not self.queue.rows and not self.flying:
            self._scheduler.activate(self)
        self.queue.offer(works, now, self._busy_s(now) if works[0].deadline is not None else 0.0)
        self._idle.clear()
        self._scheduler.wake()

    def _may_run_now(self, inputs: Tensors, deadline: float | None) -> bool:
        """Return whether a request may skip the queue: nobody is there to share a batch with.

        That is known when the last batches held one request each and no other request came in this turn of the event
        loop. The two turns through queue and future that it saves are a good part of a small model's latency.
        """
        if self._ran_this_turn or self.queue.rows or self.flying or deadline is not None:
            return False
        return self._joiner is None or len(inputs[self._first]) <= self._most_rows

    def _run_now(self, inputs: Tensors, trail: Trail | None) -> Tensors:
        """Run one request without queue, future or a turn of the loop: launch, call and finish, made lean."""
        self._ran_this_turn = True
        self._loop.call_soon(self._next_turn)
        joiner = self._joiner
        rows = 1 if joiner is None else len(inputs[self._first])
        started = monotonic()
        try:
            outputs = self._run(inputs if joiner is None else joiner.alone(inputs))
        except InputError:
            raise  # the caller's mistake: nothing is wrong with the runtime, and nothing to log
        except Exception as error:
            self.failures_in_a_row += 1
            raise failed(error, rows) from error
        seconds = monotonic() - started
        self.failures_in_a_row = 0
        self.virtual_time += seconds * self.options.threads
        if trail is not None:
            trail.append((0.0, seconds, rows))
        self._observe_solo(seconds, rows)
        self._solo_runs += 1
        if not self._solo_runs & SOLO_LEARNS:
            self._latency.observe(1 if joiner is None else joiner.bucket(inputs).row_size, rows, seconds)
        return outputs

    def _next_turn(self) -> None:
        self._ran_this_turn = False

    def _crowded(self) -> None:
        """Note that requests come together: the next ones wait for each other's company again."""
        self._alone = False
        self._single_batches = 0

    def _cut(self, inputs: Tensors, now: float, deadline: float | None) -> list[Work]:
        """Make one work of a request, or several when it has more rows than a batch."""
        create = self._loop.create_future
        if self._joiner is None:
            return [Work(inputs, 1, now, FIXED, create(), deadline, alone=True)]
        rows = len(inputs[self._first])
        bucket = self._joiner.bucket(inputs)
        most = self._most_rows if bucket is FIXED else self.queue.sizes.limit(bucket)
        if rows <= most:
            return [Work(inputs, rows, now, bucket, create(), deadline)]
        return [
            Work(
                {name: array[start : start + most] for name, array in inputs.items()},
                min(most, rows - start),
                now,
                bucket,
                create(),
                deadline,
            )
            for start in range(0, rows, most)
        ]

    def _busy_s(self, now: float) -> float:
        """Return the seconds until one of the batches in flight is expected to end; 0 when another may start now."""
        if self.flying < self.options.in_flight or not self._ends:
            return 0.0
        return max(0.0, min(self._ends) - now)

    def launch(self) -> bool:
        """Start the next batch; return False when nothing that waited could still be in time."""
        started = monotonic()
        batch = self.queue.take(started)
        for work in batch.expired:
            self._learn_reserve(work, started)
            settle(work, DeadlineError("the deadline passed while the request waited"))
        if not batch.works:
            self._rest()
            return False
        self.flying += 1
        works = batch.works
        if self.options.executor is None:
            self._finish(works, batch.rows, started, self._call(works))
            self._single_batches = self._single_batches + 1 if len(works) == 1 else 0
            self._alone = self._single_batches >= SINGLE_BATCHES
            return True
        end = started + self._latency.predict(works[0].bucket.row_size, batch.rows)
        self._ends.append(end)
        future = self._loop.run_in_executor(self.options.executor, self._call, works)
        future.add_done_callback(lambda done: self._landed(works, batch.rows, started, end, done))
        return True

    def _landed(self, works: list[Work], rows: int, started: float, end: float, done: asyncio.Future[Ran]) -> None:
        self._ends.remove(end)
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            ran: Ran = [InferenceError(f"the batch was lost: {error}")] * len(works), 0.0, 0.0
        else:
            ran = done.result()
        self._finish(works, rows, started, ran)
        self._scheduler.landed(self)

    def _finish(self, works: list[Work], rows: int, started: float, ran: Ran) -> None:
        ended = monotonic()
        outcomes, joining, splitting = ran
        seconds = ended - started
        self.flying -= 1
        failed = False
        for work, outcome in zip(works, outcomes, strict=True):
            if work.trail is not None:
                work.trail.append((started - work.arrived, seconds, rows))
            settle(work, outcome)
            failed = failed or isinstance(outcome, Exception)
        if not failed:
            self._reserve.stalled(ended, self._latency.observe(works[0].bucket.row_size, rows, seconds))
            self.failures_in_a_row = 0
        elif all(isinstance(outcome, InferenceError) for outcome in outcomes):
            self.failures_in_a_row += 1
        for work in works:
            if work.deadline is not None:
                self._learn_reserve(work, ended)
        self.virtual_time += seconds * self.options.threads
        self._observe(BatchTimes([started - work.arrived for work in works], seconds, rows, joining, splitting, failed))
        self._rest()

    def _learn_reserve(self, work: Work, ended: float) -> None:
        assert work.deadline is not None
        self._reserve.answered(work.arrived, work.deadline, ended)
        self.queue.tried(work, ended)
        self.queue.reserve = self._reserve.share

    def _rest(self) -> None:
        if not self.flying and not self.queue.rows:
            self._idle.set()

    async def close(self, timeout_s: float = 30.0) -> None:
        """Refuse new requests, wait for those accepted, and leave the scheduler.

        Raises:
            TimeoutError: a batch did not end in time.
        """
        self._closing = True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        finally:
            self._scheduler.remove(self)
