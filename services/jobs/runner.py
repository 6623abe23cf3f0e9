"""Computes jobs behind the callers who wait: one at a time in a worker, a batch of rows whenever the model is idle."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from time import time

from hone.errors import one_line
from hone.signature import Tensors

from ..http.failures import (
    BodyTooLargeError,
    MistrustedError,
    NotFoundError,
    OverloadedError,
    is_unexpected,
    status_of,
)
from ..http.limits import Limits
from ..http.reading import opener_of
from ..protocols import Protocol, endpoints_of
from ..protocols.base import Request
from ..protocols.predict import PREDICT
from ..protocols.tensors import row_count
from ..routes.edge import Edge
from ..routes.hub import Hub
from ..routes.served import ServedModel
from ..settings import READ_PER_BODY, Settings
from .metrics import count_ended, show_open
from .parts import Parts
from .record import CALLER, DONE, FAILED, LEASE_S, Job, JobsFullError, JobStore

logger = logging.getLogger("hone.serving")

POLL_S = 0.5
"""Between two looks for a job that another worker, or another replica, has taken in."""
HOLD_S = LEASE_S / 5
SWEEP_S = 60.0
SHOW_S = 5.0
"""Between two looks at what is open, for the metrics."""
AGAIN_S = 1.0
RECORD_TRIES = 30
"""After a refusal by the model's queue, or a store that doesn't answer."""


NOT_OF_BODY = ("accept", CALLER)
"""Fields of a job's head that its body is not read by."""


class GoneError(Exception):
    """The job is this worker's no more: canceled, or taken by another."""


class MovedError(Exception):
    """The version that answers a job is leaving: the job is given back, and another answers all of its rows."""


@dataclass
class _Current:
    """The job at work: as it is now, and whether it is still this worker's."""

    job: Job
    own: bool = True


