"""The paths of a model whose requests are split: each request goes to an arm, which answers it as any version does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ...arms.active import ActiveSplit
from ...arms.counts import BY_CALLER, BY_FALLBACK, BY_SPLIT
from ...http.failures import RequestError
from ...http.responses import Receive, Scope, Send, respond_error
from ...observe.shadow import Shadow
from ...protocols.base import Endpoint, Protocol
from ..edge import Edge
from ..endpoint import InferEndpoint
from ..served import ServedModel

Message = Mapping[str, Any]
Answer = Callable[[Scope, Receive, Send], Awaitable[None]]

UNANSWERED = (500, 503)
"""Statuses of an arm that failed on a request, or shed it."""


class SplitEndpoint:
    """One model at one endpoint, by its arms.

    Args:
        endpoint: where it answers.
        active: deals requests out.
        arms: the versions, in the order of the split's arms.
        protocols: as `InferEndpoint` takes them.
        edge: what stands around it.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        active: ActiveSplit,
        arms: list[ServedModel],
        protocols: Mapping[bytes, type[Protocol]],
        edge: Edge,
    ) -> None:
        self._active, self._edge, self._name = active, edge, active.split.model
        pairs = list(zip(active.split.arms, arms, strict=True))
        self._ways = {
            by: [InferEndpoint(endpoint, served, protocols, edge, active.counts[arm.name][by]) for arm, served in pairs]
            for by in (BY_SPLIT, BY_CALLER, BY_FALLBACK)
        }
        self._fallback = active.split.fallback and len(arms) > 1

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        try:
            place, by = self._active.place(dict(scope["headers"]))
        except RequestError as error:
            return self._refuse(scope, send, error)
        answer = self._ways[by][place]
        if self._fallback:
            return self._with_fallback(answer, place, scope, receive, send)
        return answer(scope, receive, send)

    async def _refuse(self, scope: Scope, send: Send, error: RequestError) -> None:
        """Tell a caller which arms there are, if they may call the model at all."""
        try:
            await self._edge.admit(dict(scope["headers"]), "predict", self._name)
        except Exception as refused:  # noqa: BLE001 - whatever it is, it is what the caller gets
            await respond_error(send, refused)
            return
        await respond_error(send, error)

    async def _with_fallback(self, first: Answer, place: int, scope: Scope, receive: Receive, send: Send) -> None:
        """Let an arm answer, and the next one where it can't."""
        held = _Held(receive, send)
        await first(scope, held.receive, held.send)
        if held.unanswered:
            held.begin_again()
            others = self._ways[BY_FALLBACK]
            await others[(place + 1) % len(others)](scope, held.receive, send)


class _Held:
    """Keeps a request's messages, to give them once more, and keeps back the answer of an arm that has none."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._messages: list[Any] = []
        self._given = 0
        self.unanswered = False

    async def receive(self) -> Any:
        if self._given == len(self._messages):
            self._messages.append(await self._receive())
        self._given += 1
        return self._messages[self._given - 1]

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.unanswered = message["status"] in UNANSWERED
        if not self.unanswered:
            await self._send(message)

    def begin_again(self) -> None:
        self._given = 0


def shadow_arms(active: ActiveSplit, arms: list[ServedModel]) -> None:
    """Let the stable arm compute a share of the others' requests, too, where the split asks for it."""
    split = active.split
    for arm in split.arms[1:]:
        counts = active.counts[arm.name][BY_SPLIT]
        if split.compare:
            counts.shadow = Shadow(arms[0].infer, sample=split.compare, observe=counts.compared)
