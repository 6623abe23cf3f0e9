"""One picture as the body, `image/jpeg` or `image/png`, for models whose steps take one; the answer is JSON."""

from __future__ import annotations

import numpy as np

from hone.artifact import Artifact
from hone.signature import Tensors
from hone.steps.base import BYTES
from hone.steps.ready import offered_by

from ..http.responses import JSON, Body, Fields, Head
from .base import Part, Protocol, Request, register, timeout_of
from .predict import PREDICT
from .schemas import BINARY_BODY
from .tensors import encode_response

MEDIA = (b"image/jpeg", b"image/png")


@register(PREDICT, *MEDIA)
class Picture(Protocol):
    """The bytes of one file; what they are is told from them."""

    @classmethod
    def serves(cls, artifact: Artifact) -> bool:
        inputs = offered_by(artifact).inputs
        return len(inputs) == 1 and inputs[0].dtype == BYTES

    def decode(self, head: Head, body: Body) -> Request:
        row = np.empty(1, dtype=object)
        row[0] = bytes(body)
        return Request({self.signature.inputs[0].name: row}, timeout_of(head))

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        return [(b"content-type", JSON)], encode_response(outputs, self.tag)

    @classmethod
    def describe(cls, artifact: Artifact, rows: Tensors) -> Part:
        return Part({media.decode(): BINARY_BODY for media in MEDIA}, {})
