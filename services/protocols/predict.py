"""`POST /predict` with JSON: `{"inputs": {name: nested lists}}`, the form that BentoML's clients and people use."""

from __future__ import annotations

from hone.signature import Tensors

from ..http.responses import JSON, Body, Fields, Head
from .base import Protocol, Request, timeout_of
from .json_tensors import parse_request
from .tensors import encode_response


class PredictJson(Protocol):
    """Nested lists by input name; the answer names the model that made it."""

    def decode(self, head: Head, body: Body) -> Request:
        return Request(parse_request(body, self.signature, self.limits), timeout_of(head))

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        return [(b"content-type", JSON)], encode_response(outputs, self.tag)
