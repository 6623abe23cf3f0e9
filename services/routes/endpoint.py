"""Inference over HTTP: admit, read, decode, compute, encode, answer, count. The same for every protocol and model."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import partial

from hone.signature import Tensors

from ..arms.counts import ArmCounts
from ..batching.queue import Trail
from ..http.answers import LargeAnswer
from ..http.bodies import LargeBody
from ..http.failures import MediaTypeError, OverloadedError, is_unexpected, status_of
from ..http.limits import Limits
from ..http.reading import read_body
from ..http.responses import (
    ABORT,
    JSON,
    NO_STORE,
    Body,
    ClientGoneError,
    Fields,
    Head,
    Receive,
    Scope,
    Send,
    error_body,
    media_type,
    require_method,
    respond,
)
from ..protocols.base import CONTENT_TYPE, DEADLINE, Endpoint, Protocol, Request, timeout_of
from ..protocols.tensors import row_count
from .edge import REQUEST_ID, Edge
from .served import ServedModel

logger = logging.getLogger("hone.serving")

CLIENT_GONE = 499
SMALL_DIGITS = 5
"""A body whose length has so few digits is under 100 kB: it is read and decoded without further ado."""


class InferEndpoint:
    """One model at one endpoint.

    Answering is one function, as long as it is: every call more on the way of a small request costs.

    Args:
        endpoint: where it answers.
        served: the model.
        protocols: by the value of the endpoint's header; the one under b"" takes requests without it.
        edge: what stands around it.
        arm: counts the requests, where they come by a split.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        served: ServedModel,
        protocols: Mapping[bytes, type[Protocol]],
        edge: Edge,
        arm: ArmCounts | None = None,
    ) -> None:
        self._label = endpoint.label
        self._arm = arm
        self._arm_name = "" if arm is None else arm.name
        self._mirrored = arm is not None and arm.shadow is not None
        self._count = served.metrics.request if arm is None else self._count_arm
        self._served = served
        entry, limits = served.entry, Limits.of(edge.settings)
        offered = served.offered
        made = {
            kind: kind(offered if kind.names_inputs else offered.unnamed, entry.name, entry.version, limits)
            for kind in set(protocols.values())
        }
        self._protocols = {value: made[kind] for value, kind in protocols.items()}
        self._header = endpoint.header
        self._otherwise = None if endpoint.header == CONTENT_TYPE else self._protocols[b""]
        self._edge = edge
        self._limit = edge.settings.max_body_bytes
        self._bodies = edge.bodies
        self._sizes = served.answer_sizes
        self._answers = edge.answers
        self._small_rows = served.answer_sizes.small_rows
        self._guarded = edge.gate is not None
        self._accounted = edge.collector is not None or (edge.recorder is not None and edge.recorder.complete)
        self._caller = (arm.sticky if arm is not None else b"") or edge.settings.subject_header.lower().encode()
        self._by = "" if arm is None else arm.by
        self._traced = edge.tracer is not None
        self._noted = self._traced or edge.settings.access_log != "off"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        served, metrics = self._served, self._served.metrics
        metrics.in_flight += 1
        head = dict(scope["headers"])
        request: Request | None = None
        large: LargeBody | None = None
        room: LargeAnswer | None = None
        status, problem, rows = CLIENT_GONE, "", 0  # as of who leaves early, which cancels this
        trail: Trail | None = [] if self._traced else None
        try:
            if self._guarded or scope["method"] != "POST":
                await self._admit(scope, head)
            protocol = self._protocols.get(head.get(self._header, b""), self._otherwise) or self._protocol(head)
            if DEADLINE in head:
                served.check_unread(timeout_of(head), started)
            length = head.get(b"content-length")
            if length is not None and len(length) <= SMALL_DIGITS and b"content-encoding" not in head:
                request = protocol.decode(head, await read_body(head, receive, self._limit))
            else:
                large = LargeBody(head, receive, self._limit, self._bodies)
                request = await large.decode(partial(protocol.decode, head), protocol.quick_bytes)
            rows = row_count(request.inputs)
            if rows > self._small_rows:  # before anything is computed: its size shows in the inputs
                room = await self._sizes.room(request.inputs, protocol.in_text(request), self._answers)
            outputs = await served.infer(request.inputs, request.timeout_s, trail, started)
            if room is None and self._sizes.known:
                fields, answer = protocol.encode(request, outputs)
            else:
                room, (fields, answer) = await self._encode(protocol, request, outputs, room)
            if self._accounted:
                self._account(head, request, outputs, time.monotonic() - started)
            status = 200
        except ClientGoneError:
            return
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            status, problem, fields, answer = self._failure(error, head, rows)
        finally:
            seconds = time.monotonic() - started
            metrics.in_flight -= 1
            if large is not None or room is not None:
                room = _release(large, room, status)
            self._count(self._label, status, seconds, rows)
        fields = self._told(fields, head) if REQUEST_ID in head or self._arm is not None else fields
        write = respond if room is None else partial(room.write, abort=scope.get(ABORT))
        await write(send, status, answer, fields)
        if status == 200 and (served.followed or metrics.wants_sample or self._mirrored):
            self._after(request, outputs, head, seconds)  # type: ignore[arg-type]
        if self._noted:
            self._note(head, request, status, problem, seconds, trail)

    def _count_arm(self, label: str, status: int, seconds: float, rows: int) -> None:
        """Count a request for its version, and for its arm."""
        assert self._arm is not None
        self._served.metrics.request(label, status, seconds, rows)
        self._arm.request(status, seconds)

    def _told(self, fields: Fields, head: Head) -> Fields:
        """Return an answer's fields with those that say which request it is for, and which arm it is from."""
        told = [*fields] if self._arm is None else [*fields, self._arm.field]
        return [*told, (REQUEST_ID, self._edge.request_id(head))] if REQUEST_ID in head else told

    def _after(self, request: Request, outputs: Tensors, head: Head, seconds: float) -> None:
        """Show an answered request to who follows."""
        self._served.after(request.inputs, outputs, self._edge.request_id(head), seconds, self._arm_name)
        if self._arm is not None and self._arm.shadow is not None:
            self._arm.shadow.mirror(request.inputs, outputs)

    async def _admit(self, scope: Scope, head: Head) -> None:
        if self._guarded:
            await self._edge.admit(head, "predict", self._served.entry.name)
        require_method(scope, "POST")

    def _account(self, head: Head, request: Request, outputs: Tensors, seconds: float) -> None:
        """Record a request that may not be answered unless it is recorded, and note who got the answer, under the id
        that it will bear."""
        head[REQUEST_ID] = request_id = self._edge.request_id(head)
        self._served.account(request.inputs, outputs, request_id, seconds, self._arm_name)
        self._served.note(request_id, outputs, self._arm_name, self._by, head.get(self._caller), seconds)

    async def _encode(
        self, protocol: Protocol, request: Request, outputs: Tensors, room: LargeAnswer | None
    ) -> tuple[LargeAnswer | None, tuple[Fields, Body]]:
        """Return the room that an answer takes, and the answer."""
        if room is None:
            room = await self._sizes.room_for(outputs, protocol.in_text(request), self._answers)
        if room is None:
            return None, protocol.encode(request, outputs)
        try:
            fields, answer = await room.encode(partial(protocol.encode, request, outputs), self._bodies)
            room.keep(len(answer) + sum(array.nbytes for array in outputs.values()))
            return room, (fields, answer)
        except BaseException:
            room.release()
            raise

    def _note(
        self, head: Head, request: Request | None, status: int, problem: str, seconds: float, trail: Trail | None
    ) -> None:
        """Write the trace and the access log's line."""
        edge, tag = self._edge, self._served.tag
        rows = 0 if request is None else row_count(request.inputs)
        if edge.tracer is not None:
            edge.tracer.record(head, self._label, tag, status, seconds, rows, trail)
        edge.log(edge.request_id(head).decode(), tag, self._label, status, seconds, rows, problem, self._arm_name)

    def _protocol(self, head: Head) -> Protocol:
        """Return the protocol of a content type with parameters or capitals in it; raises MediaTypeError for others."""
        media = media_type(head)
        protocol = self._protocols.get(media)
        if protocol is None:
            known = ", ".join(sorted(name.decode() for name in self._protocols if name))
            raise MediaTypeError(f"content type '{media.decode('latin-1')}' is not supported; send one of: {known}")
        return protocol

    def _failure(self, error: Exception, head: Head, rows: int) -> tuple[int, str, Fields, Body]:
        status, message, headers = status_of(error)
        if isinstance(error, OverloadedError):
            self._served.metrics.shed(error, rows)
        if is_unexpected(error):
            logger.error("request %s failed", self._edge.request_id(head).decode(), exc_info=error)
        fields = [(b"content-type", JSON), NO_STORE, *((name.encode(), value.encode()) for name, value in headers)]
        return status, message, fields, error_body(message)


def _release(large: LargeBody | None, room: LargeAnswer | None, status: int) -> LargeAnswer | None:
    """Give back what a body held, and what the answer does unless it is to be written; return that one."""
    if large is not None:
        large.release()
    if room is None or status == 200:
        return room
    room.release()
    return None
