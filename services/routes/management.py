"""What models there are, and loading, unloading and swapping them: the V2 protocol's metadata and its model repository
extension, and KServe V1's list.

Who may do what is in services/access/callers.py; every change is written to the audit log before it is made.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import signal
from typing import Any

import orjson
import psutil

from hone import __version__, store
from hone.errors import ArtifactError, HoneError, StoreError

from ..access.exposure import is_loopback
from ..http.failures import NotFoundError, RequestError, status_of
from ..http.responses import (
    ClientGoneError,
    Receive,
    Scope,
    Send,
    read_body,
    require_method,
    respond_error,
    respond_json,
)
from ..models.desired import POLL_S, DesiredState
from ..observe.audit import REQUESTED
from ..settings import LAUNCHER
from .edge import REQUEST_ID, Edge
from .hub import Hub
from .metadata import EXTENSIONS, model_config, model_metadata

logger = logging.getLogger("hone.serving")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What can be part of a stored model's tag; whatever else a caller names isn't stored, and the store isn't asked."""

MOST_NOTED = 300
"""Characters of what a caller asked for, in the audit log."""


class AdminOffError(RequestError):
    status = 403


class UnusableModelError(RequestError):
    """A stored model that can't be served; what served before still does."""

    status = 422


class UnrecordedError(RequestError):
    """An action that the audit log can't hold isn't done."""

    status = 503


