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
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from hone import __version__
from hone.errors import HoneError

from ..access.exposure import grpc_host
from ..http.failures import DeadlineError, InferenceError, NotFoundError, OverloadedError, StoppingError, status_of
from ..http.limits import Limits
from ..http.memory import trim_heap
from ..http.ports import joining
from ..http.responses import Head
from ..http.watch import reserve
from ..protocols.tensors import row_count
from ..routes.edge import Edge
from ..routes.hub import Hub
from ..settings import Settings
from .calls import MAX_CALLS, OPTIONS, Call, Received, aside, code_of, credentials_of
from .connections import Connections, address_of
from .messages import Messages
from .v2 import decode, encode, parse, plain_parameters, timeout_s, wanted

if TYPE_CHECKING:
    from ..routes.management import Management

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
        management: loads and unloads.
    """

    def __init__(self, hub: Hub, edge: Edge, management: Management) -> None:
        self._hub = hub
        self._edge = edge
        self._management = management
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
            raise HoneError("HONE_GRPC_PORT needs grpcio; install the [ops] extra") from None
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
        handlers = {
            name: grpc.stream_unary_rpc_method_handler(self._answer(call, name)) for name, call in self._calls().items()
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

    def _calls(self) -> dict[str, Call]:
        from . import v2_pb2 as pb

        return {
            "ServerLive": Call(pb.ServerLiveRequest, self._live),
            "ServerReady": Call(pb.ServerReadyRequest, self._ready),
            "ModelReady": Call(pb.ModelReadyRequest, self._model_ready, "read", "name"),
            "ServerMetadata": Call(pb.ServerMetadataRequest, self._server_metadata, "read"),
            "ModelMetadata": Call(pb.ModelMetadataRequest, self._model_metadata, "read", "name"),
            "ModelConfig": Call(pb.ModelConfigRequest, self._model_config, "read", "name"),
            "ModelInfer": Call(pb.ModelInferRequest, self._infer, "predict", "model_name"),
            "RepositoryIndex": Call(pb.RepositoryIndexRequest, self._index, "list"),
            "RepositoryModelLoad": Call(pb.RepositoryModelLoadRequest, self._load, "admin", "model_name"),
            "RepositoryModelUnload": Call(pb.RepositoryModelUnloadRequest, self._unload, "admin", "model_name"),
        }

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
        if call.action == "admin":
            return await self._management.admit_admin(head, model)
        await self._edge.admit(head, call.action, model)
        return ""

    @staticmethod
    def _refusal(error: Exception, name: str) -> tuple[Any, str, tuple[tuple[str, str], ...]]:
        """Return code, details and trailing metadata of an error."""
        status, text, headers = status_of(error)
        if status == 500 and not isinstance(error, InferenceError):
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

    async def _live(self, _: Received) -> Any:
        from . import v2_pb2 as pb

        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _: Received) -> Any:
        from . import v2_pb2 as pb

        return pb.ServerReadyResponse(ready=not self._management.draining and bool(self._hub.routes))

    async def _model_ready(self, received: Received) -> Any:
        from . import v2_pb2 as pb

        request = received.message
        try:
            self._hub.get(request.name, request.version)
        except NotFoundError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def _server_metadata(self, _: Received) -> Any:
        from ..routes.metadata import EXTENSIONS
        from . import v2_pb2 as pb

        return pb.ServerMetadataResponse(name="hone", version=__version__, extensions=EXTENSIONS)

    async def _model_metadata(self, received: Received) -> Any:
        from ..routes.metadata import model_metadata
        from . import v2_pb2 as pb

        request = received.message
        served = self._hub.get(request.name, request.version)
        return pb.ModelMetadataResponse(**model_metadata(served, self._hub.versions(request.name)))

    async def _model_config(self, received: Received) -> Any:
        from ..routes.metadata import model_config
        from . import v2_pb2 as pb

        request = received.message
        return pb.ModelConfigResponse(config=model_config(self._hub.get(request.name, request.version)))

    async def _index(self, received: Received) -> Any:
        from . import v2_pb2 as pb

        return pb.RepositoryIndexResponse(models=self._management.index(received.message.ready))

    async def _load(self, received: Received) -> Any:
        from . import v2_pb2 as pb

        request = received.message
        await self._management.load(received.actor, request.model_name, plain_parameters(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, received: Received) -> Any:
        from . import v2_pb2 as pb

        request = received.message
        await self._management.unload(received.actor, request.model_name, plain_parameters(request.parameters))
        return pb.RepositoryModelUnloadResponse()

    async def _infer(self, received: Received) -> Any:
        started = time.perf_counter()
        edge, request, head = self._edge, received.message, received.head
        served = self._hub.get(request.model_name, request.model_version)
        signature = served.loaded.artifact.signature
        served.metrics.in_flight += 1
        status, problem, inputs = 200, "", {}
        request_id = edge.request_id(head)
        trail: list[tuple[float, float, int]] | None = [] if edge.tracer is not None else None
        try:
            names = wanted(request.outputs, signature)
            inputs = await aside(received.size, decode, request, signature, self._limits)
            values = served.answer_sizes.check(inputs)
            outputs = await served.infer(inputs, timeout_s(request, head), trail)
            entry = served.entry
            answer = await aside(values, encode, request.id, entry.name, entry.version, signature, names, outputs)
            served.account(inputs, outputs, request_id, time.perf_counter() - started)
        except Exception as error:
            status, problem, _ = status_of(error)
            if isinstance(error, OverloadedError):
                served.metrics.shed(
                    "deadline" if isinstance(error, DeadlineError) else "stopping" if isinstance(error, StoppingError)
                    else "queue_full"
                )  # fmt: skip
            raise
        finally:
            seconds = time.perf_counter() - started
            served.metrics.in_flight -= 1
            rows = row_count(inputs)
            served.metrics.request("grpc", status, seconds, rows)
            if edge.tracer is not None:
                edge.tracer.record(head, "grpc", served.tag, status, seconds, rows, trail)
            if edge.settings.access_log != "off":
                edge.log(request_id.decode(), served.tag, "grpc", status, seconds, rows, problem)
        served.after(inputs, outputs, request_id, seconds)
        return answer
