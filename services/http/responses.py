"""Heads and answers: the little of HTTP, as ASGI speaks it, that endpoints need. Bodies are read by reading.py."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

import orjson

from .failures import MethodError, status_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Head = dict[bytes, bytes]
"""Headers by lower-case name; of a repeated header the last one counts."""

Fields = list[tuple[bytes, bytes]]
Body = bytes | bytearray | memoryview

ABORT = "hone.abort"
"""In a request's scope: closes its connection, whatever is still to be written."""

JSON = b"application/json"
BINARY = b"application/octet-stream"
OFFLOAD_BYTES = 65_536
"""A body over this size is unpacked and decoded in a thread: it would hold the event loop for milliseconds."""

PIECE_BYTES = 262_144
"""A large answer is handed over in pieces, each when the one before has nearly gone: what isn't read isn't copied."""

NO_SNIFF = (b"x-content-type-options", b"nosniff")
NO_STORE = (b"cache-control", b"no-store")


class ClientGoneError(Exception):
    """The caller closed the connection before its body was complete."""


def require_method(scope: Scope, method: str) -> None:
    """Raise MethodError unless the request uses this method."""
    if scope["method"] != method:
        raise MethodError(f"{scope['method']} is not supported here; use {method}", (("allow", method),))


def media_type(head: Head) -> bytes:
    """Return the content type without its parameters, in lower case."""
    return head.get(b"content-type", b"").partition(b";")[0].strip().lower()


async def respond(send: Send, status: int, body: Body, fields: Fields) -> None:
    """Send a whole answer; the body may be a view of a tensor, which is not copied here."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, NO_SNIFF, *fields]})
    await send({"type": "http.response.body", "body": body})


async def respond_in_pieces(send: Send, status: int, body: Body, fields: Fields) -> AsyncIterator[int]:
    """Send a whole answer piece by piece; yields the bytes of each when the connection has taken it."""
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, NO_SNIFF, *fields]})
    view = memoryview(body)
    for start in range(0, len(view), PIECE_BYTES):
        piece = view[start : start + PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        yield len(piece)
    await send({"type": "http.response.body", "body": b""})


async def respond_json(send: Send, status: int, content: Any, fields: Fields | None = None) -> None:
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    await respond(send, status, body, [(b"content-type", JSON), NO_STORE, *(fields or [])])


async def respond_error(send: Send, error: Exception, fields: Fields | None = None) -> None:
    """Answer with an error's status, message and headers."""
    status, message, headers = status_of(error)
    more = [(name.encode(), value.encode()) for name, value in headers]
    await respond_json(send, status, error_body(message), [*(fields or []), *more])


def error_body(message: str) -> bytes:
    return orjson.dumps({"error": message})
