"""Requests in each protocol that a service speaks, and what is wrong with an answer: the caller's side of the wire.

Written from the protocols' descriptions (docs/serving.md; the Open Inference Protocol V2 with its binary tensor
extension), not with the server's code, so that a mistake there is not made here too.
"""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import orjson

from hone.errors import HoneError, did_you_mean
from hone.signature import Signature, TensorSpec

from .sending import protobuf
from .sending.protobuf import field

Inputs = Mapping[str, np.ndarray]

V2_TYPES = {
    "float16": "FP16", "float32": "FP32", "float64": "FP64", "bfloat16": "BF16", "bool": "BOOL", "string": "BYTES",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
}  # fmt: skip
HEADER_LENGTH = "inference-header-content-length"
ARROW = "application/vnd.apache.arrow.stream"
GRPC, GRPC_METHOD = "grpc", "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Call:
    """One HTTP request.

    Attributes:
        path: of the server.
        headers: beside Host and Content-Length.
        body: of the POST.
        rows: of each output of its answer; 0: not known.
    """

    path: str
    headers: dict[str, str]
    body: bytes
    rows: int = 0


@dataclass(frozen=True)
class Expected:
    """What a good answer has; None where anything will do.

    Attributes:
        rows: of each output.
        tag: of the artifact that computed it, in protocols that say so.
        outputs: of the model.
    """

    rows: int | None = None
    tag: str | None = None
    outputs: tuple[TensorSpec, ...] = ()


def to_bytes(array: np.ndarray, dtype: str) -> bytes:
    """Return a tensor as it is sent in binary: little-endian; a string with its length, four bytes, before it."""
    if dtype == "string":
        texts = (str(item).encode() for item in array.reshape(-1))
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    if dtype == "bfloat16":
        return (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def json_call(path: str, inputs: Inputs) -> Call:
    """Return `{"inputs": {name: nested lists}}`."""
    body = orjson.dumps({"inputs": dict(inputs)}, option=orjson.OPT_SERIALIZE_NUMPY, default=np.ndarray.tolist)
    return Call(path, {"content-type": "application/json"}, body)


def v2_json_call(path: str, inputs: Inputs, dtypes: Mapping[str, str]) -> Call:
    """Return a V2 request in JSON; dtypes are a signature's, by input."""
    tensors = [_described(name, array, dtypes[name]) | {"data": array.reshape(-1)} for name, array in inputs.items()]
    body = orjson.dumps({"inputs": tensors}, option=orjson.OPT_SERIALIZE_NUMPY, default=np.ndarray.tolist)
    return Call(path, {"content-type": "application/json"}, body)


def v2_binary_call(path: str, inputs: Inputs, dtypes: Mapping[str, str]) -> Call:
    """Return a V2 request with binary tensors that asks for its answer in binary, too."""
    parts = [to_bytes(array, dtypes[name]) for name, array in inputs.items()]
    tensors = [
        _described(name, array, dtypes[name]) | {"parameters": {"binary_data_size": len(part)}}
        for (name, array), part in zip(inputs.items(), parts, strict=True)
    ]
    header = orjson.dumps({"inputs": tensors, "parameters": {"binary_data_output": True}})
    fields = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(header))}
    return Call(path, fields, b"".join([header, *parts]))


def _described(name: str, array: np.ndarray, dtype: str) -> dict[str, Any]:
    return {"name": name, "datatype": V2_TYPES[dtype], "shape": array.shape}


class Wire(ABC):
    """One protocol."""

    name: str

    @abstractmethod
    def call(self, model_path: str, signature: Signature, inputs: Inputs) -> Call:
        """Return the request for some rows.

        Args:
            model_path: `/models/NAME` of the service, with `/versions/VERSION` where one is meant.
            signature: of the model.
            inputs: by name.

        Raises:
            HoneError: the protocol can't carry them.
        """

    @abstractmethod
    def counts(self, answer: bytes, fields: Mapping[str, str], expected: Expected) -> tuple[set[int], str]:
        """Return the numbers of rows of the answer's outputs, and the tag it names (empty: none).

        Raises:
            ValueError, KeyError, TypeError, AttributeError, IndexError: it is no answer of this protocol.
        """

    def fault(self, status: int, answer: bytes, fields: Mapping[str, str], expected: Expected) -> str:
        """Return what is wrong with an answer, or an empty text: its status, form, model, number of rows."""
        if status != 200:
            return f"status {status}"
        try:
            counts, tag = self.counts(answer, fields, expected)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            return "answer is not a prediction"
        if expected.tag and tag and tag != expected.tag:
            return f"answered by {tag}, not {expected.tag}"
        if expected.rows is None or counts == {expected.rows}:
            return ""
        return f"answer has {sorted(counts)} rows, not {expected.rows}"


class Json(Wire):
    """Nested lists by name, `POST /models/NAME/predict`."""

    name = "json"

    def call(self, model_path: str, signature: Signature, inputs: Inputs) -> Call:
        return json_call(f"{model_path}/predict", inputs)

    def counts(self, answer: bytes, fields: Mapping[str, str], expected: Expected) -> tuple[set[int], str]:
        content = orjson.loads(answer)
        return {len(values) for values in content["outputs"].values()}, content.get("model", "")


