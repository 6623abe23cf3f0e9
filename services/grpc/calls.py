"""What stands around a gRPC call: its method, its status, the server's options."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..access.callers import Action
from ..access.exposure import option
from ..http.failures import DeadlineError
from ..http.responses import OFFLOAD_BYTES, Head

MAX_CALLS = 1024
"""Calls of one worker at a time; more are answered with RESOURCE_EXHAUSTED."""

MAX_STREAMS = 512
"""Calls of one connection at a time; a client keeps more to itself until others are answered."""

MAX_PENDING = 4096
"""Calls that have come and that the worker hasn't looked at yet. gRPC ends more without a status (CANCELLED), and by
itself it does so with some from 1,000 on."""

OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", 16_384),
    ("grpc.max_concurrent_streams", MAX_STREAMS),
    ("grpc.http.overload_protection", 0),  # it counts answered calls, too, and refuses good ones
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", MAX_PENDING),
    ("grpc.so_reuseport", 1),
    ("grpc.http2.bdp_probe", 0),  # an unread message takes 64 kB; a fast line would raise that to megabytes
    ("grpc.keepalive_time_ms", 60_000),  # a caller whose machine went away
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.max_connection_idle_ms", 60_000),  # clients connect again by themselves
    ("grpc.server_handshake_timeout_ms", 10_000),
]


@dataclass(frozen=True)
class Call:
    """One method of the service.

    Attributes:
        message: the kind that it takes.
        run: gives the answer to a received message.
        action: that callers need a scope for, which is checked before anything is read; None: everybody may, and
            nothing is read: the message has no fields.
        model: the message's field that names the model; the scope for that one is checked when it is read.
    """

    message: Any
    run: Callable[[Received], Awaitable[Any]]
    action: Action | None = None
    model: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """A message, and who sent it.

    Attributes:
        message: parsed.
        size: of its bytes.
        head: the call's metadata, as headers.
        actor: who calls, for the audit log; of admin actions only.
    """

    message: Any
    size: int
    head: Head
    actor: str = ""


async def aside(size: int, function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function, in a thread where it works on so much that it would hold the event loop up."""
    if size <= OFFLOAD_BYTES:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


def code_of(error: Exception, status: int) -> Any:
    import grpc

    codes = grpc.StatusCode
    if isinstance(error, DeadlineError):
        return codes.DEADLINE_EXCEEDED
    return {
        401: codes.UNAUTHENTICATED, 403: codes.PERMISSION_DENIED, 404: codes.NOT_FOUND, 413: codes.RESOURCE_EXHAUSTED,
        422: codes.FAILED_PRECONDITION, 429: codes.RESOURCE_EXHAUSTED, 500: codes.INTERNAL, 503: codes.UNAVAILABLE,
    }.get(status, codes.INVALID_ARGUMENT)  # fmt: skip


def credentials_of(arguments: Sequence[str]) -> Any:
    """Return the server's TLS credentials when BentoML's worker was given a certificate."""
    import grpc

    certificate, key = option(arguments, "--ssl-certfile"), option(arguments, "--ssl-keyfile")
    if not certificate:
        return None
    return grpc.ssl_server_credentials([(Path(key or certificate).read_bytes(), Path(certificate).read_bytes())])
