"""OpenAPI's words for what protocols read and write: bodies, objects, tensors as nested lists."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np

from hone.signature import Tensors, TensorSpec

from ..http.responses import JSON

BINARY_BODY = {"schema": {"type": "string", "format": "binary"}}


def json_body(schema: dict[str, Any], example: Any = None) -> dict[str, Any]:
    """Return a body of JSON, by its content type."""
    return {JSON.decode(): {"schema": schema} if example is None else {"schema": schema, "example": example}}


def object_of(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    """Return the schema of an object with these properties and no others."""
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def nested(rows: Tensors) -> dict[str, Any]:
    """Return tensors as nested lists, by name."""
    return {name: values_of(array) for name, array in rows.items()}


def values_of(array: np.ndarray) -> Any:
    """Return a tensor as nested lists; bytes of files in base64, as JSON has them."""
    files = array.dtype.kind == "O" and array.size and isinstance(array.flat[0], bytes)
    return [b64encode(item).decode() for item in array] if files else array.tolist()


def tensors(specs: tuple[TensorSpec, ...]) -> dict[str, Any]:
    """Return the schema of an object of tensors, by name."""
    return object_of({spec.name: _tensor(spec) for spec in specs}, [spec.name for spec in specs])


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
