"""Splits over HTTP: shown, set and ended under the model repository, and the verdict that rollouts ask for."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs

import orjson

from ...arms.evidence import Limits
from ...http.failures import MethodError, NotFoundError, RequestError
from ...http.reading import read_body
from ...http.responses import Head, Receive, Scope
from ..edge import Edge
from ..hub import Hub
from ..repository import Repository
from .operations import SplitOperations

MOST_BYTES = 65_536
"""Of a request's body: a few parameters."""

BAD_FOR_WEBHOOKS = 409
"""Status of a verdict that isn't good, for those who only look at that."""


class SplitPaths:
    """Answers `/v2/repository/models/NAME/split` and `/v2/rollout/NAME/verdict`.

    Args:
        hub: of the worker.
        edge: of the worker.
        repository: of the worker.
    """

    def __init__(self, hub: Hub, edge: Edge, repository: Repository) -> None:
        self._hub = hub
        self._edge = edge
        self._repository = repository
        self._operations = SplitOperations(hub, repository)

    async def __call__(self, scope: Scope, receive: Receive, head: Head, path: list[str]) -> tuple[int, Any]:
        if path[1] == "rollout":
            return await self._verdict(scope, head, path)
        name, method = path[3], scope["method"]
        if method == "GET":
            await self._edge.admit(head, "read", name)
            return 200, self._operations.show(name)
        actor = await self._repository.admit(head, name)
        if method not in ("POST", "DELETE"):
            raise MethodError(
                f"{method} is not supported here; use GET, POST or DELETE", (("allow", "GET, POST, DELETE"),)
            )
        parameters = (await read_object(head, receive)).get("parameters", {})
        change = self._operations.set if method == "POST" else self._operations.clear
        return 200, await change(actor, name, parameters)

    async def _verdict(self, scope: Scope, head: Head, path: list[str]) -> tuple[int, Any]:
        """Answer 200 to GET, whatever the verdict; to POST, which webhooks use, only when it is good.

        With `?while=undecided` a webhook lets pass what isn't bad.
        """
        if len(path) != 4 or path[3] != "verdict":
            raise NotFoundError("no such path; there is /v2/rollout/NAME/verdict")
        await self._edge.admit(head, "read", path[2])
        asked = {name: values[-1] for name, values in parse_qs(scope["query_string"].decode("latin-1")).items()}
        passing = {"good", asked.pop("while", "good")}
        arm = asked.pop("arm", "")
        self._hub.flush()
        # A hundredth of a second of numbers, in which no request should wait.
        found = await asyncio.to_thread(self._operations.verdict, path[2], arm, _limits(asked))
        if scope["method"] == "GET":
            return 200, found
        if scope["method"] != "POST":
            raise _method_error(scope["method"], "GET", "POST")
        return (200 if found["verdict"] in passing else BAD_FOR_WEBHOOKS), found


def _method_error(method: str, *known: str) -> MethodError:
    return MethodError(f"{method} is not supported here; use {' or '.join(known)}", (("allow", ", ".join(known)),))


def _limits(asked: dict[str, str]) -> Limits:
    """Return the limits that a query names, each a share."""
    shares = {}
    for name, text in asked.items():
        if name not in Limits.__dataclass_fields__:
            raise RequestError(f"no such parameter '{name[:100]}'; there is arm, errors, p99, agreement and while")
        try:
            shares[name] = float(text)
        except ValueError:
            shares[name] = -1.0
        if not 0 <= shares[name] <= 1:
            raise RequestError(f"'{name}' must be a share, 0 to 1")
    return Limits(**shares)


async def read_object(head: Head, receive: Receive) -> dict[str, Any]:
    """Return the JSON object in a request's body; an empty one without a body."""
    body = bytes(await read_body(head, receive, MOST_BYTES))
    if not body.strip():
        return {}
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict):
        raise RequestError("the body must be an object")
    return content