class JobRunner:
    """Takes jobs out of a store and computes them.

    Args:
        store: of the jobs.
        hub: of the worker.
        edge: of the worker.
    """

    def __init__(self, store: JobStore, hub: Hub, edge: Edge) -> None:
        self._store, self._hub, self._edge = store, hub, edge
        store.ended = self._ended
        self._limits = limits_of(edge.settings)
        self._most_bytes = body_bytes(edge.settings)
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to take jobs."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(task) for task in (self._run(), self._sweep(), self._show())]

    def wake(self) -> None:
        """Look for a job at once: one has come in."""
        self._woken.set()

    async def close(self) -> None:
        """Stop; a job that is at work is given back, for another worker."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            try:
                if not await self._next():
                    # Not wait_for: that one forgets that it was canceled when it is woken at the same moment.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_S):
                            await self._woken.wait()
                    self._woken.clear()
            except Exception as error:
                logger.error("jobs: %s", one_line(error), exc_info=not isinstance(error, OSError))
                await asyncio.sleep(AGAIN_S)

    async def _next(self) -> bool:
        """Compute a job; False when there is none, or this worker is about to stop."""
        if self._hub.draining or not self._hub.names():
            return False
        taken = await self._taken()
        if taken is None:
            return False
        current = _Current(taken[0])
        holding = asyncio.get_running_loop().create_task(self._hold(current))
        try:
            done, result = await self._computed(current, taken[1])
            await self._finish(done, result)
        except GoneError:
            pass
        except MovedError:
            await self._store.give_back(current.job)
        except asyncio.CancelledError:
            await self._store.give_back(current.job)
            raise
        finally:
            holding.cancel()
        return True

    async def _taken(self) -> tuple[Job, bytes] | None:
        """Take a job; one that comes as this worker stops is given back."""
        taking = asyncio.ensure_future(self._store.take(self._hub.names()))
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            if (taken := await taking) is not None:
                await self._store.give_back(taken[0])
            raise

    async def _hold(self, current: _Current) -> None:
        """Tell the store now and then that the job is being computed, until it says that it isn't this worker's."""
        while current.own:
            await asyncio.sleep(HOLD_S)
            with contextlib.suppress(OSError):  # the lease is longer than one failure
                current.own = await self._store.hold(current.job)

    async def _finish(self, job: Job, result: bytes) -> None:
        try:
            kept = await self._store.finish(job, result)
        except (JobsFullError, OSError) as error:
            text = f"its result can't be kept: {one_line(error)}"
            job = replace(job, state=FAILED, error=text, error_status=503, result_bytes=0)
            kept = await self._store.finish(job, b"")
        if kept:
            self._ended(job)

    @staticmethod
    def _ended(job: Job) -> None:
        count_ended(job, time())

    async def _computed(self, current: _Current, body: bytes) -> tuple[Job, bytes]:
        """Return a job as it is when it is done, or has failed, and its result."""
        try:
            served = self._served(current.job.model)
            protocols = protocols_of(served, self._limits)
            splits = served.loaded.plan.max_batch_rows if served.loaded.artifact.signature.batchable else 0
            protocol, request = await self._edge.bodies.beside(lambda: self._read(protocols, current.job, body))
            rows = row_count(request.inputs)
            current.job = replace(current.job, rows=rows, answered_by=served.tag)
            answers = protocols[current.job.head["accept"].encode()]
            asked = request if type(answers) is type(protocol) else Request(request.inputs)
            parts = Parts(self._limits, rows if splits else None, answers.in_text(asked))
            began = time()
            for piece in _pieces(request.inputs, splits):
                await self._infer(served, piece, current, parts, bool(splits))
            caller = current.job.head.get(CALLER, "").encode("latin-1") or None
            served.note(current.job.id.encode(), parts.noted(), "", "", caller, time() - began)
            fields, result = await self._edge.bodies.beside(lambda: answers.encode(asked, parts.joined()))
        except (GoneError, MovedError):
            raise
        except Exception as error:
            if is_unexpected(error):
                logger.error("job %s failed", current.job.id, exc_info=error)
            status, message, _ = status_of(error)
            return replace(current.job, state=FAILED, error=message, error_status=status, changed=time()), b""
        content = bytes(result)
        told = tuple((name.decode(), value.decode("latin-1")) for name, value in fields)
        job = replace(current.job, rows_done=current.job.rows, fields=told, result_bytes=len(content))
        return replace(job, state=DONE, changed=time()), content

    def _served(self, model: str) -> ServedModel:
        """Return what answers for a model; raises MovedError when nothing does any more."""
        try:
            return self._hub.get(model)
        except (NotFoundError, MistrustedError):
            raise MovedError from None

    def _read(self, protocols: dict[bytes, Protocol], job: Job, body: bytes) -> tuple[Protocol, Request]:
        """Return the protocol of a job's body, and what is in it."""
        head = {name.encode(): value.encode("latin-1") for name, value in job.head.items() if name not in NOT_OF_BODY}
        protocol = protocols[head.get(b"content-type", b"")]
        opener = opener_of(head.get(b"content-encoding", b"identity").strip().lower())
        return protocol, protocol.decode(head, body if opener is None else opener(body, self._most_bytes))

    async def _infer(self, served: ServedModel, piece: Tensors, current: _Current, parts: Parts, splits: bool) -> None:
        """Compute some rows of a job while no caller waits; they are to drift, recorder and shadow what a request is.

        What would take more memory than a request may, such as long texts, is computed in halves.
        """
        began, rows = time(), row_count(piece)
        try:
            outputs = await self._patiently(served, piece, current)
        except BodyTooLargeError:
            if not splits or rows == 1:
                raise
            for half in _pieces(piece, (rows + 1) // 2):
                await self._infer(served, half, current, parts, splits)
            return
        request_id = current.job.id.encode()
        await _recorded(served, piece, outputs, request_id, time() - began, current.job.rows_done)
        if served.followed or served.metrics.wants_sample:
            served.after(piece, outputs, request_id, time() - began)
        parts.add(outputs, served.noted(outputs))
        current.job = replace(current.job, rows_done=current.job.rows_done + rows)

    async def _patiently(self, served: ServedModel, piece: Tensors, current: _Current) -> Tensors:
        while current.own:
            if served not in self._hub.models():
                raise MovedError
            try:
                return await served.infer_behind(piece)
            except OverloadedError:
                await asyncio.sleep(AGAIN_S)
        raise GoneError

    async def _show(self) -> None:
        while True:
            try:
                show_open(self._hub.names(), await self._store.open_jobs(), time())
            except Exception as error:  # noqa: BLE001 - it is tried again
                logger.error("open jobs can't be counted: %s", one_line(error))
            await asyncio.sleep(SHOW_S)

    async def _sweep(self) -> None:
        while True:
            try:
                await self._store.sweep()
            except Exception as error:  # noqa: BLE001 - it is tried again
                logger.error("old jobs can't be thrown away: %s", one_line(error))
            await asyncio.sleep(SWEEP_S)


def _pieces(inputs: Tensors, size: int) -> Iterator[Tensors]:
    """Yield so many rows after the others; all at once where the size is 0."""
    if not size:
        yield inputs
        return
    for start in range(0, row_count(inputs), size):
        yield {name: array[start : start + size] for name, array in inputs.items()}


async def _recorded(
    served: ServedModel, inputs: Tensors, outputs: Tensors, request_id: bytes, seconds: float, first_row: int
) -> None:
    """Record a part of a job, where every answer must be recorded: nobody waits for it, so it waits for room.

    Raises:
        OverloadedError: there is none for long.
    """
    for _ in range(RECORD_TRIES):
        try:
            served.account(inputs, outputs, request_id, seconds, first_row=first_row)
            return
        except OverloadedError:
            await asyncio.sleep(AGAIN_S)
    served.account(inputs, outputs, request_id, seconds, first_row=first_row)


def body_bytes(settings: Settings) -> int:
    """Return the bytes of the largest body of a job."""
    return int(settings.jobs_body_mb * 1e6)


def limits_of(settings: Settings) -> Limits:
    """Return the limits of one job: more rows than a request may have, and memory for its body as a request has."""
    share = settings.max_read_bytes / (READ_PER_BODY * settings.max_body_bytes)
    memory = max(settings.max_read_bytes, int(share * READ_PER_BODY * body_bytes(settings)))
    return Limits(memory, settings.jobs_rows, settings.max_row_values)


def protocols_of(served: ServedModel, limits: Limits) -> dict[bytes, Protocol]:
    """Return what reads and writes a model's jobs, by content type: what `/predict` does."""
    offered, entry = served.offered, served.entry
    found = endpoints_of(served.loaded.artifact)[PREDICT]
    return {
        value: kind(offered if kind.names_inputs else offered.unnamed, entry.name, entry.version, limits)
        for value, kind in found.items()
    }
