"""The Open Inference Protocol V2 over gRPC: the same models, queue, keys and limits as over HTTP, on a port of its own.

All workers of a server listen on one port (SO_REUSEPORT), and the kernel shares connections between them. The server
uses the certificate that BentoML's server was given.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hone import __version__
from hone.errors import HoneError, SignatureError, did_you_mean
from hone.signature import Signature, TensorSpec
from services.batching import Tensors
from services.edge import Edge
from services.exposure import default_host
from services.failures import DeadlineError, InferenceError, NotFoundError, OverloadedError, RequestError, status_of
from services.http import Head
from services.hub import Hub
from services.protocols.v2 import DATATYPES
from services.settings import Settings
from services.tensors import check_finite, from_bytes, row_count, to_array, to_bytes

if TYPE_CHECKING:
    from services.management import Management

logger = logging.getLogger("hone.serving")

SERVICE = "inference.GRPCInferenceService"
CONTENTS = {
    "bool": "bool_contents", "int8": "int_contents", "int16": "int_contents", "int32": "int_contents",
    "int64": "int64_contents", "uint8": "uint_contents", "uint16": "uint_contents", "uint32": "uint_contents",
    "uint64": "uint64_contents", "float32": "fp32_contents", "float64": "fp64_contents", "string": "bytes_contents",
}  # fmt: skip
STOP_GRACE_S = 20.0


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
        from services.protocols import v2_pb2 as pb

        limit = settings.max_body_bytes
        self._server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", -1),
                ("grpc.so_reuseport", 1),
            ]
        )
        calls: dict[str, tuple[Callable[[Any, Head], Awaitable[Any]], Any]] = {
            "ServerLive": (self._live, pb.ServerLiveRequest),
            "ServerReady": (self._ready, pb.ServerReadyRequest),
            "ModelReady": (self._model_ready, pb.ModelReadyRequest),
            "ServerMetadata": (self._server_metadata, pb.ServerMetadataRequest),
            "ModelMetadata": (self._model_metadata, pb.ModelMetadataRequest),
            "ModelInfer": (self._infer, pb.ModelInferRequest),
            "RepositoryIndex": (self._index, pb.RepositoryIndexRequest),
            "RepositoryModelLoad": (self._load, pb.RepositoryModelLoadRequest),
            "RepositoryModelUnload": (self._unload, pb.RepositoryModelUnloadRequest),
        }
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(
                self._answer(call, name), request.FromString, lambda answer: answer.SerializeToString()
            )
            for name, (call, request) in calls.items()
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        address = f"{default_host(settings)}:{settings.grpc_port}"
        credentials = _credentials(sys.argv)
        try:
            if credentials is None:
                self.port = self._server.add_insecure_port(address)
            else:
                self.port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            raise HoneError(f"can't listen on {address} for gRPC; set another HONE_GRPC_PORT") from None
        await self._server.start()
        logger.info("V2 over gRPC on %s%s", address, "" if credentials is None else " with TLS")

    async def stop(self) -> None:
        """Refuse new calls and answer those accepted."""
        if self._server is not None:
            await self._server.stop(STOP_GRACE_S)

    def _answer(self, call: Callable[[Any, Head], Awaitable[Any]], name: str) -> Callable[[Any, Any], Awaitable[Any]]:
        """Wrap a call: metadata becomes headers, errors become gRPC's codes."""

        async def answer(request: Any, context: Any) -> Any:
            head = {
                key.encode(): value.encode() if isinstance(value, str) else value
                for key, value in context.invocation_metadata() or ()
            }
            left = context.time_remaining()
            if left is not None:
                head[b"x-timeout-ms"] = b"%f" % (left * 1e3)
            try:
                return await call(request, head)
            except Exception as error:
                status, message, headers = status_of(error)
                if status == 500 and not isinstance(error, InferenceError):
                    logger.error("%s failed", name, exc_info=error)
                await context.abort(_code(error, status), message, tuple(headers))

        return answer

    async def _live(self, _: Any, __: Head) -> Any:
        from services.protocols import v2_pb2 as pb

        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _: Any, __: Head) -> Any:
        from services.protocols import v2_pb2 as pb

        return pb.ServerReadyResponse(ready=not self._management.draining and bool(self._hub.routes))

    async def _model_ready(self, request: Any, head: Head) -> Any:
        from services.protocols import v2_pb2 as pb

        await self._edge.admit(head, "read", request.name)
        try:
            self._hub.get(request.name, request.version)
        except NotFoundError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def _server_metadata(self, _: Any, head: Head) -> Any:
        from services.metadata import EXTENSIONS
        from services.protocols import v2_pb2 as pb

        await self._edge.admit(head, "read")
        return pb.ServerMetadataResponse(name="hone", version=__version__, extensions=EXTENSIONS)

    async def _model_metadata(self, request: Any, head: Head) -> Any:
        from services.metadata import model_metadata
        from services.protocols import v2_pb2 as pb

        await self._edge.admit(head, "read", request.name)
        served = self._hub.get(request.name, request.version)
        return pb.ModelMetadataResponse(**model_metadata(served, self._hub.versions(request.name)))

    async def _index(self, request: Any, head: Head) -> Any:
        from services.protocols import v2_pb2 as pb

        await self._edge.admit(head, "list")
        return pb.RepositoryIndexResponse(models=self._management.index(request.ready))

    async def _load(self, request: Any, head: Head) -> Any:
        from services.protocols import v2_pb2 as pb

        actor = await self._management.admit_admin(head, request.model_name)
        await self._management.load(actor, request.model_name, _parameters(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, request: Any, head: Head) -> Any:
        from services.protocols import v2_pb2 as pb

        actor = await self._management.admit_admin(head, request.model_name)
        await self._management.unload(actor, request.model_name, _parameters(request.parameters))
        return pb.RepositoryModelUnloadResponse()

    async def _infer(self, request: Any, head: Head) -> Any:
        started = time.perf_counter()
        edge = self._edge
        await edge.admit(head, "predict", request.model_name)
        served = self._hub.get(request.model_name, request.model_version)
        signature = served.loaded.artifact.signature
        served.metrics.in_flight += 1
        status, problem, inputs = 200, "", {}
        request_id = edge.request_id(head)
        trail: list[tuple[float, float, int]] | None = [] if edge.tracer is not None else None
        try:
            names = _wanted(request.outputs, signature)
            inputs = decode(request, signature)
            outputs = await served.infer(inputs, _timeout_s(request, head), trail)
            answer = encode(request.id, served.entry.name, served.entry.version, signature, names, outputs)
            served.account(inputs, outputs, request_id, time.perf_counter() - started)
        except Exception as error:
            status, problem, _ = status_of(error)
            if isinstance(error, OverloadedError):
                served.metrics.shed("deadline" if isinstance(error, DeadlineError) else "queue_full")
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


def decode(request: Any, signature: Signature) -> Tensors:
    """Return the tensors of a ModelInferRequest, checked.

    Raises:
        RequestError: raw contents and inputs don't pair up.
        SignatureError: naming the input that is wrong.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(f"{len(request.inputs)} inputs, but {len(raw)} raw_input_contents")
    arrays: Tensors = {}
    for index, entry in enumerate(request.inputs):
        spec = signature.input(entry.name)
        if entry.datatype != DATATYPES[spec.dtype]:
            raise SignatureError(f"input '{spec.name}' has datatype {entry.datatype}, expected {DATATYPES[spec.dtype]}")
        if entry.name in arrays:
            raise RequestError(f"input '{entry.name}' is given twice")
        shape = tuple(entry.shape)
        if any(size < 0 or size >= 1 << 40 for size in shape):
            raise RequestError(f"input '{spec.name}': a size of its shape {list(shape)} is not possible")
        arrays[entry.name] = from_bytes(raw[index], spec, shape) if raw else _from_contents(entry, spec, shape)
        check_finite(arrays[entry.name], spec)
    return signature.check(arrays)


def _from_contents(entry: Any, spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    field = CONTENTS.get(spec.dtype)
    if field is None:
        raise RequestError(f"input '{spec.name}': {DATATYPES[spec.dtype]} must come in raw_input_contents")
    values: Sequence[Any] = getattr(entry.contents, field)
    if len(values) != prod(shape):
        raise SignatureError(f"input '{spec.name}' of shape {list(shape)} has {len(values)} values in {field}")
    if spec.dtype == "string":
        try:
            values = [value.decode() for value in values]
        except UnicodeDecodeError:
            raise SignatureError(f"input '{spec.name}' holds a string that is not UTF-8") from None
    return to_array(np.array(values) if len(values) else np.zeros(0, spec.numpy_dtype), spec).reshape(shape)


def encode(identity: str, name: str, version: str, signature: Signature, names: Sequence[str], outputs: Tensors) -> Any:
    """Return a ModelInferResponse with raw contents."""
    from services.protocols import v2_pb2 as pb

    answer = pb.ModelInferResponse(model_name=name, model_version=version, id=identity)
    specs = {spec.name: spec for spec in signature.outputs}
    for output in names:
        array = outputs[output]
        answer.outputs.add(name=output, datatype=DATATYPES[specs[output].dtype], shape=array.shape)
        if specs[output].dtype == "bfloat16":
            array = (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        answer.raw_output_contents.append(bytes(to_bytes(array)))
    return answer


def _wanted(outputs: Sequence[Any], signature: Signature) -> list[str]:
    names = signature.output_names
    for entry in outputs:
        if entry.name not in names:
            raise RequestError(f"no output '{entry.name}'{did_you_mean(entry.name, names)}")
    return list(dict.fromkeys(entry.name for entry in outputs)) or names


def _timeout_s(request: Any, head: Head) -> float | None:
    """Return the smaller of the call's deadline and the parameter `timeout`, microseconds."""
    from services.protocols.base import timeout_of

    limits = [timeout_of(head)]
    if "timeout" in request.parameters:
        limits.append(request.parameters["timeout"].int64_param / 1e6)
    return min((limit for limit in limits if limit is not None), default=None)


def _parameters(parameters: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in parameters.items():
        field = value.WhichOneof("parameter_choice")
        if field is not None:
            values[name] = getattr(value, field)
    return values


def _code(error: Exception, status: int) -> Any:
    import grpc

    codes = grpc.StatusCode
    if isinstance(error, DeadlineError):
        return codes.DEADLINE_EXCEEDED
    return {
        401: codes.UNAUTHENTICATED, 403: codes.PERMISSION_DENIED, 404: codes.NOT_FOUND, 413: codes.RESOURCE_EXHAUSTED,
        422: codes.FAILED_PRECONDITION, 429: codes.RESOURCE_EXHAUSTED, 500: codes.INTERNAL, 503: codes.UNAVAILABLE,
    }.get(status, codes.INVALID_ARGUMENT)  # fmt: skip


def _credentials(arguments: Sequence[str]) -> Any:
    """Return the server's TLS credentials when BentoML's worker was given a certificate."""
    import grpc

    from services.exposure import option

    certificate, key = option(arguments, "--ssl-certfile"), option(arguments, "--ssl-keyfile")
    if not certificate:
        return None
    return grpc.ssl_server_credentials([(Path(key or certificate).read_bytes(), Path(certificate).read_bytes())])
