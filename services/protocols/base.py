"""What a wire protocol is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from hone.signature import Signature, Tensors

from ..http.failures import RequestError
from ..http.limits import NO_MORE_THAN, Limits
from ..http.responses import OFFLOAD_BYTES, Body, Fields, Head

DEADLINE = b"x-timeout-ms"
"""How long the caller will wait, milliseconds: a request that can't be answered in that time is refused at once."""


@dataclass(slots=True)
class Request:
    """A request that was understood.

    Attributes:
        inputs: checked against the signature, in its order.
        timeout_s: how long the caller will wait, or None.
        form: what the answer's form depends on; private to the protocol.
    """

    inputs: Tensors
    timeout_s: float | None = None
    form: Any = None


class Protocol(ABC):
    """Requests and answers of one served model in one wire format.

    Args:
        signature: of the model.
        name: of the model.
        version: of the model.
        limits: of one request.

    Attributes:
        quick_bytes: a body up to this size is decoded on the event loop, a larger one in a thread.
    """

    quick_bytes: ClassVar[int] = OFFLOAD_BYTES

    def __init__(self, signature: Signature, name: str, version: str, limits: Limits = NO_MORE_THAN) -> None:
        self.signature = signature
        self.name = name
        self.version = version
        self.limits = limits

    @property
    def tag(self) -> str:
        return f"{self.name}:{self.version}"

    @abstractmethod
    def decode(self, head: Head, body: Body) -> Request:
        """Return the request.

        Raises:
            RequestError: not of this protocol, or not all of it is there.
            BodyTooLargeError: it asks for more than one request may.
            SignatureError: naming the input that is missing, unknown, or of a wrong dtype or shape.
        """

    @abstractmethod
    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        """Return headers and body of the answer."""

    def in_text(self, request: Request) -> bool:
        """Return whether numbers are written out in the answer to a request."""
        return True


def timeout_of(head: Head) -> float | None:
    """Return the seconds that `x-timeout-ms` allows, or None.

    Raises:
        RequestError: it is not a number.
    """
    text = head.get(DEADLINE)
    if text is None:
        return None
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = float("nan")
    if not milliseconds < 1e9:
        raise RequestError(f"x-timeout-ms: '{text.decode('latin-1')[:40]}' is not a number of milliseconds")
    return milliseconds / 1e3
