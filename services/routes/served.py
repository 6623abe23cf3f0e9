"""A model in service: its runtime, its lane, and what happens around an inference."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import Executor
from time import monotonic, perf_counter
from typing import TYPE_CHECKING

from hone.errors import one_line
from hone.golden.check import Checked, differing
from hone.hardware import cores
from hone.signature import Signature, Tensors
from hone.steps.answer import computed
from hone.traffic.answered import kept_outputs, picked

from ..batching.lane import Lane
from ..batching.options import LaneOptions
from ..batching.padding import Joiner
from ..batching.priority import pool_behind
from ..batching.queue import Trail
from ..batching.scheduler import Scheduler
from ..batching.stepping import Stepping
from ..http.answers import AnswerSizes
from ..http.failures import OverloadedError, StoppingError
from ..http.limits import Limits
from ..http.memory import release_memory
from ..models.examples import example_inputs
from ..models.loading import LoadedModel
from ..observe.metrics import Metrics
from ..observe.record_table import parse_hidden
from .edge import Edge

if TYPE_CHECKING:
    from ..cache.predictions import PredictionCache
    from ..observe.shadow import Shadow

logger = logging.getLogger("hone.serving")

CLOSE_TIMEOUT_S = 30.0
PAUSE_S = 0.02
"""Between two golden rows, which are asked for while callers' requests are answered."""
PATIENCE_S = 1.0
"""That a golden row waits for a moment without requests."""


