"""What is told about models over HTTP, and their loading and unloading: the V2 protocol's metadata and its model
repository extension, and KServe V1's list."""

from __future__ import annotations

import logging
from typing import Any

from hone import __version__, runtimes

from ..http.failures import NotFoundError, RequestError, is_unexpected
from ..http.responses import (
    ClientGoneError,
    Head,
    Receive,
    Scope,
    Send,
    require_method,
    respond_error,
    respond_json,
)
from .edge import REQUEST_ID, Edge
from .hub import Hub
from .metadata import EXTENSIONS, how_it_runs, model_config, model_metadata, model_statistics
from .repository import Repository
from .served import ServedModel
from .splits.paths import SplitPaths, read_object

logger = logging.getLogger("hone.serving")

STATISTICS = ["v2", "models", "stats"]
"""Of all models, where none has that name."""


class Management:
    """Answers everything under /v1 and /v2 that isn't an inference.

    Args:
        hub: of the worker.
        edge: of the worker.
        repository: of the worker.
    """

    def __init__(self, hub: Hub, edge: Edge, repository: Repository) -> None:
        self._splits = SplitPaths(hub, edge, repository)
        self._hub = hub
        self._edge = edge
        self._models = repository

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = dict(scope["headers"])
        request_id = self._edge.request_id(head)
        fields = [(REQUEST_ID, request_id)]
        try:
            status, content = await self._answer(scope, receive, head, scope["path"].strip("/").split("/"))
        except ClientGoneError:
            return
        except Exception as error:
            if is_unexpected(error):
                logger.error("request %s failed", request_id.decode(), exc_info=error)
            await respond_error(send, error, fields)
            return
        await respond_json(send, status, content, fields)

    async def _answer(self, scope: Scope, receive: Receive, head: Head, path: list[str]) -> tuple[int, Any]:
        if path[:2] == ["v2", "health"]:
            return self._health(scope, path[2:])
        if path[:2] == ["v2", "rollout"] or (path[:3] == ["v2", "repository", "models"] and path[4:] == ["split"]):
            return await self._splits(scope, receive, head, path)
        if path[:2] == ["v2", "repository"]:
            return await self._repository(scope, receive, head, path[2:])
        if path[0] == "v2" or path[0] == "v1":
            await self._edge.admit(head, "read", _model_of(path))
            if scope["method"] == "POST" and len(path) > 2:
                # It was meant to infer: all that can is routed elsewhere, so the model or version is not there.
                self._hub.get(path[2].partition(":")[0], path[4] if path[3:4] == ["versions"] and path[4:] else "")
            require_method(scope, "GET")
            return self._read(path)
        raise NotFoundError(f"no such path: {scope['path']}")

    def _health(self, scope: Scope, path: list[str]) -> tuple[int, Any]:
        if path not in (["live"], ["ready"]):
            raise NotFoundError("no such path; there is /v2/health/live and /v2/health/ready")
        require_method(scope, "GET")
        if path == ["live"]:
            return 200, {"live": True}
        return (200 if self._hub.ready else 503), {"ready": self._hub.ready}

    def _read(self, path: list[str]) -> tuple[int, Any]:
        if path == ["v2"]:
            port = self._edge.settings.grpc_port
            where = {"grpc_port": port} if port else {}
            return 200, {"name": "hone", "version": __version__, "extensions": EXTENSIONS, **where}
        if path == ["v1", "models"]:
            return 200, {"models": self._hub.names()}
        if path == STATISTICS and path[2] not in self._hub.names():
            return 200, {"model_stats": model_statistics(self._hub, self._edge)}
        if len(path) < 3 or path[1] != "models":
            raise NotFoundError(f"no such path: /{'/'.join(path)}")
        if path[0] == "v1":
            name = path[2].partition(":")[0]
            return _readiness(self._hub.get(name), name)
        name, rest = path[2], path[3:]
        version = ""
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = rest[1], rest[2:]
        served = self._hub.get(name, version)
        if rest == ["stats"]:
            return 200, {"model_stats": model_statistics(self._hub, self._edge, name, version)}
        if rest == []:
            # What exactly answers: a version has a name, which may be used again elsewhere; its content has a hash.
            remark = runtimes.remark(served.loaded.artifact.manifest)
            exactly = {"tag": served.tag, "number": served.number, "digest": served.loaded.artifact.digest}
            return 200, {
                **model_metadata(served, self._hub.versions(name)),
                "parameters": exactly | ({"remark": remark} if remark else {}),
                **how_it_runs(served),
            }
        if rest == ["ready"]:
            return _readiness(served, name)
        if rest == ["config"]:
            return 200, model_config(served)
        if rest == ["infer"]:
            raise RequestError("use POST to infer")
        raise NotFoundError(f"no such path: /{'/'.join(path)}")

    async def _repository(self, scope: Scope, receive: Receive, head: Head, path: list[str]) -> tuple[int, Any]:
        if path == ["index"]:
            await self._edge.admit(head, "list")
            require_method(scope, "POST")
            return 200, self._models.index((await read_object(head, receive)).get("ready") is True)
        actor = await self._models.admit(head, path[1] if len(path) > 1 else "")
        if len(path) != 3 or path[0] != "models" or path[2] not in ("load", "unload"):
            raise NotFoundError(
                "no such path; there is /v2/repository/index and /v2/repository/models/NAME/load, /unload"
            )
        require_method(scope, "POST")
        parameters = (await read_object(head, receive)).get("parameters", {})
        action = self._models.load if path[2] == "load" else self._models.unload
        return 200, await action(actor, path[1], parameters)


def _readiness(served: ServedModel, name: str) -> tuple[int, Any]:
    ready = not served.loaded.runtime.problem
    return (200 if ready else 503), {"name": name, "ready": ready}


def _model_of(path: list[str]) -> str:
    """Return the model that a path under /v1 or /v2 names, or an empty string."""
    if path == STATISTICS:
        return ""
    return path[2].partition(":")[0] if path[1:2] == ["models"] and len(path) > 2 else ""
