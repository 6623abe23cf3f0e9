"""The Open Inference Protocol V2 over gRPC: the same models, queue, keys and limits as over HTTP, on a port of its own.

All workers of a server listen on one port (SO_REUSEPORT), and the kernel shares connections between them. The server
uses the certificate that BentoML's server was given.

A call is answered in this order: who calls, from its metadata; then its message is read, and then understood, by our
own code. gRPC is told that each call is a stream of messages from the caller, since it reads a single message before it
asks anybody. On the wire there is no difference.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from hone.errors import HoneError

from ..access.exposure import grpc_host
from ..http.failures import is_unexpected, status_of
from ..http.limits import Limits
from ..http.memory import trim_heap
from ..http.ports import joining
from ..http.responses import Head
from ..http.watch import reserve
from ..routes.edge import Edge
from ..routes.hub import Hub
from ..routes.repository import Repository
from ..settings import Settings
from .calls import MAX_CALLS, OPTIONS, Call, Received, aside, code_of, credentials_of
from .connections import Connections, address_of
from .messages import Messages
from .v2 import parse

logger = logging.getLogger("hone.serving")

SERVICE = "inference.GRPCInferenceService"
STOP_GRACE_S = 20.0
TRIM_BYTES = 1_000_000
TRIM_S = 2.0
"""After a message over TRIM_BYTES the heap is trimmed, once for all that come in so long."""


class GrpcServer:
    """The gRPC server of a worker.

    Args:
        hub: models.
        edge: keys, ids, logs.
        repository: loads and unloads.
    """

    def __init__(self, hub: Hub, edge: Edge, repository: Repository) -> None:
        self._hub = hub
        self._edge = edge
        self._repository = repository
        self._server: Any = None
        self._limits = Limits()
        settings = edge.settings
        self._connections = Connections(settings.max_connections)
        self._messages = Messages(
            edge.bodies, settings.max_body_bytes, settings.bodies_bytes, self._connections.silent_s
        )
        self._trim: asyncio.TimerHandle | None = None
        self.port = 0

    async def start(self, settings: Settings) -> None:
        """Listen on the settings' port.

        Raises:
            HoneError: grpcio isn't installed, or the port is taken.
        """
        try:
            import grpc
        except ImportError:
            raise HoneError("HONE_GRPC_PORT needs grpcio; pip install 'hone[ops]'") from None
        from .methods import Methods

        self._limits = Limits.of(settings)
        self._connections.most = reserve(settings.max_connections)
        self._server = grpc.aio.server(
            options=[
                *OPTIONS,
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.max_allowed_incoming_connections", self._connections.most),
            ],
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        calls = Methods(self._hub, self._edge, self._repository, self._limits).calls()
        handlers = {
            name: grpc.stream_unary_rpc_method_handler(self._answer(call, name)) for name, call in calls.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        host = grpc_host(settings, sys.argv)
        with joining(host, settings.grpc_port, "HONE_GRPC_PORT"):
            self._listen(f"[{host}]:{settings.grpc_port}" if ":" in host else f"{host}:{settings.grpc_port}")
            await self._server.start()
        self._connections.watch(self.port)

    def _listen(self, address: str) -> None:
        credentials = credentials_of(sys.argv)
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise HoneError(f"can't listen on {address} for gRPC; set another HONE_GRPC_PORT") from None
        logger.info("V2 over gRPC on %s%s", address, "" if credentials is None else " with TLS")

    async def stop(self) -> None:
        """Refuse new calls and answer those accepted."""
        if self._server is not None:
            self._connections.close()
            await self._server.stop(STOP_GRACE_S)

    def _answer(self, call: Call, name: str) -> Callable[[Any, Any], Awaitable[bytes]]:
        """Wrap a call: metadata becomes headers, bytes become a message, errors become gRPC's codes."""

        async def answer(_: Any, context: Any) -> bytes:
            if call.action is None:
                # Everybody may call it, so nobody's message is waited for.
                return await self._run(call, Received(call.message(), 0, {}))
            head = {
                key.encode(): value.encode() if isinstance(value, str) else value
                for key, value in context.invocation_metadata() or ()
            }
            left = context.time_remaining()
            if left is not None:
                head[b"x-timeout-ms"] = b"%f" % (left * 1e3)
            try:
                return await self._understood(call, head, context)
            except Exception as error:  # noqa: BLE001 - every error becomes an answer
                code, text, headers = self._refusal(error, name)
            # Aborting raises, and gRPC keeps what it raised in a cycle: out here it doesn't hold the message with it.
            await context.abort(code, text, headers)
            raise AssertionError("unreachable")

        return answer

    async def _understood(self, call: Call, head: Head, context: Any) -> bytes:
        actor = await self._admit(call, head)
        peer = context.peer()
        with self._connections.call(peer):
            raw = await self._messages.read(context, self._caller(head, peer), peer)
            size = len(raw)
            try:
                if size > TRIM_BYTES:
                    self._trim_soon()
                message = await aside(size, parse, raw, call.message, self._limits)
                del raw
                if call.action is not None and call.model:
                    self._edge.permit(head, call.action, getattr(message, call.model))
                return await self._run(call, Received(message, size, head, actor))
            finally:
                self._messages.release(size)

    def _caller(self, head: Head, peer: str) -> str | bytes:
        """Return who shares places to read in: the credential that was admitted, or the address where none is asked."""
        if self._edge.settings.secured:
            return head.get(b"x-api-key") or head.get(b"authorization", b"")
        return address_of(peer)

    @staticmethod
    async def _run(call: Call, received: Received) -> bytes:
        answer: bytes = (await call.run(received)).SerializeToString()
        return answer

    async def _admit(self, call: Call, head: Head) -> str:
        """Return who calls, for the audit log; raises RequestError when they may not, whatever the message says."""
        if call.action is None:
            return ""
        model = None if call.model else ""
        if call.action == "operate":
            return await self._repository.admit(head, model)
        await self._edge.admit(head, call.action, model)
        return ""

    @staticmethod
    def _refusal(error: Exception, name: str) -> tuple[Any, str, tuple[tuple[str, str], ...]]:
        """Return code, details and trailing metadata of an error."""
        status, text, headers = status_of(error)
        if is_unexpected(error):
            logger.error("%s failed", name, exc_info=error)
        return code_of(error, status), text, headers

    def _trim_soon(self) -> None:
        """Give back what large messages left on the heap: gRPC's own buffers come from many threads."""
        if self._trim is None:
            loop = asyncio.get_running_loop()
            self._trim = loop.call_later(TRIM_S, self._trim_now, loop)

    def _trim_now(self, loop: asyncio.AbstractEventLoop) -> None:
        self._trim = None
        loop.run_in_executor(None, trim_heap)