class ServedModel:
    """One version of a model, ready to answer.

    Args:
        loaded: verified, warm and calibrated.
        scheduler: of the worker.
        edge: of the worker.

    Attributes:
        tag: name and version.
        offered: what callers give and get.
        number: stands for the version where a client takes only numbers: when the artifact was made, in digits, so that
            a later one has a higher number, and four digits of its digest. Every worker and replica gives the same.
    """

    def __init__(self, loaded: LoadedModel, scheduler: Scheduler, edge: Edge) -> None:
        self.loaded = loaded
        self.entry = loaded.entry
        self.tag = loaded.entry.tag
        manifest = loaded.artifact.manifest
        made = "".join(filter(str.isdigit, manifest.created.partition("+")[0]))
        self.number = f"{made}{int(manifest.digest[:8], 16) % 10_000:04}".lstrip("0") or "0"
        self.metrics = Metrics(loaded.entry.name, loaded.entry.version, edge.statistics.of(self.tag))
        self.metrics.pinned(loaded.prepared.given)
        if edge.sketcher is not None:
            self.metrics.follower = edge.sketcher.follow(loaded.entry.name, loaded.entry.version, loaded.artifact)
        self._about = (loaded.entry.name, loaded.entry.version)
        self._kept = kept_outputs(loaded.artifact.signature, [*parse_hidden(edge.settings.record_exclude)])
        self._shadow: Shadow | None = None
        self.followed = edge.recorder is not None
        self._edge = edge
        self._cache = edge.cache
        self._digest = loaded.artifact.manifest.digest + edge.cache_epoch if edge.cache is not None else ""
        plan = loaded.plan
        self._executor: Executor | None = None
        if not plan.inline:
            self._executor = pool_behind(edge.settings.inference_nice, plan.in_flight, "inference")
        signature, self.offered = loaded.artifact.signature, loaded.offered
        joiner = Joiner(signature, pad=plan.pad) if signature.batchable else None
        self._stepping: Stepping | None = None
        limits = Limits.of(edge.settings)
        if loaded.steps is not None:
            share = max(1, cores() // max(1, edge.settings.workers))
            self._stepping = Stepping(loaded.steps, signature, joiner, share, edge.settings.queue_rows, limits)
        # With steps neither the inputs' shapes nor those of the outputs tell the size of an answer.
        self.answer_sizes = AnswerSizes(signature if loaded.steps is None else Signature(inputs=()), limits)
        default = edge.settings.default_timeout_ms
        self._default_timeout_s = default / 1e3 if default else None
        self._behind = 0  # requests that nobody waits for
        self._lane = Lane(
            scheduler,
            loaded.runtime.run,
            joiner,
            LaneOptions(
                max_batch_rows=plan.max_batch_rows,
                max_queue_rows=max(edge.settings.queue_rows, plan.max_batch_rows),
                max_batch_cells=plan.max_batch_cells,
                in_flight=plan.in_flight,
                threads=plan.threads,
                executor=self._executor,
            ),
            observe=self.metrics.batch,
            observe_solo=self.metrics.solo,
            latency=loaded.prepared.latency,
        )

    @property
    def shadow(self) -> Shadow | None:
        """What gets a copy of the requests."""
        return self._shadow

    @shadow.setter
    def shadow(self, shadow: Shadow | None) -> None:
        self._shadow = shadow
        self.followed = shadow is not None or self._edge.recorder is not None

    @property
    def failures_in_a_row(self) -> int:
        return self._lane.failures_in_a_row

    async def compare(self) -> Checked | None:
        """Ask for the golden rows, one at a time between the callers' requests, and compare with the proof's answers.

        Returns:
            What was found; None when there are no golden rows, or the worker is too busy or about to stop.
        """
        rows, golden = self.loaded.golden, self.loaded.artifact.manifest.golden
        if rows is None or golden is None:
            return None
        started, parts = monotonic(), []
        for index in range(rows.count):
            patience = monotonic() + PATIENCE_S
            while not self._lane.idle and monotonic() < patience:
                await asyncio.sleep(PAUSE_S)
            try:
                parts.append(await self._lane.submit(rows.slice(index, index + 1), alone=True))
            except (OverloadedError, StoppingError):
                return None
            except Exception as error:  # noqa: BLE001 - whatever it is, it isn't the proof's answer
                return Checked(index + 1, monotonic() - started, (f"it fails: {one_line(error)}",))
            await asyncio.sleep(PAUSE_S)
        problems = await asyncio.to_thread(differing, rows, golden.outputs, parts, rows.count)
        return Checked(rows.count, monotonic() - started, problems)

    async def works(self) -> bool:
        """Return whether the runtime answers the artifact's example rows; forgets the failures when it does."""
        try:
            await self._lane.submit(example_inputs(self.loaded.artifact))
        except Exception:  # noqa: BLE001 - whatever it is, it doesn't work
            return False
        return True

    def check_unread(self, timeout_s: float | None, since: float) -> None:
        """Refuse a request whose body isn't read yet when it can't be in time, whatever it brings.

        Args:
            timeout_s: how long the caller waits; None: that isn't known yet.
            since: of `time.monotonic`, from when.

        Raises:
            DeadlineError: it can't. One that the cache may hold is never refused so.
        """
        if timeout_s is not None and self._cache is None:
            self._lane.check_unread(since + timeout_s)

    async def infer(
        self, inputs: Tensors, timeout_s: float | None = None, trail: Trail | None = None, since: float | None = None
    ) -> Tensors:
        """Return the outputs of checked inputs, from the cache where it holds them; of rows as callers have them the
        answer that the model's steps make.

        Args:
            inputs: of the model, in signature order, or what callers give.
            timeout_s: how long the caller waits.
            trail: gets (seconds in the queue, seconds in the runtime, rows of the batch) of each part.
            since: of `time.monotonic`, from when the caller waits; None: from now on.

        Raises:
            OverloadedError, DeadlineError, StoppingError: refused; InferenceError: the runtime failed.
        """
        if timeout_s is None:
            timeout_s = self._default_timeout_s
        deadline = None if timeout_s is None else (monotonic() if since is None else since) + timeout_s
        if self._stepping is not None:
            if self._stepping.takes(inputs):
                return await self._stepping.answer(inputs, lambda made: self._computed(made, deadline, trail))
            self._stepping.check(inputs)
        return await self._computed(inputs, deadline, trail)

    async def infer_behind(self, inputs: Tensors) -> Tensors:
        """Return the outputs of rows that nobody waits for: they are computed when no caller's are, or at least after
        `PATIENCE_S`, so that they come on under any load. Raises as `infer`; not for a retired model.
        """
        patience = monotonic() + PATIENCE_S
        self._behind += 1
        try:
            while not self._lane.idle and monotonic() < patience:
                await asyncio.sleep(PAUSE_S)
            return await self.infer(inputs)
        finally:
            self._behind -= 1

    async def _computed(self, inputs: Tensors, deadline: float | None, trail: Trail | None) -> Tensors:
        if self._cache is None:
            return await self._lane.submit(inputs, deadline, trail)
        return await self._cached(self._cache, inputs, deadline, trail)

    async def _cached(
        self, cache: PredictionCache, inputs: Tensors, deadline: float | None, trail: Trail | None
    ) -> Tensors:
        from ..cache.predictions import request_key

        began, metrics = perf_counter(), self.metrics
        key = request_key(self._digest, inputs)
        known = cache.peek(key)
        if known is not None:
            metrics.cache("memory_hit", perf_counter() - began)
            return known
        if deadline is not None:
            # A request in a hurry computes by itself: joined with another it would inherit that one's deadline.
            metrics.cache("miss", perf_counter() - began)
            outputs = await self._lane.submit(inputs, deadline, trail)
            cache.remember(key, outputs)
            return outputs

        def observe(result: str) -> None:
            metrics.cache(result, perf_counter() - began)

        return await cache.get_or_compute(key, lambda: self._lane.submit(inputs, None, trail), observe)

    def account(
        self, inputs: Tensors, outputs: Tensors, request_id: bytes, seconds: float, arm: str = "", first_row: int = 0
    ) -> None:
        """Record a request before it is answered, where every answer must be recorded.

        Raises:
            OverloadedError: it can't be, so it must not be answered.
        """
        if self._edge.recorder is not None and self._edge.recorder.complete:
            inputs, outputs = computed(inputs, outputs)
            about = (self.entry.name, self.entry.version, request_id.decode())
            self._edge.recorder.require(*about, inputs, outputs, seconds, arm, first_row)

    def note(
        self, request_id: bytes, outputs: Tensors, arm: str, by: str, caller: bytes | None, seconds: float
    ) -> None:
        """Note who got an answer, where feedback may come; never waits and never fails.

        Args:
            arm, by: of the split that the request came by.
            caller: what the header says that tells callers apart.
            seconds: that the answer took.
        """
        if self._edge.collector is not None:
            self._edge.collector.note(self._about, request_id, self.noted(outputs), arm, by, caller, seconds)

    def noted(self, outputs: Tensors) -> Tensors:
        """Return what `note` keeps of an answer: the model's small outputs."""
        return picked(computed({}, outputs)[1], self._kept)

    # `followed` says whether `after` has more to do than an occasional sample.
    def after(self, inputs: Tensors, outputs: Tensors, request_id: bytes, seconds: float, arm: str = "") -> None:
        """Feed drift, recorder and shadow with an answered request; never waits and never fails."""
        inputs, outputs = computed(inputs, outputs)
        if self.metrics.wants_sample:
            self.metrics.sample(inputs, outputs)
        if self._edge.recorder is not None and not self._edge.recorder.complete:
            self._edge.recorder.offer(
                self.entry.name, self.entry.version, request_id.decode(), inputs, outputs, seconds, arm
            )
        if self.shadow is not None:
            self.shadow.mirror(inputs, outputs)

    def flush(self) -> None:
        """Bring the metrics up to date."""
        self.metrics.waiting_rows = self._lane.queue.rows
        self.metrics.flush()

    async def close(self) -> None:
        """Answer what was accepted, then give the model's memory back to the system."""
        if self.shadow is not None:
            await self.shadow.close()
        # Requests that were routed here before the routes changed may still be reading their bodies.
        patience = monotonic() + CLOSE_TIMEOUT_S
        while (self.metrics.in_flight or self._behind) and monotonic() < patience:
            await asyncio.sleep(0.01)
        try:
            await self._lane.close(CLOSE_TIMEOUT_S)
        except TimeoutError:
            logger.error("%s: a batch did not end in %g s; it is left behind", self.tag, CLOSE_TIMEOUT_S)
            return
        if self._executor is not None:
            for _ in range(self.loaded.plan.in_flight):
                self._executor.submit(self.loaded.runtime.leave_thread)
            self._executor.shutdown(wait=False)
        if self._stepping is not None:
            self._stepping.close()
        self.metrics.forget()
        self.loaded.runtime.close()
        del self.loaded, self._lane
        release_memory()
