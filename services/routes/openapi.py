"""Describe the inference paths in OpenAPI by the served artifacts: their inputs, outputs, and rows that really work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.signature import Signature, TensorSpec

from ..http.responses import BINARY
from ..models.examples import example_inputs, zero_inputs
from ..protocols.arrow import ARROW
from ..protocols.raw import NPY
from ..protocols.v2 import DATATYPES

ERRORS = {
    "400": "The body can't be read, or a tensor is missing, unknown, or of a wrong dtype or shape.",
    "401": "Keys are required, and none or a wrong one came.",
    "403": "The key doesn't allow this.",
    "404": "No such model or version is loaded.",
    "413": "The body is over the size limit, compressed or not.",
    "415": "The content type or encoding is not supported.",
    "429": "The key's rate limit is used up; try again after `Retry-After` seconds.",
    "500": "The model failed on this request; the server's log says why.",
    "503": "The queue is full, the deadline can't be met or the service is stopping; try again after `Retry-After` s.",
}


BINARY_SCHEMA = {"schema": {"type": "string", "format": "binary"}}


class Specification(dict[str, Any]):
    """An OpenAPI document, with the method through which BentoML reads it."""

    def asdict(self) -> dict[str, Any]:
        return dict(self)


Rows = dict[str, np.ndarray]


def describe(
    specification: Any, artifacts: dict[str, Artifact], default: str, *, real_rows: bool = True
) -> Specification:
    """Return the specification with the inference paths of all models; `/predict` is the default one's.

    Args:
        specification: BentoML's.
        artifacts: by the model's name.
        default: the name that `/predict` answers for.
        real_rows: False gives zeros as examples, where not everybody who reads this may see data.
    """
    document = Specification(specification.asdict())
    paths = document["paths"]
    for name, artifact in artifacts.items():
        inputs = example_inputs(artifact) if real_rows else zero_inputs(artifact)
        rows = {key: array[:2] for key, array in inputs.items()}
        if name == default:
            paths["/predict"]["post"].update(_predict(artifact, rows))
        paths[f"/models/{name}/predict"] = {"post": {"tags": [name], **_predict(artifact, rows)}}
        paths[f"/v1/models/{name}:predict"] = {"post": {"tags": [name], **_v1(artifact, rows)}}
        paths[f"/v2/models/{name}/infer"] = {"post": {"tags": [name], **_v2(artifact, rows)}}
    return document


def _nested(rows: Rows) -> dict[str, Any]:
    return {name: array.tolist() for name, array in rows.items()}


def _predict(artifact: Artifact, rows: Rows) -> dict[str, Any]:
    manifest, signature = artifact.manifest, artifact.signature
    body = _content(
        _object({"inputs": _tensors(signature.inputs)}, ["inputs"]), {"inputs": _nested(rows)}, required=True
    )
    media = [ARROW.decode()]
    if len(signature.inputs) == 1:
        media += [BINARY.decode(), NPY.decode()]
    body["content"].update(dict.fromkeys(media, BINARY_SCHEMA))
    return {
        "summary": f"Predict with {manifest.name}",
        "description": (
            f"Variant {manifest.variant} ({artifact.runtime}, {manifest.precision}). Tensors are nested lists, rows "
            "first, or binary; concurrent requests are computed together. The header `x-timeout-ms` sets a deadline."
        ),
        "requestBody": body,
        "responses": _responses("One row of each output for each row of input.", _answer(signature), media),
    }


def _v1(artifact: Artifact, rows: Rows) -> dict[str, Any]:
    columns = _nested(rows)
    instances: list[Any] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)]
    if len(columns) == 1:
        instances = next(iter(columns.values()))
    schema = {"type": "object", "properties": {"instances": {"type": "array", "items": {}, "minItems": 1}}}
    answer = {"type": "object", "properties": {"predictions": {"type": "array", "items": {}}}}
    return {
        "summary": f"Predict with {artifact.manifest.name} (KServe V1)",
        "requestBody": _content({**schema, "required": ["instances"]}, {"instances": instances}, required=True),
        "responses": _responses("A prediction for each instance.", answer),
    }


def _v2(artifact: Artifact, rows: Rows) -> dict[str, Any]:
    inputs = [
        {
            "name": spec.name,
            "datatype": DATATYPES[spec.dtype],
            "shape": list(array.shape),
            "data": array.reshape(-1).tolist(),
        }
        for spec, array in zip(artifact.signature.inputs, rows.values(), strict=True)
    ]
    schema = {"type": "object", "properties": {"inputs": {"type": "array", "items": {"type": "object"}}}}
    answer = {"type": "object", "properties": {"outputs": {"type": "array", "items": {"type": "object"}}}}
    return {
        "summary": f"Infer with {artifact.manifest.name} (Open Inference Protocol V2)",
        "requestBody": _content({**schema, "required": ["inputs"]}, {"inputs": inputs}, required=True),
        "responses": _responses("The outputs, in JSON or binary as asked for.", answer, [BINARY.decode()]),
    }


def _responses(text: str, schema: dict[str, Any], media: Sequence[str] = ()) -> dict[str, Any]:
    problem = _content(_object({"error": {"type": "string"}}, ["error"]))
    errors = {status: {"description": meaning, **problem} for status, meaning in ERRORS.items()}
    answer = _content(schema)
    answer["content"].update(dict.fromkeys(media, BINARY_SCHEMA))
    return {"200": {"description": text, **answer}, **errors}


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
