"""What stands around every endpoint of a worker: who may call, what is logged, traced, cached and recorded."""

from __future__ import annotations

import asyncio
import itertools
import logging
import secrets
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import TYPE_CHECKING

from ..arms.counts import SharedArms
from ..http.bodies import Bodies
from ..http.budget import Budget
from ..http.failures import OverloadedError
from ..http.responses import Head
from ..observe.statistics import SharedStatistics
from ..settings import Settings

if TYPE_CHECKING:
    from hone.audit import Audit

    from ..access.callers import Action, Caller
    from ..access.gate import Gate, OpenGate
    from ..cache.predictions import PredictionCache
    from ..feedback.collector import Collected, Collector
    from ..observe.drift import Sketched, Sketcher
    from ..observe.recording import Recorded, Recorder
    from ..observe.tracing import Tracer

logger = logging.getLogger("hone.access")

REQUEST_ID = b"x-request-id"
MAX_REQUEST_ID = 128
MOST_REFUSALS = 10
"""Refused requests that get a line of the log each, a second."""


@dataclass
class Edge:
    """Shared by all endpoints; a part that is off is None and costs one comparison.

    Attributes:
        settings: of the worker.
        gate: None lets everybody call, as often as they like.
        cache: of predictions.
        cache_epoch: part of its keys; another forgets what is in it.
        recorder: of sampled traffic.
        sketcher: of what traffic looks like.
        collector: of who got which answer, and of feedback.
        tracer: of sampled requests.
        audit: of admin actions.
        statistics: of the models.
        arms: what those of splits have done.
        bodies: the larger ones that are held at once.
        answers: a budget of as many bytes for larger answers. Who waits for it holds a body, never the other way round.
    """

    settings: Settings
    gate: Gate | OpenGate | None = None
    cache: PredictionCache | None = None
    cache_epoch: str = ""
    recorder: Recorder | None = None
    sketcher: Sketcher | None = None
    collector: Collector | None = None
    tracer: Tracer | None = None
    audit: Audit | None = None
    statistics: SharedStatistics = field(default_factory=SharedStatistics)
    arms: SharedArms = field(default_factory=SharedArms)
    bodies: Bodies = field(init=False)
    answers: Budget = field(init=False)
    _counted: dict[str, Recorded | Sketched | Collected] = field(default_factory=dict)
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4))
    _logged: int = 0
    _logged_since: float = 0.0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.bodies = Bodies(self.settings.bodies_bytes)
        self.answers = Budget(self.settings.bodies_bytes, what="large answers")

    def request_id(self, head: Head) -> bytes:
        """Return the caller's request id when it is a plain one, else a new one."""
        given = head.get(REQUEST_ID)
        if given and len(given) <= MAX_REQUEST_ID and given.isascii() and given.decode().isprintable():
            return given
        return b"%s-%x" % (self._prefix.encode(), next(self._numbers))

    async def admit(self, head: Head, action: Action, model: str | None = "") -> Caller | None:
        """Return who calls, None where everybody may.

        Args:
            action: what they want.
            model: that it concerns, if one; None where that isn't known yet: `permit` decides then.

        Raises:
            UnauthorizedError, ForbiddenError, RateLimitedError: they may not.
        """
        if self.gate is None:
            return None
        authorization, key = head.get(b"authorization", b""), head.get(b"x-api-key", b"")
        caller = self.gate.admit_now(authorization, key, action, model)
        return caller if caller is not None else await self.gate.admit(authorization, key, action, model)

    def permit(self, head: Head, action: Action, model: str) -> None:
        """Check that a caller who was admitted before the model was known may do it to this model.

        Raises:
            UnauthorizedError, ForbiddenError: they may not.
        """
        if self.gate is not None:
            self.gate.permit(head.get(b"authorization", b""), head.get(b"x-api-key", b""), action, model)

    def log(
        self,
        request_id: str,
        model: str,
        protocol: str,
        status: int,
        seconds: float,
        rows: int,
        problem: str,
        arm: str = "",
    ) -> None:
        """Write the access log's line: no address, no caller, no inputs, and only what went wrong by default."""
        wanted = self.settings.access_log
        if wanted == "off" or (wanted == "errors" and status < 500 and status not in (401, 403, 429)):
            return
        if wanted == "errors" and status == OverloadedError.status and not self._has_room_in_log():
            return
        logger.info(
            "%s %s %d %.1f ms",
            model,
            protocol,
            status,
            seconds * 1e3,
            extra={
                "fields": {
                    "request_id": request_id,
                    "model": model,
                    "protocol": protocol,
                    "status": status,
                    "ms": round(seconds * 1e3, 3),
                    "rows": rows,
                    **({"arm": arm} if arm else {}),
                    **({"problem": problem} if problem else {}),
                }
            },
        )

    def _has_room_in_log(self) -> bool:
        """Return whether a refusal gets its line: under overload they are thousands a second, and each line costs as
        much as the refusal itself."""
        now = monotonic()
        if now - self._logged_since >= 1.0:
            left_out, self._logged_since = self._logged - MOST_REFUSALS, now
            self._logged = 0
            if left_out > 0:
                logger.warning("%d more requests were refused within a second; they have no line each", left_out)
        self._logged += 1
        return self._logged <= MOST_REFUSALS

    def flush(self) -> None:
        """Bring the metrics up to date."""
        if self.gate is not None:
            from ..observe.metrics import key_file_stale

            key_file_stale().set(self.gate.stale)
        for part in ("recorder", "sketcher", "collector"):
            keeper = getattr(self, part)
            if keeper is None:
                continue
            from ..observe.metrics import kept_counters

            before, now = self._counted.get(part), replace(keeper.stats)
            for name, counter in kept_counters(part).items():
                counter.inc(getattr(now, name) - getattr(before, name, 0))
            self._counted[part] = now

    async def close(self, timeout_s: float) -> None:
        """Write out what is buffered; a disk, a collector or a cache that doesn't answer is given up in time."""
        self.bodies.close()
        closing: list[Awaitable[None]] = []
        if self.recorder is not None:
            closing.append(asyncio.to_thread(self.recorder.close, timeout_s))
        if self.sketcher is not None:
            closing.append(asyncio.to_thread(self.sketcher.close, timeout_s))
        if self.collector is not None:
            closing.append(asyncio.to_thread(self.collector.close, timeout_s))
        if self.cache is not None:
            closing.append(asyncio.wait_for(self.cache.close(), timeout_s))
        if self.gate is not None:
            closing.append(asyncio.wait_for(self.gate.close(), timeout_s))
        if self.tracer is not None:
            closing.append(asyncio.to_thread(self.tracer.close, timeout_s))
        for problem in await asyncio.gather(*closing, return_exceptions=True):
            if isinstance(problem, Exception):
                logging.getLogger("hone.serving").warning("not closed in order: %r", problem)
