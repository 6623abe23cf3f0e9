"""What callers of a model get whose answers are no longer those of its proof."""

from __future__ import annotations

from ..http.failures import MistrustedError
from ..http.responses import Receive, Scope, Send, respond_error
from ..protocols import all_endpoints
from .edge import Edge


def withdrawn_routes(name: str, edge: Edge, *, default: bool) -> dict[str, Withdrawn]:
    """Return the paths of a model, and `/predict` of the default one, with what answers there in its place."""
    templates = [path for place in all_endpoints() for path in (place.model, place.default if default else "")]
    return {path.format(name=name): Withdrawn(name, edge) for path in templates if path}


class Withdrawn:
    """Answers 503 in the place of a model.

    Args:
        name: of the model.
        edge: of the worker.
    """

    def __init__(self, name: str, edge: Edge) -> None:
        self._name = name
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._edge.admit(dict(scope["headers"]), "predict", self._name)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the caller gets
            await respond_error(send, error)
            return
        await respond_error(send, MistrustedError(self._name))
