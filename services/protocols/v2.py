"""The Open Inference Protocol, V2 (KServe, Triton): `POST /v2/models/NAME[/versions/VERSION]/infer`.

JSON, or the binary tensor extension both ways: the body is a JSON header of `Inference-Header-Content-Length` bytes and
the tensors' bytes behind it. Specification: the Open Inference Protocol's REST document and Triton's
`extension_binary_data` and `extension_parameters` (the request parameter `timeout`, microseconds).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import orjson

from hone.artifact import Artifact
from hone.errors import SignatureError, did_you_mean, shorten
from hone.signature import Signature, Tensors, TensorSpec
from hone.steps.ready import offered_by

from ..http.failures import RequestError
from ..http.limits import MAX_AXES, NO_MORE_THAN, Limits
from ..http.responses import BINARY, JSON, Body, Fields, Head
from .base import Endpoint, Part, Protocol, Request, register, timeout_of
from .json_tensors import read_json, to_array
from .raw import RawBytes
from .schemas import BINARY_BODY, json_body, values_of
from .tensors import check_finite, encodable, from_bytes, to_bytes

HEADER_LENGTH = b"inference-header-content-length"
DATATYPES = {
    "bytes": "BYTES", "float16": "FP16", "float32": "FP32", "float64": "FP64", "bfloat16": "BF16", "bool": "BOOL",
    "string": "BYTES",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
INFER = Endpoint(
    "v2",
    model="/v2/models/{name}/infer",
    version="/v2/models/{name}/versions/{version}/infer",
    header=HEADER_LENGTH,
)
register(INFER, b"0")(RawBytes)  # Triton's raw binary request: no header, so the body is the one input's bytes

MAX_CACHED_HEADER = 4096
MAX_ID = 1024


@dataclass(frozen=True)
class InputHeader:
    """One input as the JSON header describes it."""

    name: str
    shape: tuple[int, ...]
    binary_size: int | None
    data: Any


@dataclass(frozen=True)
class Header:
    """A request's JSON, understood but for its tensors.

    Attributes:
        id: echoed in the answer; empty when there is none.
        timeout_s: from the parameter `timeout`.
        inputs: in the request's order.
        outputs: (name, in binary) of the outputs asked for, in that order.
        signature: that it is of.
    """

    id: str
    timeout_s: float | None
    inputs: tuple[InputHeader, ...]
    outputs: tuple[tuple[str, bool], ...]
    signature: Signature


@register(INFER)
class V2(Protocol):
    """V2 over HTTP. Headers of binary requests repeat, so the last ones are remembered instead of parsed again."""

    def __init__(self, signature: Signature, name: str, version: str, limits: Limits = NO_MORE_THAN) -> None:
        super().__init__(signature, name, version, limits)
        self._remembered = lru_cache(maxsize=256)(self._parse)
        self._answer_head = lru_cache(maxsize=256)(self._binary_head)

    def decode(self, head: Head, body: Body) -> Request:
        declared = head.get(HEADER_LENGTH)
        if declared is None:
            header, tensors = self._parse(body), memoryview(b"")
        else:
            size = int(declared) if declared.isdigit() and len(declared) < 12 else -1
            if not 0 < size <= len(body):
                raise RequestError(
                    f"Inference-Header-Content-Length is '{declared.decode('latin-1')[:20]}', the body has "
                    f"{len(body)} bytes"
                )
            view = memoryview(body)
            text = bytes(view[:size])
            header = (self._remembered if size <= MAX_CACHED_HEADER else self._parse)(text)
            tensors = view[size:]
        return Request(self._tensors(header, tensors), _timeout(header, head), header)

    def _tensors(self, header: Header, content: memoryview) -> Tensors:
        arrays: Tensors = {}
        position = 0
        for entry in header.inputs:
            spec = header.signature.input(entry.name)
            if entry.binary_size is None:
                array = self._from_json(entry, spec)
            else:
                end = position + entry.binary_size
                if end > len(content):
                    raise RequestError(
                        f"input '{entry.name}': binary_data_size is {entry.binary_size}, only "
                        f"{len(content) - position} bytes are left"
                    )
                array = from_bytes(content[position:end], spec, entry.shape, self.limits)
                check_finite(array, spec)
                position = end
            arrays[entry.name] = array
        if position != len(content):
            raise RequestError(f"{len(content) - position} bytes behind the last binary tensor")
        return self.limits.check(header.signature, arrays)

    def _parse(self, text: Body) -> Header:
        content = read_json(text, self.limits)
        if not isinstance(content, dict) or not isinstance(content.get("inputs"), list):
            raise RequestError('the body must be an object with "inputs", a list of tensors')
        identity = content.get("id", "")
        if not isinstance(identity, str) or len(identity) > MAX_ID:
            raise RequestError(f'"id" must be a string of at most {MAX_ID} characters')
        parameters = _parameters(content, "the request")
        signature = self.signature.taken_by(_names(content["inputs"]))
        if len(content["inputs"]) > len(signature.inputs):
            raise RequestError(f"{len(content['inputs'])} inputs, the model has {len(signature.inputs)}")
        inputs = tuple(self._input(entry, signature) for entry in content["inputs"])
        if len({entry.name for entry in inputs}) != len(inputs):
            raise RequestError("an input is given twice")
        outputs = _outputs(content.get("outputs"), parameters.get("binary_data_output") is True, signature)
        return Header(identity, _timeout_parameter(parameters), inputs, outputs, signature)

    def _input(self, entry: Any, signature: Signature) -> InputHeader:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise RequestError('each of "inputs" must be an object with "name", "datatype", "shape" and data')
        spec = signature.input(entry["name"])
        datatype, shape = entry.get("datatype"), entry.get("shape")
        if datatype != DATATYPES[spec.dtype]:
            raise SignatureError(
                f"input '{spec.name}' has datatype {shorten(datatype)}, expected {DATATYPES[spec.dtype]}"
            )
        if not isinstance(shape, list) or len(shape) > MAX_AXES or not all(type(size) is int for size in shape):
            raise RequestError(f"input '{spec.name}': \"shape\" must be a list of sizes, {MAX_AXES} at most")
        self.limits.count(spec, shape)
        size = _parameters(entry, f"input '{spec.name}'").get("binary_data_size")
        if size is None and "data" not in entry:
            raise RequestError(f"input '{spec.name}' has neither \"data\" nor the parameter binary_data_size")
        if size is not None and (type(size) is not int or size < 0):
            raise RequestError(f"input '{spec.name}': binary_data_size must be a number of bytes")
        return InputHeader(spec.name, tuple(shape), size, entry.get("data"))

    def _from_json(self, entry: InputHeader, spec: TensorSpec) -> np.ndarray:
        """Return `data`, flat in row-major order or nested."""
        array = to_array(entry.data, spec)
        if array.size != self.limits.count(spec, entry.shape):
            raise SignatureError(
                f"input '{spec.name}' of shape {list(entry.shape)} has {array.size} values in \"data\""
            )
        return array.reshape(entry.shape)

    def in_text(self, request: Request) -> bool:
        return not all(binary for _, binary in request.form.outputs)

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        header: Header = request.form
        if all(binary for _, binary in header.outputs):
            return self._encode_binary(header, outputs)
        described: list[dict[str, Any]] = []
        parts: list[Body] = []
        for name, binary in header.outputs:
            array = outputs[name]
            spec = _output(header.signature, name)
            entry: dict[str, Any] = {"name": name, "datatype": DATATYPES[spec.dtype], "shape": list(array.shape)}
            if binary:
                part = to_bytes(_wire(spec, array))
                entry["parameters"] = {"binary_data_size": len(part)}
                parts.append(part)
            else:
                entry["data"] = encodable(array.reshape(-1))
            described.append(entry)
        text = self._head(header.id, described)
        if not parts:
            return [(b"content-type", JSON)], text
        return self._fields(len(text)), b"".join([text, *parts])

    def _encode_binary(self, header: Header, outputs: Tensors) -> tuple[Fields, Body]:
        specs = [_output(header.signature, name) for name, _ in header.outputs]
        parts = [to_bytes(_wire(spec, outputs[spec.name])) for spec in specs]
        layout = tuple(
            (spec.name, spec.dtype, outputs[spec.name].shape, len(part))
            for spec, part in zip(specs, parts, strict=True)
        )
        text = self._binary_head(header.id, layout) if header.id else self._answer_head("", layout)
        return self._fields(len(text)), b"".join([text, *parts])

    def _binary_head(self, identity: str, layout: tuple[tuple[str, str, tuple[int, ...], int], ...]) -> bytes:
        described = [
            {
                "name": name,
                "datatype": DATATYPES[dtype],
                "shape": list(shape),
                "parameters": {"binary_data_size": size},
            }
            for name, dtype, shape, size in layout
        ]
        return self._head(identity, described)

    def _head(self, identity: str, outputs: list[dict[str, Any]]) -> bytes:
        content: dict[str, Any] = {"model_name": self.name, "model_version": self.version, "outputs": outputs}
        if identity:
            content["id"] = identity
        return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)

    @staticmethod
    def _fields(header_size: int) -> Fields:
        return [(b"content-type", BINARY), (HEADER_LENGTH, b"%d" % header_size)]

    @classmethod
    def describe(cls, artifact: Artifact, rows: Tensors) -> Part:
        inputs = [
            {
                "name": spec.name,
                "datatype": DATATYPES[spec.dtype],
                "shape": list(array.shape),
                "data": values_of(array.reshape(-1)),
            }
            for spec, array in zip(offered_by(artifact).inputs, rows.values(), strict=True)
        ]
        schema = {"type": "object", "properties": {"inputs": {"type": "array", "items": {"type": "object"}}}}
        answer = {"type": "object", "properties": {"outputs": {"type": "array", "items": {"type": "object"}}}}
        return Part(
            json_body({**schema, "required": ["inputs"]}, {"inputs": inputs}),
            {**json_body(answer), BINARY.decode(): BINARY_BODY},
            summary=f"Infer with {artifact.manifest.name} (Open Inference Protocol V2)",
            returns="The outputs, in JSON or binary as asked for.",
        )


def _outputs(wanted: Any, binary: bool, signature: Signature) -> tuple[tuple[str, bool], ...]:
    names = signature.output_names
    if wanted is None or wanted == []:
        return tuple((name, binary) for name in names)
    if not isinstance(wanted, list) or len(wanted) > len(names):
        raise RequestError(f'"outputs" must be a list of objects with "name", at most {len(names)}')
    chosen: dict[str, bool] = {}
    for entry in wanted:
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or name not in names:
            raise RequestError(f"no output '{shorten(name)}'{did_you_mean(shorten(name), names)}")
        parameters = _parameters(entry, f"output '{name}'")
        if "classification" in parameters:
            raise RequestError(f"output '{name}': the classification extension is not supported")
        chosen[name] = bool(parameters.get("binary_data", binary))
    return tuple(chosen.items())


def _names(inputs: list[Any]) -> list[str]:
    """Return the names of inputs as far as they have some."""
    found = (entry.get("name") for entry in inputs if isinstance(entry, dict))
    return [name for name in found if isinstance(name, str)]


def _output(signature: Signature, name: str) -> TensorSpec:
    return next(spec for spec in signature.outputs if spec.name == name)


def _wire(spec: TensorSpec, array: np.ndarray) -> np.ndarray:
    """Return an output as its datatype is sent: bfloat16, which numpy lacks, as the upper half of a float32."""
    if spec.dtype == "bfloat16":
        return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return array


def _parameters(content: dict[str, Any], where: str) -> dict[str, Any]:
    parameters = content.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError(f'{where}: "parameters" must be an object')
    return parameters


def _timeout_parameter(parameters: dict[str, Any]) -> float | None:
    value = parameters.get("timeout")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        raise RequestError('the parameter "timeout" must be a number of microseconds')
    return value / 1e6


def _timeout(header: Header, head: Head) -> float | None:
    from_head = timeout_of(head)
    if header.timeout_s is None or from_head is None:
        return from_head if header.timeout_s is None else header.timeout_s
    return min(header.timeout_s, from_head)
