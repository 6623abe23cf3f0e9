"""Valid requests of every protocol for signatures of several kinds, with the tensors that they stand for."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from hone.services.grpc.v2 import CONTENTS
from hone.services.protocols.v2 import DATATYPES
from hone.signature import Signature, TensorSpec

Tensors = dict[str, np.ndarray]


def _signature(**inputs: tuple[Any, ...]) -> Signature:
    return Signature(
        inputs=tuple(
            TensorSpec(name=name, dtype=dtype, shape=shape, allow_nan=bool(nan))
            for name, (dtype, shape, *nan) in inputs.items()
        ),
        outputs=(TensorSpec(name="scores", shape=("batch", 3)),),
    )


SIGNATURES = {
    "float": _signature(x=("float32", ("batch", 4))),
    "nan": _signature(x=("float64", ("batch", 3), True)),
    "half": _signature(x=("float16", ("batch", 2))),
    "bfloat": _signature(x=("bfloat16", ("batch", 3))),
    "small": _signature(x=("int8", ("batch", 2))),
    "wide": _signature(x=("uint64", ("batch",))),
    "flags": _signature(x=("bool", ("batch", 2))),
    "words": _signature(x=("string", ("batch",))),
    "image": _signature(x=("uint8", ("batch", "height", "width"))),
    "text": _signature(ids=("int64", ("batch", "length")), mask=("int64", ("batch", "length"))),
    "mixed": _signature(age=("float32", ("batch",)), city=("string", ("batch", 1))),
}
WORDS = ["", "a", "null", "é", "😀x", "a,b]", 'q"', "1.5", "long " * 9]


@dataclass(frozen=True)
class Valid:
    """A request that must be understood, and as what."""

    signature: Signature
    tensors: Tensors
    body: bytes
    head: dict[bytes, bytes] = field(default_factory=dict)


def tensors(signature: Signature, rows: int, length: int, seed: int) -> Tensors:
    random = np.random.default_rng(seed)
    made: Tensors = {}
    for spec in signature.inputs:
        shape = [rows if axis == "batch" else length if isinstance(axis, str) else axis for axis in spec.shape]
        kind = spec.numpy_dtype.kind
        if kind == "O":
            array: np.ndarray = random.choice(np.array(WORDS, dtype=object), size=shape)
        elif kind == "b":
            array = random.integers(0, 2, shape).astype(bool)
        elif kind == "f":
            array = (random.integers(-999, 999, shape) / 8).astype(spec.numpy_dtype)
        else:
            limits = np.iinfo(spec.numpy_dtype)
            array = random.integers(limits.min, limits.max, shape, spec.numpy_dtype, endpoint=True)
        if spec.dtype == "bfloat16":
            array = (array.view(np.uint32) & 0xFFFF0000).view(np.float32)
        made[spec.name] = array
    return made


def wire(array: np.ndarray, dtype: str) -> bytes:
    """Return a tensor's bytes as V2 sends them."""
    if dtype == "string":
        return b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in array.reshape(-1))
    if dtype == "bfloat16":
        return (array.view(np.uint32) >> 16).astype("<u2").tobytes()
    return array.astype(array.dtype.newbyteorder("<")).tobytes()


def predict(signature: Signature, values: Tensors) -> Valid:
    content = {"inputs": {name: array.tolist() for name, array in values.items()}}
    return Valid(signature, values, json.dumps(content).encode())


def v1(signature: Signature, values: Tensors) -> Valid:
    if len(values) == 1:
        content: Any = {"instances": next(iter(values.values())).tolist()}
    else:
        rows = zip(*(array.tolist() for array in values.values()), strict=True)
        content = {"instances": [dict(zip(values, row, strict=True)) for row in rows]}
    return Valid(signature, values, json.dumps(content).encode())


def _described(signature: Signature, values: Tensors) -> list[dict[str, Any]]:
    return [
        {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(values[spec.name].shape)}
        for spec in signature.inputs
    ]


def v2(signature: Signature, values: Tensors) -> Valid:
    inputs = _described(signature, values)
    for entry in inputs:
        entry["data"] = values[entry["name"]].reshape(-1).tolist()
    return Valid(signature, values, json.dumps({"id": "7", "inputs": inputs}).encode())


def v2_binary(signature: Signature, values: Tensors) -> Valid:
    inputs = _described(signature, values)
    parts = [wire(values[spec.name], spec.dtype) for spec in signature.inputs]
    for entry, part in zip(inputs, parts, strict=True):
        entry["parameters"] = {"binary_data_size": len(part)}
    text = json.dumps({"inputs": inputs}).encode()
    head = {b"inference-header-content-length": b"%d" % len(text)}
    return Valid(signature, values, b"".join([text, *parts]), head)


def grpc(signature: Signature, values: Tensors, raw: bool = True) -> Valid:
    from tritonclient.grpc import service_pb2

    request = service_pb2.ModelInferRequest(model_name="m", id="7")
    for spec, entry in zip(signature.inputs, _described(signature, values), strict=True):
        tensor = request.inputs.add(**entry)
        array = values[spec.name]
        if raw or spec.dtype not in CONTENTS:
            request.raw_input_contents.append(wire(array, spec.dtype))
        else:
            flat = array.reshape(-1).tolist()
            sent = [text.encode() for text in flat] if spec.dtype == "string" else flat
            getattr(tensor.contents, CONTENTS[spec.dtype]).extend(sent)
    return Valid(signature, values, request.SerializeToString())


def raw(signature: Signature, values: Tensors) -> Valid:
    (spec,) = signature.inputs
    shape = ",".join(str(size) for size in values[spec.name].shape).encode()
    return Valid(signature, values, wire(values[spec.name], spec.dtype), {b"x-shape": shape})


def npy(signature: Signature, values: Tensors) -> Valid:
    (spec,) = signature.inputs
    array = values[spec.name]
    stream = io.BytesIO()
    np.save(stream, array.astype(str) if spec.dtype == "string" else array)
    return Valid(signature, values, stream.getvalue())


def arrow(signature: Signature, values: Tensors, batches: int = 1, **options: Any) -> Valid:
    columns = {}
    for spec in signature.inputs:
        array = values[spec.name]
        flat = pa.array(array.reshape(-1).tolist() if spec.dtype == "string" else array.reshape(-1))
        columns[spec.name] = flat if array.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, array.shape[-1])
    return Valid(signature, values, stream(pa.table(columns), batches, **options))


def stream(table: pa.Table, batches: int = 1, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=max(1, -(-table.num_rows // batches)))
    return bytes(sink.getvalue().to_pybytes())


SINGLE = [name for name, signature in SIGNATURES.items() if len(signature.inputs) == 1]
FLAT = [name for name, signature in SIGNATURES.items() if all(len(spec.shape) <= 2 for spec in signature.inputs)]
BUILDERS = {
    "predict": (predict, list(SIGNATURES)),
    "v1": (v1, list(SIGNATURES)),
    "v2": (v2, list(SIGNATURES)),
    "v2_binary": (v2_binary, list(SIGNATURES)),
    "grpc": (grpc, list(SIGNATURES)),
    "raw": (raw, SINGLE),
    # npy has no bfloat16, and cuts zeros off the end of strings, of which WORDS has none
    "npy": (npy, [name for name in SINGLE if name != "bfloat"]),
    "arrow": (arrow, [name for name in FLAT if name != "bfloat"]),
}