class Management:
    """Answers everything under /v1 and /v2 that isn't an inference.

    Args:
        hub: of the worker.
        edge: of the worker.
        desired: shared by the server's workers.
    """

    def __init__(self, hub: Hub, edge: Edge, desired: DesiredState) -> None:
        self._hub = hub
        self._edge = edge
        self._desired = desired
        self._applied: dict[str, int] = {}
        self.draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = dict(scope["headers"])
        request_id = self._edge.request_id(head)
        fields = [(REQUEST_ID, request_id)]
        try:
            status, content = await self._answer(scope, receive, head, scope["path"].strip("/").split("/"))
        except ClientGoneError:
            return
        except Exception as error:
            if status_of(error)[0] == 500:
                logger.error("request %s failed", request_id.decode(), exc_info=error)
            await respond_error(send, error, fields)
            return
        await respond_json(send, status, content, fields)

    async def _answer(
        self, scope: Scope, receive: Receive, head: dict[bytes, bytes], path: list[str]
    ) -> tuple[int, Any]:
        if path[:2] == ["v2", "health"]:
            return self._health(scope, path[2:])
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
        ready = not self.draining and bool(self._hub.routes)
        return (200 if ready else 503), {"ready": ready}

    def _read(self, path: list[str]) -> tuple[int, Any]:
        if path == ["v2"]:
            return 200, {"name": "hone", "version": __version__, "extensions": EXTENSIONS}
        if path == ["v1", "models"]:
            return 200, {"models": self._hub.names()}
        if len(path) < 3 or path[1] != "models":
            raise NotFoundError(f"no such path: /{'/'.join(path)}")
        if path[0] == "v1":
            name = path[2].partition(":")[0]
            self._hub.get(name)
            return 200, {"name": name, "ready": True}
        name, rest = path[2], path[3:]
        version = ""
        if rest[:1] == ["versions"] and len(rest) > 1:
            version, rest = rest[1], rest[2:]
        served = self._hub.get(name, version)
        if rest == []:
            # What exactly answers: a version has a name, which may be used again elsewhere; its content has a hash.
            exactly = {"tag": served.tag, "digest": served.loaded.artifact.digest}
            return 200, {**model_metadata(served, self._hub.versions(name)), "parameters": exactly}
        if rest == ["ready"]:
            return 200, {"name": name, "ready": True}
        if rest == ["config"]:
            return 200, model_config(served)
        if rest == ["infer"]:
            raise RequestError("use POST to infer")
        raise NotFoundError(f"no such path: /{'/'.join(path)}")

    async def _repository(
        self, scope: Scope, receive: Receive, head: dict[bytes, bytes], path: list[str]
    ) -> tuple[int, Any]:
        if path == ["index"]:
            await self._edge.admit(head, "list")
            require_method(scope, "POST")
            body = bytes(await read_body(head, receive, 65_536))
            return 200, self.index(_object(body).get("ready") is True)
        actor = await self.admit_admin(head, path[1] if len(path) > 1 else "")
        if len(path) != 3 or path[0] != "models" or path[2] not in ("load", "unload"):
            raise NotFoundError(
                "no such path; there is /v2/repository/index and /v2/repository/models/NAME/load, /unload"
            )
        require_method(scope, "POST")
        parameters = _object(bytes(await read_body(head, receive, 65_536))).get("parameters", {})
        action = self.load if path[2] == "load" else self.unload
        return 200, await action(actor, path[1], parameters)

    async def admit_admin(self, head: dict[bytes, bytes], model: str | None) -> str:
        """Return who asks for an admin action on a model; None: on one that isn't known yet.

        Raises:
            RequestError: they may not.
        """
        caller = await self._edge.admit(head, "admin", model)
        if caller is not None:
            return caller.id
        if self._edge.settings.insecure:
            raise AdminOffError("admin actions are off without keys; set HONE_API_KEYS (hone keys new)")
        # A page that the operator happens to look at must not act on a service of his machine: neither from its own
        # origin, nor under a name of its own that it lets point to this machine.
        host, origin = head.get(b"host", b"").decode("latin-1"), head.get(b"origin", b"").decode("latin-1")
        if origin and origin.partition("://")[2] != host:
            raise AdminOffError("admin actions from another site's pages are refused")
        if host and not is_loopback(re.sub(r":\d+$", "", host)):
            raise AdminOffError(f"admin actions under the name '{host}' need keys; use localhost, or set HONE_API_KEYS")
        return "local"

    def index(self, only_ready: bool) -> list[dict[str, str]]:
        """Return every model that can be loaded, and whether it is loaded."""
        loaded = {served.tag for served in self._hub.models()}
        listed = [
            {"name": entry.name, "version": entry.version, "state": "READY" if entry.tag in loaded else "UNAVAILABLE",
             "reason": "" if entry.tag in loaded else "unloaded"}
            for entry in self._hub.loadable()
        ]  # fmt: skip
        return [entry for entry in listed if entry["state"] == "READY" or not only_ready]

    async def load(self, actor: str, name: str, parameters: Any) -> dict[str, str]:
        """Load a stored model in every worker; it takes the place of the version that served.

        Args:
            actor: for the audit log.
            name: of the model.
            parameters: `version`, a version or variant of it (default: the best for this host); `keep`, true keeps the
                versions that are loaded beside it. As the caller gave them.

        Raises:
            RequestError: no such model, one that can't be served, or wrong parameters.
        """
        version, keep = _version(parameters), parameters.get("keep", False)
        if not isinstance(keep, bool):
            raise RequestError('the parameter "keep" must be true or false')
        reference = f"{name}:{version}" if version else name
        await self._announce(actor, "load", reference)
        try:
            _check_names(name, version)
            served = await self._hub.load(reference, keep=keep)
        except (HoneError, NotFoundError) as error:
            await self._conclude(actor, "load", reference, "failed", reason=str(error))
            message = _without_folder(str(error))
            if isinstance(error, (StoreError, NotFoundError)):
                raise NotFoundError(message) from error
            if isinstance(error, ArtifactError):
                raise UnusableModelError(message) from error
            raise
        await self._conclude(actor, "load", served.tag, "done")
        await self._spread(served.tag)
        return {"name": name, "version": served.entry.version}

    async def unload(self, actor: str, name: str, parameters: Any) -> dict[str, str]:
        """Unload a model, or the version of it that `parameters` names, in every worker.

        Raises:
            RequestError: it isn't loaded, or wrong parameters.
        """
        version = _version(parameters)
        subject = f"{name}:{version}" if version else name
        await self._announce(actor, "unload", subject)
        try:
            await self._hub.unload(name, version)
        except NotFoundError as error:
            await self._conclude(actor, "unload", subject, "failed", reason=str(error))
            raise
        await self._conclude(actor, "unload", subject, "done")
        await self._spread()
        return {"name": name}

    async def _announce(self, actor: str, action: str, subject: str) -> None:
        """Record that an action is asked for.

        Raises:
            UnrecordedError: the audit log can't be written, so it must not be done.
        """
        if self._edge.audit is None:
            return
        try:
            await asyncio.to_thread(self._edge.audit.append, actor, action, subject[:MOST_NOTED], REQUESTED)
        except HoneError as error:
            logger.error("%s refused: %s", action, error)
            raise UnrecordedError(f"{action} was not done: it can't be recorded; the server's log says why") from None

    async def _conclude(self, actor: str, action: str, subject: str, outcome: str, **details: str) -> None:
        """Record what became of an action that was announced."""
        subject, details = subject[:MOST_NOTED], {name: text[:MOST_NOTED] for name, text in details.items()}
        logger.info("%s %s by %s: %s", action, subject, actor, outcome)
        if self._edge.audit is None:
            return
        try:
            await asyncio.to_thread(self._edge.audit.append, actor, action, subject, outcome, **details)
        except HoneError as error:
            logger.error("%s %s is %s, but that is not recorded: %s", action, subject, outcome, error)

    async def _spread(self, loaded: str = "") -> None:
        desired = self._desired.write([served.tag for served in self._hub.models()], loaded)
        self._applied = dict(desired.loads)
        self._desired.report(desired.generation)
        problems = await self._desired.wait_for_others(desired.generation)
        if problems:
            raise UnusableModelError("not every worker could follow: " + _without_folder("; ".join(problems)))

    async def follow(self) -> None:
        """Bring this worker to the list that an action in another worker wrote."""
        desired = self._desired.read()
        problems: list[str] = []
        wanted = dict(desired.loads)
        if desired.generation:
            for tag, load in desired.loads:
                if self._applied.get(tag, 0) < load or tag not in {served.tag for served in self._hub.models()}:
                    try:
                        await self._hub.load(tag, keep=True)
                    except HoneError as error:
                        problems.append(str(error))
            for served in self._hub.models():
                if served.tag not in wanted:
                    await self._hub.unload(served.entry.name, served.entry.version)
        self._applied = wanted
        self._desired.report(desired.generation, "; ".join(problems))

    async def watch(self) -> None:
        """Follow the list, keep metrics fresh and heal sick runtimes, until cancelled.

        A worker whose server has gone, for example killed while it started this worker, stops too. A server whose
        `hone serve` was killed is stopped.
        """
        server, launcher = os.getppid(), os.environ.get(LAUNCHER, "")
        orphaned = False
        while True:
            await asyncio.sleep(POLL_S)
            if launcher and not orphaned and _parent_of(server) != int(launcher):
                logger.error("hone serve, which started this server, is gone; stopping the server")
                orphaned = True
                with contextlib.suppress(ProcessLookupError):
                    os.kill(server, signal.SIGTERM)
            if os.getppid() != server:
                logger.error("the server of this worker is gone; stopping")
                os.kill(os.getpid(), signal.SIGTERM)
                return
            try:
                self._hub.flush()
                if self._desired.changed() and self._desired.read().generation:
                    await self.follow()
                await self._hub.heal()
            except Exception:
                logger.exception("upkeep failed")


