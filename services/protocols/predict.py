"""`POST /predict` with JSON: `{"inputs": {name: nested lists}}`, the form that BentoML's clients and people use."""

from __future__ import annotations

from hone.artifact import Artifact
from hone.runtimes import remark
from hone.signature import Tensors
from hone.steps.ready import offered_by

from ..http.responses import JSON, Body, Fields, Head
from .base import CONTENT_TYPE, Endpoint, Part, Protocol, Request, register, timeout_of
from .json_tensors import parse_request
from .schemas import json_body, nested, object_of, tensors
from .tensors import encode_response

PREDICT = Endpoint(
    "predict",
    model="/models/{name}/predict",
    version="/models/{name}/versions/{version}/predict",
    default="/predict",
    header=CONTENT_TYPE,
)
"""For whatever is told apart by its content type."""


@register(PREDICT, b"", JSON)
class PredictJson(Protocol):
    """Nested lists by input name; the answer names the model that made it."""

    def decode(self, head: Head, body: Body) -> Request:
        return Request(parse_request(body, self.signature, self.limits), timeout_of(head))

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        return [(b"content-type", JSON)], encode_response(outputs, self.tag)

    @classmethod
    def describe(cls, artifact: Artifact, rows: Tensors) -> Part:
        manifest, signature = artifact.manifest, offered_by(artifact)
        runtime = remark(manifest) or artifact.runtime
        tag = {"type": "string", "description": "The tag."}
        answer = {"outputs": tensors(signature.outputs), "model": tag}
        return Part(
            json_body(object_of({"inputs": tensors(signature.inputs)}, ["inputs"]), {"inputs": nested(rows)}),
            json_body(object_of(answer, ["outputs", "model"])),
            f"Predict with {manifest.name}",
            f"Variant {manifest.variant} ({runtime}, {manifest.precision}). Tensors are nested lists, rows first, or "
            "binary; concurrent requests are computed together. The header `x-timeout-ms` sets a deadline.",
            "One row of each output for each row of input.",
        )
