"""What a wire protocol is, where it answers, and the register of all of them.

A file of this folder holds one protocol, or several that belong together, and registers each at an endpoint: one of its
own with paths of its own, or one that is there, whose protocols a header tells apart. Nothing else names it: models
answer its paths, keys and limits hold there, and `/docs.json` describes them.
"""

from __future__ import annotations

import string
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from hone.artifact import Artifact
from hone.signature import Signature, Tensors

from ..http.failures import RequestError
from ..http.limits import NO_MORE_THAN, Limits
from ..http.responses import OFFLOAD_BYTES, Body, Fields, Head

DEADLINE = b"x-timeout-ms"
"""How long the caller will wait, milliseconds: a request that can't be answered in that time is refused at once."""

CONTENT_TYPE = b"content-type"


@dataclass(frozen=True)
class Endpoint:
    """Paths, asked by POST, at which every model answers: in one protocol, or in several that a header tells apart.

    Attributes:
        label: in metrics, logs and traces.
        model: path of a model, with {name} in it; the version that was loaded last answers.
        version: path of one version, with {name} and {version} in it; empty: there is none.
        default: path of the model that the service was given first; empty: there is none.
        header: whose value says which protocol a request is in; empty: there is one only. A content type that belongs
            to none is refused; any other header's other values leave the request to the protocol under b"".
        first_of_kind: where that model doesn't answer in it, the first one that does has the path `default`.
    """

    label: str
    model: str
    version: str = ""
    default: str = ""
    header: bytes = b""
    first_of_kind: bool = False

    def __post_init__(self) -> None:
        """Raise ValueError for paths that don't say what they should, or would take others' place."""
        kinds: dict[str, set[str]] = {"model": {"name"}, "version": {"name", "version"}, "default": set()}
        for kind, wanted in kinds.items():
            template = getattr(self, kind)
            if not template and kind != "model":
                continue
            named = {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}
            fixed = template.partition("{")[0]
            if named != wanted or not fixed.startswith("/") or len(fixed) < 3:
                holds = " and ".join(f"{{{name}}}" for name in sorted(wanted)) or "nothing in braces"
                raise ValueError(f"endpoint '{self.label}': '{template}' is no path of a {kind}: a /word/ and {holds}")

    @property
    def templates(self) -> tuple[str, ...]:
        """Its paths, with {name} of a model and {version} of it."""
        return tuple(filter(None, (self.default, self.model, self.version)))


@dataclass(frozen=True)
class Part:
    """What OpenAPI says of a protocol.

    Attributes:
        request: of each content type that it reads: schema and example.
        answer: of each content type that it writes: schema and example.
        summary, description: of the path, in words. Those of the endpoint's protocol under b"" count.
        returns: what the answer is, in words; likewise.
    """

    request: dict[str, Any]
    answer: dict[str, Any]
    summary: str = ""
    description: str = ""
    returns: str = ""


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
        names_inputs: requests say which inputs they bring, so that a model with steps can tell its callers' from its
            own; without it they are the model's own.
    """

    quick_bytes: ClassVar[int] = OFFLOAD_BYTES
    names_inputs: ClassVar[bool] = True

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

    @classmethod
    @abstractmethod
    def describe(cls, artifact: Artifact, rows: Tensors) -> Part:
        """Return what OpenAPI says of the protocol.

        Args:
            artifact: of a model that answers in it.
            rows: for an example, by input.
        """

    @classmethod
    def serves(cls, artifact: Artifact) -> bool:
        """Return whether a model can answer in it."""
        return True

    def in_text(self, request: Request) -> bool:
        """Return whether numbers are written out in the answer to a request."""
        return True


Kind = TypeVar("Kind", bound=type[Protocol])
_REGISTER: dict[Endpoint, dict[bytes, type[Protocol]]] = {}


def register(endpoint: Endpoint, *values: bytes) -> Callable[[Kind], Kind]:
    """Let a protocol answer at an endpoint.

    Args:
        endpoint: its own, or that of other protocols.
        values: of the endpoint's header that mean this protocol; b"", the default, means that there is no such header.

    Raises:
        ValueError: another protocol is there, or another endpoint has one of the paths.
    """

    def add(protocol: Kind) -> Kind:
        taken = {template for other in _REGISTER if other != endpoint for template in other.templates}
        for template in endpoint.templates:
            if template in taken:
                raise ValueError(f"{protocol.__module__}: {template} is registered twice")
        there = _REGISTER.setdefault(endpoint, {})
        for value in values or (b"",):
            if value in there:
                raise ValueError(f"{protocol.__module__}: {endpoint.model}: '{value.decode()}' is registered twice")
            there[value] = protocol
        return protocol

    return add


def registered() -> Mapping[Endpoint, Mapping[bytes, type[Protocol]]]:
    return _REGISTER


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