def _parent_of(process: int) -> int:
    try:
        return int(psutil.Process(process).ppid())
    except psutil.Error:
        return 0


def _version(parameters: Any) -> str:
    """Return the version that the parameters name, or an empty string.

    Raises:
        RequestError: they are no object, or the version is no text: it must not count as none, which means all.
    """
    if not isinstance(parameters, dict):
        raise RequestError('"parameters" must be an object')
    version = parameters.get("version", "")
    if not isinstance(version, str):
        raise RequestError('the parameter "version" must be a string')
    return version


def _check_names(name: str, version: str) -> None:
    """Raise NotFoundError when a stored model can't be called so."""
    for kind, text in (("model", name), ("version", version or "latest")):
        if not _NAME.fullmatch(text):
            raise NotFoundError(f"no {kind} '{text[:100]}' is stored; its name can't hold that, or is too long")


def _without_folder(message: str) -> str:
    """Return a message without the store's place on this host, which is no caller's business."""
    folder = store.models_dir()
    for path in sorted({str(folder), str(folder.resolve())}, key=len, reverse=True):
        message = message.replace(f"{path}/", "").replace(path, "the store")
    return message


def _model_of(path: list[str]) -> str:
    """Return the model that a path under /v1 or /v2 names, or an empty string."""
    return path[2].partition(":")[0] if path[1:2] == ["models"] and len(path) > 2 else ""


def _object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise RequestError("the body must be an object")
    return content
