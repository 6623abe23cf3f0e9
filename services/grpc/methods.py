"""The methods of V2's gRPC service: what each does with a message that was admitted and understood."""

from __future__ import annotations

import time
from typing import Any

from hone import __version__

from ..http.failures import NotFoundError, OverloadedError, status_of
from ..http.limits import Limits
from ..protocols.tensors import row_count
from ..routes.edge import Edge
from ..routes.hub import Hub
from ..routes.metadata import EXTENSIONS, model_config, model_metadata, model_statistics
from ..routes.repository import Repository
from . import v2_pb2 as pb
from .calls import Call, Received, aside
from .v2 import decode, encode, plain_parameters, timeout_s, wanted


class Methods:
    """Answers a worker's calls.

    Args:
        hub: models.
        edge: ids, logs, traces.
        repository: loads and unloads.
        limits: of one request.
    """

    def __init__(self, hub: Hub, edge: Edge, repository: Repository, limits: Limits) -> None:
        self._hub = hub
        self._edge = edge
        self._repository = repository
        self._limits = limits

    def calls(self) -> dict[str, Call]:
        """Return every method by its name: the message that it takes, and what a caller needs to be allowed."""
        return {
            "ServerLive": Call(pb.ServerLiveRequest, self._live),
            "ServerReady": Call(pb.ServerReadyRequest, self._ready),
            "ModelReady": Call(pb.ModelReadyRequest, self._model_ready, "read", "name"),
            "ServerMetadata": Call(pb.ServerMetadataRequest, self._server_metadata, "read"),
            "ModelMetadata": Call(pb.ModelMetadataRequest, self._model_metadata, "read", "name"),
            "ModelConfig": Call(pb.ModelConfigRequest, self._model_config, "read", "name"),
            "ModelStatistics": Call(pb.ModelStatisticsRequest, self._model_statistics, "read", "name"),
            "ModelInfer": Call(pb.ModelInferRequest, self._infer, "predict", "model_name"),
            "RepositoryIndex": Call(pb.RepositoryIndexRequest, self._index, "list"),
            "RepositoryModelLoad": Call(pb.RepositoryModelLoadRequest, self._load, "operate", "model_name"),
            "RepositoryModelUnload": Call(pb.RepositoryModelUnloadRequest, self._unload, "operate", "model_name"),
        }

    async def _live(self, _: Received) -> Any:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _: Received) -> Any:
        return pb.ServerReadyResponse(ready=self._hub.ready)

    async def _model_ready(self, received: Received) -> Any:
        request = received.message
        try:
            served = self._hub.get(request.name, request.version)
        except NotFoundError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=not served.loaded.runtime.problem)

    async def _server_metadata(self, _: Received) -> Any:
        return pb.ServerMetadataResponse(name="hone", version=__version__, extensions=EXTENSIONS)

    async def _model_metadata(self, received: Received) -> Any:
        request = received.message
        served = self._hub.get(request.name, request.version)
        return pb.ModelMetadataResponse(**model_metadata(served, self._hub.versions(request.name)))

    async def _model_config(self, received: Received) -> Any:
        request = received.message
        return pb.ModelConfigResponse(config=model_config(self._hub.get(request.name, request.version)))

    async def _model_statistics(self, received: Received) -> Any:
        request = received.message
        found = model_statistics(self._hub, self._edge, request.name, request.version)
        return pb.ModelStatisticsResponse(
            model_stats=[{field: value for field, value in each.items() if field != "tag"} for each in found]
        )

    async def _index(self, received: Received) -> Any:
        return pb.RepositoryIndexResponse(models=self._repository.index(received.message.ready))

    async def _load(self, received: Received) -> Any:
        request = received.message
        await self._repository.load(received.actor, request.model_name, plain_parameters(request.parameters))
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, received: Received) -> Any:
        request = received.message
        await self._repository.unload(received.actor, request.model_name, plain_parameters(request.parameters))
        return pb.RepositoryModelUnloadResponse()

    async def _infer(self, received: Received) -> Any:
        started = time.perf_counter()
        edge, request, head = self._edge, received.message, received.head
        version, arm = request.model_version, None
        if not version:
            version, arm = self._hub.splits.choose(request.model_name, head)
        served = self._hub.get(request.model_name, version)
        name = "" if arm is None else arm.name
        signature = served.offered.taken_by(entry.name for entry in request.inputs)
        served.metrics.in_flight += 1
        status, problem, inputs = 200, "", {}
        request_id = edge.request_id(head)
        trail: list[tuple[float, float, int]] | None = [] if edge.tracer is not None else None
        try:
            names = wanted(request.outputs, signature)
            inputs = await aside(received.size, decode, request, signature, self._limits)
            values = served.answer_sizes.check(inputs)
            outputs = await served.infer(inputs, timeout_s(request, head), trail)
            if not served.answer_sizes.known:
                values = served.answer_sizes.check_outputs(outputs)
            entry = served.entry
            answer = await aside(values, encode, request.id, entry.name, entry.version, signature, names, outputs)
            if arm is not None:
                answer.parameters["arm"].string_param = arm.name
            served.account(inputs, outputs, request_id, time.perf_counter() - started, name)
            if edge.collector is not None:
                sticky = b"" if arm is None else arm.sticky
                caller = head.get(sticky or edge.settings.subject_header.lower().encode())
                by = "" if arm is None else arm.by
                served.note(request_id, outputs, name, by, caller, time.perf_counter() - started)
                answer.parameters["request_id"].string_param = request_id.decode()
        except Exception as error:
            status, problem, _ = status_of(error)
            if isinstance(error, OverloadedError):
                served.metrics.shed(error, row_count(inputs))
            raise
        finally:
            seconds = time.perf_counter() - started
            served.metrics.in_flight -= 1
            rows = row_count(inputs)
            served.metrics.request("grpc", status, seconds, rows)
            if arm is not None:
                arm.request(status, seconds)
            if edge.tracer is not None:
                edge.tracer.record(head, "grpc", served.tag, status, seconds, rows, trail)
            if edge.settings.access_log != "off":
                edge.log(request_id.decode(), served.tag, "grpc", status, seconds, rows, problem, name)
        served.after(inputs, outputs, request_id, seconds, name)
        return answer
