"""Adaptive batching: requests that wait for the runtime anyway are joined; none waits for company.

The policy: a request that finds the runtime idle runs at once. While a batch is in flight arrivals collect, and the
next batch takes as many rows as fit, oldest first. Under light load latency is that of the model alone; under heavy
load batches grow by themselves, because more arrives while a larger batch runs. There is no timer.

`BatchQueue` is that policy, pure: rows, order, limits. `Batcher` connects it to the event loop and the runtime.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Hashable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from services.failures import InferenceError, OverloadedError

logger = logging.getLogger("hone.batching")

Tensors = dict[str, np.ndarray]


@dataclass(eq=False)
class Work:
    """Rows of one caller that go through the runtime together.

    Attributes:
        inputs: tensors with the rows on axis 0.
        rows: how many.
        arrived: the clock's time of arrival, seconds.
        key: only works of equal keys may share a batch (the shape of a row).
        done: called once with outputs or an exception.
        abandoned: True when the caller has gone away.
    """

    inputs: Tensors
    rows: int
    arrived: float
    key: Hashable
    done: Callable[[Tensors | Exception], None]
    abandoned: bool = False


@dataclass
class BatchQueue:
    """Waiting works, bounded in rows; gives out batches of works whose rows have the same shape."""

    max_batch_rows: int
    max_queue_rows: int
    rows: int = 0
    _works: deque[Work] = field(default_factory=deque)

    def offer(self, works: list[Work]) -> None:
        """Queue all of a caller's works, or none.

        An empty queue takes anything, so that a request larger than the queue can be served at all.

        Raises:
            OverloadedError: the queue is full.
        """
        rows = sum(work.rows for work in works)
        if self.rows and self.rows + rows > self.max_queue_rows:
            raise OverloadedError(f"the queue is full: {self.rows} rows wait, {self.max_queue_rows} may")
        self._works.extend(works)
        self.rows += rows

    def take(self) -> list[Work]:
        """Return the next batch: the oldest work, and what fits beside it in order of arrival. Empty when none waits.

        Works of another shape keep their place in the queue; the oldest of them heads the next batch.
        """
        batch: list[Work] = []
        taken = 0
        kept: deque[Work] = deque()
        while self._works:
            work = self._works.popleft()
            if work.abandoned:
                self.rows -= work.rows
            elif not batch or (work.key == batch[0].key and taken + work.rows <= self.max_batch_rows):
                batch.append(work)
                taken += work.rows
                if taken >= self.max_batch_rows:
                    break
            else:
                kept.append(work)
        self._works.extendleft(reversed(kept))
        self.rows -= taken
        return batch

    def __len__(self) -> int:
        return len(self._works)


@dataclass(frozen=True)
class BatchTimes:
    """What one batch took, for the metrics: seconds in the queue for each work, seconds in the runtime, rows."""

    queued: list[float]
    inference: float
    rows: int


class Batcher:
    """Joins concurrent requests into batches and runs them, one at a time, in order of arrival.

    Args:
        run: the runtime: tensors in, tensors out.
        batchable: False runs each request alone.
        max_batch_rows: rows of one call; a larger request is split.
        max_queue_rows: rows that may wait.
        executor: where `run` is called; None calls it on the event loop, which is cheaper than a thread for models
            that answer in less time than a thread switch is worth.
        observe: told about every batch.
    """

    def __init__(
        self,
        run: Callable[[Tensors], Tensors],
        *,
        batchable: bool = True,
        max_batch_rows: int = 64,
        max_queue_rows: int = 4096,
        executor: Executor | None = None,
        observe: Callable[[BatchTimes], None] = lambda _: None,
    ) -> None:
        self._run = run
        self._batchable = batchable
        self._queue = BatchQueue(max_batch_rows, max_queue_rows)
        self._executor = executor
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._busy = False
        self._closing = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting_rows(self) -> int:
        return self._queue.rows

    async def submit(self, inputs: Tensors) -> Tensors:
        """Return the outputs of these rows.

        Raises:
            OverloadedError: the queue is full or the batcher is closing.
            InferenceError: the runtime failed on these rows.
        """
        if self._closing:
            raise OverloadedError("the service is stopping")
        works, futures = self._cut(inputs)
        self._queue.offer(works)
        self._idle.clear()
        self._wake()
        try:
            if len(futures) == 1:
                return await futures[0]
            parts = await asyncio.gather(*futures)
        except BaseException:
            for work in works:
                work.abandoned = True
            raise
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _cut(self, inputs: Tensors) -> tuple[list[Work], list[asyncio.Future[Tensors]]]:
        """Make one work of a request, or several when it has more rows than a batch."""
        now = self._loop.time()
        if not self._batchable:
            future: asyncio.Future[Tensors] = self._loop.create_future()
            return [Work(inputs, 1, now, object(), _settle(future))], [future]
        rows = len(next(iter(inputs.values())))
        key = tuple((name, array.shape[1:]) for name, array in inputs.items())
        works, futures = [], []
        for start in range(0, rows, self._queue.max_batch_rows):
            stop = min(start + self._queue.max_batch_rows, rows)
            part = inputs if stop - start == rows else {name: array[start:stop] for name, array in inputs.items()}
            future = self._loop.create_future()
            works.append(Work(part, stop - start, now, key, _settle(future)))
            futures.append(future)
        return works, futures

    def _wake(self) -> None:
        """Start a batch on the loop's next turn, so that requests read in this turn can share it."""
        if not self._busy:
            self._busy = True
            self._loop.call_soon(self._start)

    def _start(self) -> None:
        batch = self._queue.take()
        if not batch:
            self._busy = False
            self._idle.set()
            return
        started = self._loop.time()
        if self._executor is None:
            self._finish(batch, started, self._call(batch))
            return
        future = self._loop.run_in_executor(self._executor, self._call, batch)
        future.add_done_callback(lambda done: self._finish(batch, started, done.result()))

    def _call(self, batch: list[Work]) -> list[Tensors | Exception]:
        """Run a batch. When it fails and holds several callers' rows, each runs alone: one caller's poison must not
        fail the others."""
        try:
            return _split(self._run(_join(batch)), batch)
        except Exception as error:
            if len(batch) == 1:
                logger.exception("inference failed on %d row(s)", batch[0].rows)
                failure = InferenceError(str(error))
                failure.__cause__ = error
                return [failure]
            return [self._call([work])[0] for work in batch]

    def _finish(self, batch: list[Work], started: float, results: list[Tensors | Exception]) -> None:
        ended = self._loop.time()
        for work, result in zip(batch, results, strict=True):
            work.done(result)
        queued = [started - work.arrived for work in batch]
        self._observe(BatchTimes(queued, ended - started, sum(work.rows for work in batch)))
        # Let the event loop read sockets between batches, or arrivals could never join the next one.
        self._loop.call_soon(self._start)

    async def close(self, timeout_s: float = 30.0) -> None:
        """Refuse new requests and wait for those accepted."""
        self._closing = True
        await asyncio.wait_for(self._idle.wait(), timeout_s)


def _settle(future: asyncio.Future[Tensors]) -> Callable[[Tensors | Exception], None]:
    def settle(result: Tensors | Exception) -> None:
        if future.done():
            return
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)

    return settle


def _join(batch: list[Work]) -> Tensors:
    if len(batch) == 1:
        return batch[0].inputs
    return {name: np.concatenate([work.inputs[name] for work in batch]) for name in batch[0].inputs}


def _split(outputs: Tensors, batch: list[Work]) -> list[Tensors | Exception]:
    if len(batch) == 1:
        return [outputs]
    total = sum(work.rows for work in batch)
    for name, array in outputs.items():
        if len(array) != total:
            raise InferenceError(f"output '{name}' has {len(array)} rows for {total} rows of input")
    parts: list[Any] = []
    start = 0
    for work in batch:
        stop = start + work.rows
        parts.append({name: array[start:stop] for name, array in outputs.items()})
        start = stop
    return parts
