"""`POST /predict`, as a small ASGI application of its own."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from services.batching import Batcher, Tensors
from services.failures import (
    BodyTooLargeError,
    InferenceError,
    MediaTypeError,
    MethodError,
    OverloadedError,
    status_of,
)
from services.loading import LoadedModel
from services.metrics import Metrics
from services.settings import Settings
from services.tensors import encode_response, parse_request

logger = logging.getLogger("hone.serving")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ClientGoneError(Exception):
    """The caller closed the connection before its body was complete."""


class PredictEndpoint:
    """Reads a request, has it batched and computed, and writes the answer or one clear line of error."""

    def __init__(self, model: LoadedModel, batcher: Batcher, metrics: Metrics, settings: Settings) -> None:
        self._signature = model.artifact.signature
        self._tag = model.entry.tag
        self._batcher = batcher
        self._metrics = metrics
        self._limit = settings.max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        self._metrics.in_flight.inc()
        status, body = 500, b""
        headers: tuple[tuple[str, str], ...] = ()
        try:
            body = encode_response(await self._answer(scope, receive), self._tag)
            status = 200
        except ClientGoneError:
            status = 499
            return
        except Exception as error:  # noqa: BLE001 - every error becomes an answer
            status, headers, body = self._failure(error)
        finally:
            self._metrics.in_flight.dec()
            self._metrics.request(status, time.perf_counter() - started)
        await respond(send, status, body, headers)

    async def _answer(self, scope: Scope, receive: Receive) -> Tensors:
        check_head(scope)
        body = await read_body(scope, receive, self._limit)
        return await self._batcher.submit(parse_request(body, self._signature))

    async def compute(self, body: bytes) -> bytes:
        """Answer a JSON body that came another way than through HTTP; raises what `status_of` knows."""
        return encode_response(await self._batcher.submit(parse_request(body, self._signature)), self._tag)

    @staticmethod
    def _failure(error: Exception) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
        status, message, headers = status_of(error)
        if status == 500 and not isinstance(error, InferenceError):
            logger.error("request failed", exc_info=error)
        return status, headers, error_body(message)


def error_body(message: str) -> bytes:
    import orjson

    return orjson.dumps({"error": message})


def check_head(scope: Scope) -> None:
    """Refuse what can't be a prediction before its body is read."""
    if scope["method"] != "POST":
        raise MethodError(f"{scope['method']} is not supported here; use POST", (("allow", "POST"),))
    media = header(scope, b"content-type").partition(b";")[0].strip().lower()
    if media not in (b"", b"application/json"):
        raise MediaTypeError(f"content type '{media.decode('latin-1')}' is not supported; send application/json")
    if header(scope, b"content-encoding") not in (b"", b"identity"):
        raise MediaTypeError("content encodings are not supported; send the JSON as it is")


def header(scope: Scope, name: bytes) -> bytes:
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return b""


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the request's body; a body over the limit is refused as soon as that shows."""
    declared = header(scope, b"content-length")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        chunks.append(chunk)
        if not message.get("more_body"):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _too_large(limit: int) -> BodyTooLargeError:
    # The rest of the body is not read, so the connection can't be used again.
    return BodyTooLargeError(
        f"the body is over the limit of {limit / 1e6:g} MB; send fewer rows, or raise HONE_MAX_BODY_MB",
        (("connection", "close"),),
    )


async def respond(send: Send, status: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> None:
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", b"application/json"),
                (b"content-length", str(len(body)).encode()),
                *((name.encode(), value.encode()) for name, value in headers),
            ],
        }
    )
    await send({"type": "http.response.body", "body": body})


async def not_ready(send: Send) -> None:
    status, message, headers = status_of(OverloadedError("the model is still loading"))
    await respond(send, status, error_body(message), headers)
