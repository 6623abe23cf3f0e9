"""Describe `/predict` in OpenAPI by the served artifact: its inputs, outputs, and rows that really work."""

from __future__ import annotations

from typing import Any

from hone.artifact import Artifact
from hone.signature import Signature, TensorSpec
from services.loading import example_inputs

ERRORS = {
    "400": "The body is not JSON, or a tensor is missing, unknown, or of a wrong dtype or shape.",
    "413": "The body is over the size limit.",
    "415": "The content type is not application/json.",
    "500": "The model failed on this request; the server's log says why.",
    "503": "The queue is full or the service is stopping; try again after `Retry-After` seconds.",
}


class Specification(dict[str, Any]):
    """An OpenAPI document, with the method through which BentoML reads it."""

    def asdict(self) -> dict[str, Any]:
        return dict(self)


def describe_predict(specification: Any, artifact: Artifact, path: str) -> Specification:
    """Return the specification with `path` described for an artifact."""
    document = Specification(specification.asdict())
    signature = artifact.signature
    example = {name: array[:2].tolist() for name, array in example_inputs(artifact).items()}
    document["paths"][path]["post"].update(
        {
            "summary": f"Predict with {artifact.manifest.name}",
            "description": (
                f"Variant {artifact.manifest.variant} ({artifact.runtime}, {artifact.manifest.precision}). "
                "Tensors are nested lists, rows first; concurrent requests are computed together."
            ),
            "requestBody": _content(
                _object({"inputs": _tensors(signature.inputs)}, ["inputs"]), {"inputs": example}, required=True
            ),
            "responses": {
                "200": {
                    "description": "One row of each output for each row of input.",
                    **_content(
                        _object(
                            {"outputs": _tensors(signature.outputs), "model": {"type": "string"}}, ["outputs", "model"]
                        )
                    ),
                },
                **{
                    status: {
                        "description": text,
                        **_content(_object({"error": {"type": "string"}}, ["error"])),
                    }
                    for status, text in ERRORS.items()
                },
            },
        }
    )
    return document


def _answer(signature: Signature) -> dict[str, Any]:
    properties = {"outputs": _tensors(signature.outputs), "model": {"type": "string", "description": "The tag."}}
    return _object(properties, ["outputs", "model"])


def _content(schema: dict[str, Any], example: Any = None, *, required: bool = False) -> dict[str, Any]:
    media: dict[str, Any] = {"schema": schema}
    if example is not None:
        media["example"] = example
    body: dict[str, Any] = {"content": {"application/json": media}}
    return {**body, "required": True} if required else body


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _tensors(specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    return _object({spec.name: _tensor(spec) for spec in specs}, [spec.name for spec in specs])


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    """Nested arrays, one level an axis; fixed sizes become limits."""
    kind = spec.numpy_dtype.kind
    schema: dict[str, Any] = {"type": {"f": "number", "b": "boolean", "O": "string"}.get(kind, "integer")}
    if kind == "f" and spec.allow_nan:
        schema["nullable"] = True
    for axis in reversed(spec.shape):
        limits = {"minItems": axis, "maxItems": axis} if isinstance(axis, int) else {"minItems": 1}
        schema = {"type": "array", "items": schema, **limits}
    return {**schema, "description": spec.describe()}
