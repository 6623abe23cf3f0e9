"""Independent readings of what a decoder accepted: other parsers, written for clarity, knowing nothing of limits."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow as pa

from hone.services.grpc.v2 import CONTENTS
from hone.signature import Signature, TensorSpec
from tests.fuzz.valid import Tensors, Valid, wire


def agrees(protocol: str, request: Valid, found: Tensors) -> None:
    """Raise AssertionError unless an independent reading of a request gives the same tensors."""
    if protocol == "raw":
        (spec,) = request.signature.inputs
        assert wire(found[spec.name], spec.dtype) == request.body
        return
    wanted = READINGS[protocol](request)
    assert set(wanted) == set(found), (set(wanted), set(found))
    for name, array in wanted.items():
        assert array.shape == found[name].shape, (array.shape, found[name].shape)
        np.testing.assert_array_equal(found[name], array)


def _nested(value: Any, spec: TensorSpec) -> np.ndarray:
    kind = spec.numpy_dtype.kind
    if kind == "f":
        with np.errstate(over="ignore"):
            return np.array(value, np.float64).astype(spec.numpy_dtype)
    return np.array(value, dtype=object).astype(spec.numpy_dtype)


def _named(values: dict[str, Any], signature: Signature) -> Tensors:
    return {name: _nested(value, signature.input(name)) for name, value in values.items()}


def _predict(request: Valid) -> Tensors:
    return _named(json.loads(request.body)["inputs"], request.signature)


def _v1(request: Valid) -> Tensors:
    content = json.loads(request.body)
    only = request.signature.inputs[0].name
    if "inputs" in content:
        values = content["inputs"]
        return _named(values if isinstance(values, dict) else {only: values}, request.signature)
    rows = content["instances"]
    if not isinstance(rows[0], dict):
        return _named({only: rows}, request.signature)
    return _named({name: [row[name] for row in rows] for name in rows[0]}, request.signature)


def _bytes(content: bytes, spec: TensorSpec, shape: Any) -> np.ndarray:
    if spec.dtype == "string":
        texts = []
        while content:
            size = int.from_bytes(content[:4], "little")
            texts.append(content[4 : 4 + size].decode())
            assert len(content) >= 4 + size
            content = content[4 + size :]
        return np.array(texts, dtype=object).reshape(tuple(shape))
    if spec.dtype == "bfloat16":
        upper = np.frombuffer(content, "<u2").astype(np.uint32)
        return (upper << 16).view(np.float32).reshape(tuple(shape))
    return np.frombuffer(content, spec.numpy_dtype).reshape(tuple(shape))


def _v2(request: Valid) -> Tensors:
    size = int(request.head.get(b"inference-header-content-length", len(request.body)))
    position = size
    found: Tensors = {}
    for entry in json.loads(request.body[:size])["inputs"]:
        spec = request.signature.input(entry["name"])
        length = (entry.get("parameters") or {}).get("binary_data_size")
        if length is None:
            found[spec.name] = _nested(entry["data"], spec).reshape(entry["shape"])
        else:
            found[spec.name] = _bytes(request.body[position : position + length], spec, entry["shape"])
            position += length
    assert position == len(request.body)
    return found


def _grpc(request: Valid) -> Tensors:
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelInferRequest.FromString(request.body)
    found: Tensors = {}
    for index, entry in enumerate(message.inputs):
        spec = request.signature.input(entry.name)
        if message.raw_input_contents:
            found[spec.name] = _bytes(message.raw_input_contents[index], spec, entry.shape)
        else:
            values = list(getattr(entry.contents, CONTENTS[spec.dtype]))
            texts = [value.decode() for value in values] if spec.dtype == "string" else values
            found[spec.name] = np.array(texts, dtype=object).astype(spec.numpy_dtype).reshape(tuple(entry.shape))
    return found


def _npy(request: Valid) -> Tensors:
    (spec,) = request.signature.inputs
    file = io.BytesIO(request.body)
    array = np.load(file, allow_pickle=False)
    assert not file.read()
    return {spec.name: array.astype(spec.numpy_dtype)}


def _arrow(request: Valid) -> Tensors:
    source = pa.BufferReader(request.body)
    with pa.ipc.open_stream(source) as reader:
        table = reader.read_all()
    assert source.tell() == len(request.body) and request.body.endswith(b"\xff\xff\xff\xff\0\0\0\0")
    only = request.signature.inputs[0]
    if len(request.signature.inputs) == 1 and only.name not in table.column_names and len(only.shape) == 2:
        rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
        return {only.name: _nested(rows, only)}
    found: Tensors = {}
    for name in table.column_names:
        spec = request.signature.input(name)
        array = _nested(table.column(name).to_pylist(), spec)
        found[name] = array.reshape(-1, 1) if array.ndim == 1 and len(spec.shape) == 2 else array
    return found


READINGS = {
    "predict": _predict, "v1": _v1, "v2": _v2, "v2_binary": _v2, "grpc": _grpc, "npy": _npy, "arrow": _arrow,
}  # fmt: skip
