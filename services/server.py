"""The seam to BentoML: our endpoint answers before BentoML's middleware, everything else stays BentoML's.

BentoML's path costs about a millisecond a request (parsing, pydantic, five middlewares) and leaves an uncancelled
timer behind each. `Service.to_asgi` is not part of its documented interface, so the version is pinned and checked:
another one fails at import with a line that says so, and `tests/unit/test_service_seam.py` fails with it.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from _bentoml_sdk.service.factory import Service

from hone.errors import HoneError
from services.endpoint import PredictEndpoint, Receive, Scope, Send, not_ready
from services.openapi import describe_predict

if TYPE_CHECKING:
    from hone.artifact import Artifact

PINNED = "1.4.39"
PREDICT = "/predict"


def check_version() -> None:
    """Raise HoneError unless this is the BentoML whose inside was read."""
    found = version("bentoml")
    if found != PINNED or not callable(getattr(Service, "to_asgi", None)):
        raise HoneError(
            f"bentoml {found} is installed, services/server.py is written against {PINNED}; "
            f"install bentoml=={PINNED}, or read Service.to_asgi of the new version and move the pin"
        )


class FastService(Service):
    """A BentoML service whose `/predict` is answered by our own endpoint.

    The endpoint is set by the service's start-up hook, once its model is warm.
    """

    endpoint: PredictEndpoint | None = None
    described: Artifact | None = None
    """The artifact whose signature the OpenAPI page describes."""

    def to_asgi(self, is_main: bool = True) -> Any:
        check_version()
        return _Application(self, super().to_asgi(is_main=is_main))

    @property
    def openapi_spec(self) -> Any:
        """BentoML's specification, with the model's real inputs, outputs and example rows for `/predict`."""
        specification = super().openapi_spec
        if self.described is None:
            return specification
        return describe_predict(specification, self.described, PREDICT)


class _Application:
    """Routes between our endpoint and BentoML's application, which it otherwise stands for."""

    def __init__(self, service: FastService, bentoml_app: Any) -> None:
        self._service = service
        self._bentoml_app = bentoml_app

    def __getattr__(self, name: str) -> Any:
        return getattr(self._bentoml_app, name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PREDICT:
            await self._bentoml_app(scope, receive, send)
        elif self._service.endpoint is None:
            await not_ready(send)
        else:
            await self._service.endpoint(scope, receive, send)
