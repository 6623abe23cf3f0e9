"""The batching policy, pure: what waits, in which order it goes, and what is refused.

A request that finds the runtime idle runs at once. While a batch is in flight arrivals collect, and the next batch
takes as many rows as fit, oldest first. Under light load latency is that of the model alone; under heavy load batches
grow by themselves, because more arrives while a larger batch runs. There is no timer and no fixed wait.

Works whose rows differ in shape wait in buckets of their own; the next batch comes from the bucket whose head is the
oldest, so no bucket starves. A work may carry a deadline: it is refused on arrival when the rows ahead of it make the
deadline unreachable, dropped when it has become so while waiting, and it keeps the batch that it goes with small
enough to be in time. Nothing is computed whose answer would come too late, but for a try now and then (`TRY_AFTER_S`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, inf

from hone.signature import Tensors

from ..http.failures import DeadlineError, OverloadedError
from .sizes import BatchSizes, Bucket, instant

TRY_AFTER_S = 1.0
"""Without a batch for so long, what batches take isn't known any more, and a request is let through to learn it.

Else one stall of the host, which makes the next predictions long, would have every caller with a deadline refused for
good: nothing would run that could show that the stall is over.
"""

Trail = list[tuple[float, float, int]]


@dataclass(eq=False, slots=True)
class Work:
    """Rows of one caller that go through the runtime together.

    Attributes:
        inputs: tensors with the rows on axis 0.
        rows: how many.
        arrived: the clock's time of arrival, seconds.
        bucket: what it may share a batch with.
        future: gets the outputs or an exception.
        deadline: the clock's time at which the answer is worthless.
        waiting: True while it is in the queue.
        alone: it shares its batch with none.
        trail: where to note what became of it, for traces.
        is_try: it runs though its deadline seems out of reach: `TRY_AFTER_S`.
    """

    inputs: Tensors
    rows: int
    arrived: float
    bucket: Bucket
    future: asyncio.Future[Tensors] | None = None
    deadline: float | None = None
    waiting: bool = False
    alone: bool = False
    trail: Trail | None = None
    is_try: bool = False


ONE_ROW = (Work({}, 1, 0.0, Bucket()),)
"""The least that a request can bring where all rows have one length."""


@dataclass
class Batch:
    """What goes to the runtime next, and what has become too late meanwhile."""

    works: list[Work]
    rows: int
    expired: list[Work]


@dataclass
class BatchQueue:
    """Waiting works, bounded in rows.

    Attributes:
        max_batch_rows: of one call of the runtime.
        max_queue_rows: that may wait.
        predict: seconds of a batch by row size and rows.
        in_flight: batches that may run side by side.
        max_batch_cells: of one call: rows times the size of a row; long rows make small batches. 0: no limit.
        rows: waiting now.
        reserve: share of a caller's time that must be left over when others are ahead.
    """

    max_batch_rows: int
    max_queue_rows: int
    predict: Callable[[int, int], float] = instant
    in_flight: int = 1
    max_batch_cells: int = 0
    rows: int = 0
    reserve: float = 0.0
    _buckets: dict[Bucket, deque[Work]] = field(default_factory=dict)
    _bucket_rows: dict[Bucket, int] = field(default_factory=dict)
    _last_batch: float | None = None
    """When one was taken; before the first, when a request was refused first."""

    def __post_init__(self) -> None:
        self.sizes = BatchSizes(self.max_batch_rows, self.max_batch_cells, self.predict)

    def offer(self, works: list[Work], now: float, busy_s: float = 0.0) -> None:
        """Queue all of a caller's works, or none.

        An empty queue takes any request, so that one larger than the queue can be served at all; that it has no more
        rows than a request may was checked when it was read.

        Args:
            works: of one caller.
            now: the clock.
            busy_s: until a batch in flight is expected to end.

        Raises:
            OverloadedError: the queue is full.
            DeadlineError: the answer would come too late.
        """
        rows = works[0].rows if len(works) == 1 else sum(work.rows for work in works)
        if self.rows and self.rows + rows > self.max_queue_rows:
            raise OverloadedError(
                f"the queue is full: {self.rows} rows wait, {self.max_queue_rows} may", ceil(self.backlog_s() + busy_s)
            )
        deadline = works[0].deadline
        if deadline is not None:
            self._check_deadline(works, now, deadline - now, busy_s)
        for work in works:
            waiting = self._buckets.get(work.bucket)
            if waiting is None:
                waiting = self._buckets[work.bucket] = deque()
                self._bucket_rows[work.bucket] = 0
            waiting.append(work)
            work.waiting = True
            self._bucket_rows[work.bucket] += work.rows
        self.rows += rows

    def _check_deadline(self, works: list[Work], now: float, left_s: float, busy_s: float) -> None:
        ahead, own = self._needed(works, left_s, busy_s)
        if left_s <= 0 or ahead + own > (self._usable(works[0].bucket, left_s) if ahead else left_s):
            if left_s > 0 and not ahead and self._may_try(now):
                for work in works:
                    work.is_try = True
                return
            raise _too_late(left_s, ahead, own, "about")

    def check_unread(self, left_s: float, busy_s: float = 0.0) -> None:
        """Refuse a request whose body isn't read yet when a single row of it would come too late already.

        Args:
            left_s: until its deadline.
            busy_s: as of `offer`.

        Raises:
            DeadlineError: whatever it brings, `offer` would refuse it.
        """
        if not self.rows:
            return
        ahead, own = self._needed(ONE_ROW, left_s, busy_s)
        if ahead + own > self._usable(ONE_ROW[0].bucket, left_s):
            raise _too_late(left_s, ahead, own, "over")

    def _needed(self, works: Sequence[Work], left_s: float, busy_s: float) -> tuple[float, float]:
        """Return the seconds before works can run, and those of their own."""
        own = sum(self.predict(work.bucket.row_size, work.rows) for work in works)
        # In the last batch it has company: a batch of its own would cost the others' overhead once more.
        return busy_s + max(0.0, self._seconds(left_s, works) - own) / self.in_flight, own

    def _may_try(self, now: float) -> bool:
        if self._last_batch is None:
            self._last_batch = now
        return now - self._last_batch >= TRY_AFTER_S

    def tried(self, work: Work, ended: float) -> None:
        """Learn when a work ended: after a try in time the next may come at once, so that the rest is learned soon."""
        if work.is_try and work.deadline is not None and ended <= work.deadline:
            self._last_batch = -inf

    def _usable(self, bucket: Bucket, left_s: float) -> float:
        """Return the seconds that a request behind others may be foreseen to take.

        However large the reserve, a full batch may gather while another ends: with less the runtime would go hungry.
        """
        batches_s = 1.5 * self.predict(bucket.row_size, self.sizes.timely(bucket, left_s))
        return min(left_s, max(left_s * (1 - self.reserve), batches_s))

    def backlog_s(self) -> float:
        """Return the seconds that the waiting rows are expected to take."""
        return self._seconds() / self.in_flight

    def _seconds(self, time_s: float = inf, more: Sequence[Work] = ()) -> float:
        """Return the seconds of all batches that the waiting rows make, and these with them, for callers with so much
        time."""
        waiting = self._bucket_rows
        if more:
            waiting = dict(waiting)
            for work in more:
                waiting[work.bucket] = waiting.get(work.bucket, 0) + work.rows
        total = 0.0
        for bucket, rows in waiting.items():
            most = self.sizes.timely(bucket, time_s)
            full, rest = divmod(rows, most)
            if full:
                total += full * self.predict(bucket.row_size, most)
            if rest:
                total += self.predict(bucket.row_size, rest)
        return total

    def withdraw(self, work: Work) -> None:
        """Take a work back whose caller has gone; one that already runs is left alone."""
        if work.waiting:
            work.waiting = False
            self.rows -= work.rows
            self._bucket_rows[work.bucket] -= work.rows

    def take(self, now: float) -> Batch:
        """Return the next batch: the oldest work, and what fits beside it in order of arrival.

        The batch is empty when nothing waits that could still be in time.
        """
        expired: list[Work] = []
        while True:
            bucket = self._oldest()
            if bucket is None:
                return Batch([], 0, expired)
            batch = self._fill(bucket, now, expired)
            if batch.works:
                self._last_batch = now
                return batch

    def _oldest(self) -> Bucket | None:
        oldest: Bucket | None = None
        arrived = 0.0
        for bucket in list(self._buckets):
            waiting = self._buckets[bucket]
            while waiting and not waiting[0].waiting:
                waiting.popleft()
            if not waiting:
                del self._buckets[bucket], self._bucket_rows[bucket]
            elif oldest is None or waiting[0].arrived < arrived:
                oldest, arrived = bucket, waiting[0].arrived
        return oldest

    def _fill(self, bucket: Bucket, now: float, expired: list[Work]) -> Batch:
        waiting = self._buckets[bucket]
        works: list[Work] = []
        rows = 0
        limit: float | None = None
        most = self.sizes.limit(bucket)
        while waiting and rows < most:
            work = waiting[0]
            if not work.waiting:
                waiting.popleft()
                continue
            if works and (rows + work.rows > most or work.alone or works[0].alone):
                break
            if work.deadline is not None and (not works or limit is None):
                most = self.sizes.timely(bucket, work.deadline - work.arrived)
            if work.deadline is not None or limit is not None:
                if work.deadline is not None and not work.is_try and self._is_late(work, now):
                    waiting.popleft()
                    self.withdraw(work)
                    expired.append(work)
                    continue
                tighter = min(value for value in (work.deadline, limit) if value is not None)
                if works and now + self.predict(bucket.row_size, rows + work.rows) > tighter:
                    break
                limit = tighter
            waiting.popleft()
            self.withdraw(work)
            works.append(work)
            rows += work.rows
        return Batch(works, rows, expired)

    def _is_late(self, work: Work, now: float) -> bool:
        assert work.deadline is not None
        return now + self.predict(work.bucket.row_size, work.rows) > work.deadline

    def __len__(self) -> int:
        return sum(work.waiting for waiting in self._buckets.values() for work in waiting)


def _too_late(left_s: float, ahead: float, own: float, word: str) -> DeadlineError:
    return DeadlineError(
        f"can't answer within the {max(0.0, left_s) * 1e3:.3g} ms that are left: {word} {(ahead + own) * 1e3:.3g} ms "
        "would be needed",
        ceil(ahead),
        hopeless=left_s <= 0 or own > left_s,
    )