class Rows(Wire):
    """Bare little-endian rows of a model with one input, `application/octet-stream`."""

    name = "rows"

    def call(self, model_path: str, signature: Signature, inputs: Inputs) -> Call:
        if len(inputs) != 1:
            raise HoneError(f"the model has {len(inputs)} inputs, bare rows carry one; choose json, v2-binary or arrow")
        ((name, array),) = inputs.items()
        spec = signature.input(name)
        fields = {"content-type": "application/octet-stream"}
        if spec.dtype == "string" or not all(isinstance(axis, int) for axis in spec.shape[1:]):
            fields["x-shape"] = ",".join(map(str, array.shape))
        return Call(f"{model_path}/predict", fields, to_bytes(array, spec.dtype))

    def counts(self, answer: bytes, fields: Mapping[str, str], expected: Expected) -> tuple[set[int], str]:
        if not answer or expected.rows is None or not all(_fixed(spec) for spec in expected.outputs):
            return {expected.rows or 1} if answer else set(), ""
        row = sum(_row_bytes(spec) for spec in expected.outputs)
        if len(answer) % row:
            raise ValueError("not whole rows")
        return {len(answer) // row}, ""


def _fixed(spec: TensorSpec) -> bool:
    return spec.dtype != "string" and all(isinstance(axis, int) for axis in spec.shape[1:])


def _row_bytes(spec: TensorSpec) -> int:
    size = 2 if spec.dtype == "bfloat16" else spec.numpy_dtype.itemsize
    return prod(int(axis) for axis in spec.shape[1:]) * size


class V2Json(Wire):
    """The Open Inference Protocol V2 in JSON, `POST /v2/models/NAME/infer`."""

    name = "v2"

    def call(self, model_path: str, signature: Signature, inputs: Inputs) -> Call:
        return v2_json_call(f"/v2{model_path}/infer", inputs, _dtypes(signature))

    def counts(self, answer: bytes, fields: Mapping[str, str], expected: Expected) -> tuple[set[int], str]:
        content = orjson.loads(answer)
        counts = {output["shape"][0] for output in content["outputs"]}
        return counts, f"{content['model_name']}:{content['model_version']}" if content.get("model_version") else ""


class V2Binary(V2Json):
    """The same with binary tensors, both ways."""

    name = "v2-binary"

    def call(self, model_path: str, signature: Signature, inputs: Inputs) -> Call:
        return v2_binary_call(f"/v2{model_path}/infer", inputs, _dtypes(signature))

    def counts(self, answer: bytes, fields: Mapping[str, str], expected: Expected) -> tuple[set[int], str]:
        size = int(fields[HEADER_LENGTH])
        content = orjson.loads(answer[:size])
        if sum(output["parameters"]["binary_data_size"] for output in content["outputs"]) != len(answer) - size:
            raise ValueError("the tensors are not as long as the header says")
        return super().counts(answer[:size], fields, expected)


class Arrow(Wire):
    """A table in, a table out: Arrow IPC streams, a column an input."""

    name = "arrow"

    def call(self, model_path: str, signature: Signature, inputs: Inputs) -> Call:
        pa = _pyarrow()
        columns = [_column(pa, name, array) for name, array in inputs.items()]
        table = pa.table(columns, names=list(inputs))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return Call(f"{model_path}/predict", {"content-type": ARROW}, sink.getvalue().to_pybytes())

    def counts(self, answer: bytes, fields: Mapping[str, str], expected: Expected) -> tuple[set[int], str]:
        pa = _pyarrow()
        with pa.ipc.open_stream(answer) as reader:
            return {reader.read_all().num_rows}, ""


class Grpc(Wire):
    """V2 over gRPC, with raw tensors both ways: ModelInferRequest and ModelInferResponse of the protocol."""

    name = GRPC

    def call(self, model_path: str, signature: Signature, inputs: Inputs) -> Call:
        name, _, version = model_path.removeprefix("/models/").partition("/versions/")
        dtypes = _dtypes(signature)
        message = [field(1, name), *([field(2, version)] if version else [])]
        for tensor, array in inputs.items():
            described = [field(1, tensor), field(2, V2_TYPES[dtypes[tensor]]), field(3, array.shape)]
            message.append(field(5, b"".join(described)))
        raw = [field(7, to_bytes(array, dtypes[tensor])) for tensor, array in inputs.items()]
        return Call(GRPC_METHOD, {}, b"".join([*message, *raw]))

    def counts(self, answer: bytes, fields: Mapping[str, str], expected: Expected) -> tuple[set[int], str]:
        found: dict[int, list[Any]] = {1: [], 2: [], 5: []}
        for number, value in protobuf.fields(answer):
            found.setdefault(number, []).append(value)
        shapes = [
            [size for number, value in protobuf.fields(output) if number == 3 for size in protobuf.numbers(value)]
            for output in found[5]
        ]
        tag = b":".join(found[1] + found[2]).decode() if found[2] else ""
        return {shape[0] for shape in shapes}, tag


def _pyarrow() -> Any:
    try:
        import pyarrow
    except ImportError:
        raise HoneError("the protocol arrow needs pyarrow; pip install 'hone[ops]'") from None
    return pyarrow


def _column(pa: Any, name: str, array: np.ndarray) -> Any:
    flat = pa.array(array.reshape(-1).tolist() if array.dtype == object else np.ascontiguousarray(array).reshape(-1))
    if array.ndim == 1:
        return flat
    if array.ndim > 2:
        # A column holds lists; a service gives them the signature's shape back.
        array = array.reshape(len(array), -1)
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def _dtypes(signature: Signature) -> dict[str, str]:
    return {spec.name: spec.dtype for spec in signature.inputs}


WIRES: dict[str, Wire] = {wire.name: wire for wire in (Json(), Rows(), V2Json(), V2Binary(), Grpc(), Arrow())}


def wire(name: str) -> Wire:
    """Return a protocol by its name; raises HoneError with the nearest one."""
    if name not in WIRES:
        raise HoneError(f"no protocol '{name}'{did_you_mean(name, WIRES)}")
    return WIRES[name]
