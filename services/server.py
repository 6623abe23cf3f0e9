"""The seam to BentoML: our endpoints answer before BentoML's middleware, everything else stays BentoML's.

BentoML's path costs about a millisecond a request (parsing, pydantic, five middlewares) and leaves an uncancelled
timer behind each. `Service.to_asgi` is not part of its documented interface, so the version is pinned and checked:
another one fails at import with a line that says so, and `tests/unit/test_service_seam.py` fails with it.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from _bentoml_sdk.service.factory import Service

from hone.errors import HoneError
from services.failures import NotFoundError, OverloadedError, status_of
from services.http import Receive, Scope, Send, error_body, respond_json
from services.openapi import describe

if TYPE_CHECKING:
    from services.hub import Hub
    from services.management import Management

PINNED = "1.4.39"
OURS = ("/v1/", "/v2/", "/models/")
OURS_EXACTLY = ("/predict", "/v2")


def check_version() -> None:
    """Raise HoneError unless this is the BentoML whose inside was read."""
    found = version("bentoml")
    if found != PINNED or not callable(getattr(Service, "to_asgi", None)):
        raise HoneError(
            f"bentoml {found} is installed, services/server.py is written against {PINNED}; "
            f"install bentoml=={PINNED}, or read Service.to_asgi of the new version and move the pin"
        )


class FastService(Service):
    """A BentoML service whose inference paths are answered by our own endpoints.

    `hub` and `management` are set by the service's start-up hook, once its model is warm.
    """

    hub: Hub | None = None
    management: Management | None = None

    def to_asgi(self, is_main: bool = True) -> Any:
        check_version()
        return _Application(self, super().to_asgi(is_main=is_main))

    @property
    def openapi_spec(self) -> Any:
        """BentoML's specification, with the real inputs, outputs and example rows of every loaded model."""
        specification = super().openapi_spec
        if self.hub is None or not self.hub.default or self.hub.default not in self.hub.names():
            return specification
        artifacts = {name: self.hub.get(name).loaded.artifact for name in self.hub.names()}
        return describe(specification, artifacts, self.hub.default)


class _Application:
    """Routes between our endpoints and BentoML's application, which it otherwise stands for."""

    def __init__(self, service: FastService, bentoml_app: Any) -> None:
        self._service = service
        self._bentoml_app = bentoml_app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bentoml_app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._bentoml_app(scope, receive, send)
            return
        path = scope["path"]
        hub = self._service.hub
        handler = None if hub is None else hub.routes.get(path)
        if handler is not None:
            await handler(scope, receive, send)
        elif path.startswith(OURS) or path in OURS_EXACTLY:
            await self._manage(scope, receive, send)
        else:
            if path == "/metrics" and hub is not None:
                hub.flush()
            await self._bentoml_app(scope, receive, send)

    async def _manage(self, scope: Scope, receive: Receive, send: Send) -> None:
        management = self._service.management
        if management is not None and scope["path"].startswith(("/v1", "/v2")):
            await management(scope, receive, send)
            return
        missing = NotFoundError(f"no model answers {scope['path']}")
        error = OverloadedError("the model is still loading") if management is None else missing
        status, message, headers = status_of(error)
        await respond_json(send, status, error_body(message), [(k.encode(), v.encode()) for k, v in headers])
