"""KServe's V1 protocol, which is TensorFlow Serving's REST form: `POST /v1/models/NAME:predict`.

`{"instances": [row, ...]}` is answered by `{"predictions": [row, ...]}`; a model with one input takes its bare rows,
one with several takes objects by input name. `{"inputs": {name: rows}}` is answered by `{"outputs": {name: rows}}`.
A value may stand alone where the model takes [batch, 1], as in the rows of a table.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from hone.artifact import Artifact
from hone.errors import SignatureError, shorten
from hone.signature import BATCH, Signature, Tensors

from ..http.failures import RequestError
from ..http.limits import NO_MORE_THAN, Limits
from ..http.responses import JSON, Body, Fields, Head
from .base import Endpoint, Part, Protocol, Request, register, timeout_of
from .json_tensors import parse_inputs, read_json
from .schemas import json_body, nested
from .tensors import encodable

KNOWN = ("instances", "inputs", "signature_name")


@register(Endpoint("v1", model="/v1/models/{name}:predict"))
class V1(Protocol):
    """Rows or columns of JSON."""

    def __init__(self, signature: Signature, name: str, version: str, limits: Limits = NO_MORE_THAN) -> None:
        super().__init__(signature, name, version, limits)
        self._single = {spec.name for spec in signature.inputs if spec.shape == (BATCH, 1)}

    def decode(self, head: Head, body: Body) -> Request:
        content = read_json(body, self.limits)
        if not isinstance(content, dict) or ("instances" in content) == ("inputs" in content):
            raise RequestError('the body must have either "instances", a list of rows, or "inputs", columns by name')
        for key in content:
            if key not in KNOWN:
                raise RequestError(f"unknown field '{shorten(key)}'; known are {', '.join(KNOWN)}")
        by_row = "instances" in content
        values = self._columns(content["instances"]) if by_row else self._named(content["inputs"])
        values = {name: self._column(name, value) for name, value in values.items()}
        return Request(parse_inputs(values, self.signature, self.limits), timeout_of(head), by_row)

    def _column(self, name: str, values: Any) -> Any:
        """Return a column of one value a row as the model takes it: a row of a table has plain values, not lists."""
        single = name in self._single and isinstance(values, list) and values and not isinstance(values[0], list)
        return [[value] for value in values] if single else values

    def _named(self, inputs: Any) -> dict[str, Any]:
        if isinstance(inputs, dict):
            return inputs
        if len(self.signature.inputs) == 1:
            return {self.signature.inputs[0].name: inputs}
        raise RequestError(f'"inputs" must be an object of {", ".join(self.signature.input_names)}')

    def _columns(self, instances: Any) -> dict[str, Any]:
        if not isinstance(instances, list) or not instances:
            raise RequestError('"instances" must be a list of at least one row')
        self.limits.check_rows(len(instances))
        if not isinstance(instances[0], dict):
            if len(self.signature.inputs) > 1:
                raise RequestError(f"each row must be an object of {', '.join(self.signature.input_names)}")
            return {self.signature.inputs[0].name: instances}
        names = instances[0].keys()
        for index, row in enumerate(instances):
            if not isinstance(row, dict) or row.keys() != names:
                raise SignatureError(f"row {index} has other fields than row 0: {shorten(', '.join(names))}")
        return {name: [row[name] for row in instances] for name in names}

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        values = {name: encodable(array) for name, array in outputs.items()}
        if not request.form:
            content: Any = {"outputs": values}
        elif len(values) == 1:
            content = {"predictions": next(iter(values.values()))}
        else:
            rows = zip(*values.values(), strict=True)
            content = {"predictions": [dict(zip(values, map(_row, row), strict=True)) for row in rows]}
        return [(b"content-type", JSON)], orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)

    @classmethod
    def describe(cls, artifact: Artifact, rows: Tensors) -> Part:
        columns = nested(rows)
        instances: list[Any] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=False)]
        if len(columns) == 1:
            instances = next(iter(columns.values()))
        schema = {"type": "object", "properties": {"instances": {"type": "array", "items": {}, "minItems": 1}}}
        answer = {"type": "object", "properties": {"predictions": {"type": "array", "items": {}}}}
        return Part(
            json_body({**schema, "required": ["instances"]}, {"instances": instances}),
            json_body(answer),
            summary=f"Predict with {artifact.manifest.name} (KServe V1)",
            returns="A prediction for each instance.",
        )


def _row(value: Any) -> Any:
    if isinstance(value, np.integer):
        return int(value)  # orjson knows NumPy's int64, but not its long long, which is ONNX Runtime's
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) and value.ndim else value
