"""The seam to BentoML: our endpoints answer before BentoML's middleware, and BentoML's application gets listed paths.

BentoML's path costs about a millisecond a request (parsing, pydantic, five middlewares) and makes a series of metrics
for every path that anybody makes up; its own `/predict` knows nothing of keys, limits and deadlines. So from outside
it is asked for its own paths in `services/routes/paths.py` only, exactly as they stand there, and what is not there at
all doesn't exist.

`Service.to_asgi` is not part of BentoML's documented interface, so the version is pinned and checked: another one
fails at import with a line that says so, and `tests/services/test_seam.py` fails with it.
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from importlib.metadata import version
from typing import Any

import orjson
from _bentoml_sdk.service.factory import Service
from bentoml._internal.server.http.traffic import TimeoutMiddleware

from hone.errors import HoneError

from ..http import connections
from ..http.failures import JobsOffError, NotFoundError, OverloadedError, is_unexpected
from ..http.responses import NO_SNIFF, Receive, Scope, Send, require_method, respond, respond_error, respond_json
from ..settings import Settings
from .edge import Edge
from .hub import Hub
from .management import Management
from .openapi import describe
from .pages import HTML_FIELDS, URL, address, page
from .paths import INFERENCE, PATHS, job_path
from .splits.routing import Handler

logger = logging.getLogger("hone.serving")

PINNED = "1.4.39"
MANAGED = ("/v1/", "/v2/")
OURS = (*MANAGED, *sorted({path.template.partition("{")[0] for path in INFERENCE if "{" in path.template}))
"""What begins so is ours even where no model answers it, so that nobody without a key learns which models there are."""

OURS_EXACTLY = ("/v2", *(path.template for path in INFERENCE if "{" not in path.template))
PAGES = ("/", "/docs.json")
"""What we write ourselves in place of BentoML's page, which asks hosts elsewhere for scripts."""

OPEN = frozenset(path.template for path in PATHS if path.bentomls and path.open)
GUARDED = frozenset(path.template for path in PATHS if path.bentomls and not path.open)


def check_version() -> None:
    """Raise HoneError unless these are the BentoML and the uvicorn whose inside was read."""
    found = version("bentoml")
    if found != PINNED or not callable(getattr(Service, "to_asgi", None)):
        raise HoneError(
            f"bentoml {found} is installed, services/routes/server.py is written against {PINNED}; "
            f"install bentoml=={PINNED}, or read Service.to_asgi of the new version and move the pin"
        )
    connections.check_version()


class FastService(Service):
    """A BentoML service whose inference paths are answered by our own endpoints.

    `edge`, `hub`, `management` and, where they are on, `jobs` are set by the service's start-up hook, once its model
    is warm.
    """

    edge: Edge | None = None
    hub: Hub | None = None
    management: Management | None = None
    jobs: Handler | None = None

    def to_asgi(self, is_main: bool = True) -> Any:
        check_version()
        connections.install(Settings.from_environment())
        application = super().to_asgi(is_main=is_main)
        # It leaves a timer of a minute behind each request: enough requests for /livez would fill the memory.
        application.user_middleware = [
            middleware for middleware in application.user_middleware if middleware.cls is not TimeoutMiddleware
        ]
        return _Application(self, application, inner=not is_main)

    @property
    def openapi_spec(self) -> Any:
        """BentoML's specification, with the real inputs, outputs and example rows of every loaded model.

        The example rows are data that somebody gave, so nobody but callers of the model gets them: without keys on
        an address that others reach, made-up rows take their place.
        """
        specification = super().openapi_spec
        if self.hub is None or self.edge is None or self.hub.default not in self.hub.names():
            return specification
        artifacts = {name: self.hub.get(name).loaded.artifact for name in self.hub.names()}
        return describe(
            specification,
            artifacts,
            self.hub.default,
            real_rows=not self.edge.settings.insecure,
            feedback=self.edge.collector is not None,
        )


class _Application:
    """Routes between our endpoints and BentoML's application, which it otherwise stands for.

    Args:
        inner: another service of the same program depends on this one, and calls it on a private Unix socket.
    """

    def __init__(self, service: FastService, bentoml_app: Any, *, inner: bool) -> None:
        self._service = service
        self._bentoml_app = bentoml_app
        self._inner = inner
        self._pages: tuple[Any, dict[str, str]] = (None, {})

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bentoml_app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        path = scope["path"]
        hub = self._service.hub
        if self._inner and scope["client"] is None:
            await self._bentoml_app(scope, receive, send)
            return
        handler = None if hub is None else hub.routes.get(path)
        if handler is not None:
            await handler(scope, receive, send)
        elif path in OPEN:
            if path == "/metrics" and hub is not None:
                hub.flush()
            await self._bentomls(scope, receive, send)
        else:
            await self._guarded(scope, receive, send)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Start and stop with BentoML; a WebSocket is refused, nothing here speaks it."""
        if scope["type"] == "lifespan":
            await self._bentoml_app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _guarded(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer everything that tells about models, to those who may call them, and refuse what doesn't exist."""
        path = scope["path"]
        management = self._service.management
        try:
            if not (path in PAGES or path in GUARDED or path in OURS_EXACTLY or path.startswith(OURS)):
                raise NotFoundError(f"no such path: {path}")
            if self._service.hub is None or self._service.edge is None or management is None:
                raise OverloadedError("the model is still loading")
            if path.startswith(MANAGED) or path == "/v2":
                await management(scope, receive, send)
                return
            if (of := job_path(path)) is not None:
                if self._service.jobs is None:
                    await self._service.edge.admit(dict(scope["headers"]), "predict", of.model)
                    raise JobsOffError
                await self._service.jobs(scope, receive, send)
                return
            await self._service.edge.admit(dict(scope["headers"]), "predict")
            if path in PAGES:
                await self._page(scope, send)
                return
            if path not in GUARDED:
                raise NotFoundError(f"no model answers {path}")
        except Exception as error:
            if is_unexpected(error):
                logger.error("%s failed", path, exc_info=error)
            await respond_error(send, error)
            return
        await self._bentomls(scope, receive, send)

    async def _bentomls(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), NO_SNIFF]
            await send(message)

        await self._bentoml_app(scope, receive, send_guarded)

    async def _page(self, scope: Scope, send: Send) -> None:
        """Answer with a page, made once for each set of models."""
        if scope["method"] != "HEAD":
            require_method(scope, "GET")
        made = self._written()
        if scope["path"] == "/":
            own = address(scope["scheme"], dict(scope["headers"]).get(b"host", b""))
            await respond(send, 200, made["/"].replace(URL, own).encode(), HTML_FIELDS)
        else:
            await respond_json(send, 200, made["/docs.json"].encode())

    def _written(self) -> dict[str, str]:
        hub, edge = self._service.hub, self._service.edge
        assert hub is not None and edge is not None
        if self._pages[0] is not hub.routes:
            loaded = [hub.get(name).loaded for name in hub.names()]
            specification = orjson.dumps(self._service.openapi_spec.asdict()).decode()
            self._pages = (hub.routes, {"/": page(loaded, edge.settings), "/docs.json": specification})
        return self._pages[1]
