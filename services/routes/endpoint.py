"""Inference over HTTP: admit, read, decode, compute, encode, answer, count. The same for every protocol and model."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from hone.signature import Tensors

from ..batching.queue import Trail
from ..http.answers import LargeAnswer
from ..http.bodies import LargeBody
from ..http.failures import MediaTypeError, OverloadedError, is_unexpected, status_of
from ..http.limits import Limits
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
    read_body,
    require_method,
    respond,
)
from ..protocols.base import CONTENT_TYPE, Endpoint, Protocol, Request
from ..protocols.tensors import row_count
from .edge import REQUEST_ID, Edge
from .served import ServedModel

logger = logging.getLogger("hone.serving")

CLIENT_GONE = 499
SMALL_DIGITS = 5
"""A body whose length has so few digits is under 100 kB: it is read and decoded without further ado."""


@dataclass(slots=True)
class _Exchange:
    """A request on its way, and what is held for it.

    Attributes:
        head: of the request.
        trail: of a traced one.
        request: once it is understood.
        rows: of it.
        large: its body, when it is no small one.
        room: that its answer takes, when it is no small one.
    """

    head: Head
    trail: Trail | None
    request: Request | None = None
    rows: int = 0
    large: LargeBody | None = None
    room: LargeAnswer | None = None


class InferEndpoint:
    """One model at one endpoint.

    Args:
        endpoint: where it answers.
        served: the model.
        protocols: by the value of the endpoint's header; the one under b"" takes requests without it.
        edge: what stands around it.
    """

    def __init__(
        self, endpoint: Endpoint, served: ServedModel, protocols: Mapping[bytes, type[Protocol]], edge: Edge
    ) -> None:
        self._label = endpoint.label
        self._served = served
        entry, limits = served.entry, Limits.of(edge.settings)
        signature = served.loaded.artifact.signature
        made = {kind: kind(signature, entry.name, entry.version, limits) for kind in set(protocols.values())}
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
        self._accounted = edge.recorder is not None and edge.recorder.complete
        self._traced = edge.tracer is not None
        self._noted = self._traced or edge.settings.access_log != "off"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        served = self._served
        metrics = served.metrics
        metrics.in_flight += 1
        head = dict(scope["headers"])
        exchange = _Exchange(head, [] if self._traced else None)
        status, problem = 200, ""
        try:
            outputs, (fields, answer) = await self._answer(exchange, scope, receive, started)
        except ClientGoneError:
            status = CLIENT_GONE
            return
        except asyncio.CancelledError:
            status = CLIENT_GONE
            raise
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            status, problem, fields, answer = self._failure(error, head)
        finally:
            seconds = time.perf_counter() - started
            metrics.in_flight -= 1
            if exchange.large is not None:
                exchange.large.release()
            if exchange.room is not None and status != 200:
                exchange.room.release()
                exchange.room = None
            metrics.request(self._label, status, seconds, exchange.rows)
        if REQUEST_ID in head:
            fields = [*fields, (REQUEST_ID, self._edge.request_id(head))]
        if exchange.room is None:
            await respond(send, status, answer, fields)
        else:
            await exchange.room.write(send, status, answer, fields, scope.get(ABORT))
        if status == 200 and (served.followed or metrics.wants_sample):
            served.after(exchange.request.inputs, outputs, self._edge.request_id(head), seconds)  # type: ignore[union-attr]
        if self._noted:
            self._note(exchange, status, problem, seconds)

    async def _answer(
        self, exchange: _Exchange, scope: Scope, receive: Receive, started: float
    ) -> tuple[Tensors, tuple[Fields, Body]]:
        """Return the outputs, and the answer that they make; notes in the exchange how far it came."""
        served, head = self._served, exchange.head
        if self._guarded:
            await self._edge.admit(head, "predict", served.entry.name)
        if scope["method"] != "POST":
            require_method(scope, "POST")
        protocol = self._protocols.get(head.get(self._header, b""), self._otherwise) or self._protocol(head)
        length = head.get(b"content-length")
        if length is not None and len(length) <= SMALL_DIGITS and b"content-encoding" not in head:
            request = protocol.decode(head, await read_body(head, receive, self._limit))
        else:
            large = exchange.large = LargeBody(head, receive, self._limit, self._bodies)
            request = await large.decode(partial(protocol.decode, head), protocol.quick_bytes)
        exchange.request = request
        exchange.rows = rows = row_count(request.inputs)
        if rows > self._small_rows:
            # Before anything is computed: its size shows in the inputs.
            exchange.room = await self._sizes.room(request.inputs, protocol.in_text(request), self._answers)
        outputs = await served.infer(request.inputs, request.timeout_s, exchange.trail)
        if exchange.room is None and self._sizes.known:
            answer = protocol.encode(request, outputs)
        else:
            exchange.room, answer = await self._encode(protocol, request, outputs, exchange.room)
        if self._accounted:
            head[REQUEST_ID] = request_id = self._edge.request_id(head)
            served.account(request.inputs, outputs, request_id, time.perf_counter() - started)
        return outputs, answer

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

    def _note(self, exchange: _Exchange, status: int, problem: str, seconds: float) -> None:
        """Write the trace and the access log's line."""
        edge, tag, head, rows = self._edge, self._served.tag, exchange.head, exchange.rows
        if edge.tracer is not None:
            edge.tracer.record(head, self._label, tag, status, seconds, rows, exchange.trail)
        edge.log(edge.request_id(head).decode(), tag, self._label, status, seconds, rows, problem)

    def _protocol(self, head: Head) -> Protocol:
        """Return the protocol of a content type with parameters or capitals in it; raises MediaTypeError for others."""
        media = media_type(head)
        protocol = self._protocols.get(media)
        if protocol is None:
            known = ", ".join(sorted(name.decode() for name in self._protocols if name))
            raise MediaTypeError(f"content type '{media.decode('latin-1')}' is not supported; send one of: {known}")
        return protocol

    def _failure(self, error: Exception, head: Head) -> tuple[int, str, Fields, Body]:
        status, message, headers = status_of(error)
        if isinstance(error, OverloadedError):
            self._served.metrics.shed(error.reason)
        if is_unexpected(error):
            logger.error("request %s failed", self._edge.request_id(head).decode(), exc_info=error)
        fields = [(b"content-type", JSON), NO_STORE, *((name.encode(), value.encode()) for name, value in headers)]
        return status, message, fields, error_body(message)
