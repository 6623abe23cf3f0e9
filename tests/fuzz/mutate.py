"""Mutations that know what they break: JSON by its tree, protobuf by its fields, the rest by lengths and bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from tests.fuzz import valid
from tests.fuzz.valid import BUILDERS, SIGNATURES, Valid

LIES = [0, 1, 2, 3, 5, 127, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1, -1]
ODD: list[Any] = [
    None, True, 0, -1, 300, 1.5, 1e300, 2**63, 2**64, -(2**70), "", "1.5", "A" * 3000, [], {}, [[]], [None], {"a": 1},
    [0] * 40, ["A" * 500] + [""] * 50, [[[[[1]]]]], ["x", 1],
]  # fmt: skip
KEYS = ["inputs", "instances", "x", "ids", "mask", "name", "datatype", "shape", "data", "parameters", "outputs", "id", ""]
SHAPES = [
    [0], [], [1], [1] * 33, [1] * 70, [0, 2**40 - 1, 2**40 - 1], [2**31, 2**33], [-1, 4], [2, -2, -2], [10**30], [4, 1],
    [2**62, 2], [0, 10**30], [99999999999],
]  # fmt: skip


@st.composite
def requests(draw: st.DrawFn, protocol: str) -> tuple[Valid, bool]:
    """Return a request of a protocol, and whether it is still the valid one."""
    request = draw(valid_requests(protocol))
    changes = {"none": None, "bytes": _bytes, "splice": _splice, "lie": _lie, "cut": _cut, "grow": _grow, "head": _head}
    special = {
        "predict": _json, "v1": _json, "v2": _json, "v2_binary": _json_header, "grpc": _message, "npy": _npy_header,
        "arrow": _table,
    }  # fmt: skip
    if protocol in special:
        changes |= {"special": special[protocol], "again": special[protocol]}
    name = draw(st.sampled_from(list(changes)))
    change = changes[name]
    if change is None:
        return request, True
    changed = draw(change(request))
    if draw(st.integers(0, 5)) == 5:
        changed = draw(_bytes(changed))
    return changed, False


@st.composite
def valid_requests(draw: st.DrawFn, protocol: str) -> Valid:
    build, names = BUILDERS[protocol]
    signature = SIGNATURES[draw(st.sampled_from(names))]
    values = valid.tensors(
        signature, draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(0, 2**16))
    )
    if protocol == "grpc":
        return valid.grpc(signature, values, draw(st.booleans()))
    if protocol == "arrow":
        return valid.arrow(signature, values, draw(st.integers(1, 3)))
    return build(signature, values)


@st.composite
def _bytes(draw: st.DrawFn, request: Valid) -> Valid:
    changed = bytearray(request.body)
    for _ in range(draw(st.integers(1, 4))):
        if changed:
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.integers(0, 255))
    return replace(request, body=bytes(changed))


@st.composite
def _splice(draw: st.DrawFn, request: Valid) -> Valid:
    """Repeat, move or drop a stretch of the body."""
    body = request.body
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, min(len(body), start + 64)))
    to = draw(st.integers(0, len(body)))
    times = draw(st.sampled_from([0, 1, 2, 50]))
    kept = body[:start] + body[end:] if draw(st.booleans()) else body
    return replace(request, body=kept[:to] + body[start:end] * times + kept[to:])


@st.composite
def _lie(draw: st.DrawFn, request: Valid) -> Valid:
    """Write a number over some bytes: a length, an offset, a size, wherever it hits."""
    size = draw(st.sampled_from([1, 2, 4, 8]))
    number = (draw(st.sampled_from(LIES)) % (1 << 8 * size)).to_bytes(size, "little")
    at = draw(st.integers(0, max(0, len(request.body) - size)))
    return replace(request, body=request.body[:at] + number + request.body[at + size :])


@st.composite
def _cut(draw: st.DrawFn, request: Valid) -> Valid:
    return replace(request, body=request.body[: draw(st.integers(0, max(0, len(request.body) - 1)))])


@st.composite
def _grow(draw: st.DrawFn, request: Valid) -> Valid:
    return replace(request, body=request.body + draw(st.sampled_from([b"\0", b" ", b"\xff" * 8, request.body, b"[]"])))


@st.composite
def _head(draw: st.DrawFn, request: Valid) -> Valid:
    name = draw(st.sampled_from([b"x-shape", b"inference-header-content-length", b"x-timeout-ms"]))
    value = draw(
        st.sampled_from([b"", b"0", b"-1", b"nan", b"1e400", b"16", b"99999999999", b"\xb2", b"1,4", b"2,2", b"0,4"])
        | st.sampled_from(SHAPES).map(lambda shape: ",".join(map(str, shape)).encode())
    )
    return replace(request, head={**request.head, name: value})


@st.composite
def _json(draw: st.DrawFn, request: Valid) -> Valid:
    text = json.dumps(draw(_trees(json.loads(request.body))))
    if draw(st.integers(0, 9)) == 0:
        text = text.replace("1", draw(st.sampled_from(["1e999", "NaN", "01", "1" * 400, "\\ud800", "-0"])), 1)
    return replace(request, body=text.encode())


@st.composite
def _json_header(draw: st.DrawFn, request: Valid) -> Valid:
    size = int(request.head[b"inference-header-content-length"])
    text = json.dumps(draw(_trees(json.loads(request.body[:size])))).encode()
    head = {**request.head, b"inference-header-content-length": b"%d" % len(text)}
    return replace(request, body=text + request.body[size:], head=head)


@st.composite
def _trees(draw: st.DrawFn, tree: Any) -> Any:
    """Return a JSON tree with one to three of its nodes replaced, doubled, dropped or renamed."""
    for _ in range(draw(st.integers(1, 3))):
        parent: Any = [tree]
        key: Any = 0
        while draw(st.integers(0, 5)) and isinstance(parent[key], list | dict) and parent[key]:
            parent = parent[key]
            key = draw(st.sampled_from(list(parent) if isinstance(parent, dict) else list(range(min(9, len(parent))))))
        action = draw(st.sampled_from(["odd", "double", "drop", "name", "wrap", "shape"]))
        if action == "odd" or (parent is not tree and parent == [tree]):
            parent[key] = draw(st.sampled_from(ODD))
        elif action == "shape":
            parent[key] = draw(st.sampled_from(SHAPES))
        elif action == "wrap":
            parent[key] = [parent[key]] * draw(st.sampled_from([1, 2, 300]))
        elif isinstance(parent, list):
            parent[key : key + 1] = [parent[key]] * (2 if action == "double" else 0)
        elif action == "name":
            parent[draw(st.sampled_from([*KEYS, "A" * 5000]))] = parent.pop(key)
        else:
            del parent[key]
        tree = json.loads(json.dumps(tree))  # no node twice
    return tree


@st.composite
def _message(draw: st.DrawFn, request: Valid) -> Valid:
    from services.protocols import v2_pb2

    message = v2_pb2.ModelInferRequest.FromString(request.body)
    tensor = message.inputs[draw(st.integers(0, len(message.inputs) - 1))]
    action = draw(st.sampled_from(["shape", "type", "name", "raw", "contents", "twice", "outputs", "both", "many"]))
    if action == "shape":
        shape = draw(st.sampled_from(SHAPES))
        tensor.shape[:] = [max(-(2**63), min(2**63 - 1, size)) for size in shape]
    elif action == "type":
        tensor.datatype = draw(st.sampled_from(["FP32", "FP64", "INT8", "BYTES", "BF16", "", "A" * 900]))
    elif action == "name":
        tensor.name = draw(st.sampled_from(["", "y", "A" * 2000, "x\n"]))
    elif action == "raw":
        message.raw_input_contents.append(draw(st.binary(max_size=40)))
    elif action == "contents":
        tensor.contents.int_contents.extend(draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=5)))
        tensor.contents.fp32_contents.extend(draw(st.lists(st.floats(width=32), max_size=5)))
    elif action == "both":
        tensor.contents.bytes_contents.append(b"\xff")
    elif action == "outputs":
        message.outputs.add(name=draw(st.sampled_from(["scores", "score", "A" * 900])))
    elif action == "many":
        for _ in range(200):
            message.inputs.add()
    else:
        message.inputs.add().CopyFrom(tensor)
    return replace(request, body=message.SerializeToString())


@st.composite
def _npy_header(draw: st.DrawFn, request: Valid) -> Valid:
    descr = draw(st.sampled_from(["<f4", "|O", "<U1", "<U1000000", "|V8", "<f8", ">f4", "<M8[s]", "<c8", "|S3", "f4,f4"]))
    shape = draw(st.sampled_from([tuple(shape) for shape in SHAPES]))
    literal = draw(st.sampled_from([str(shape), "0x" + "f" * 3000, "(" * 150 + ")" * 150, "1" * 4200, "(1e3, 4)", "None"]))
    fortran = draw(st.sampled_from(["True", "False", "1"]))
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {literal}, }}".encode()
    version = draw(st.sampled_from([1, 2, 3, 4]))
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return replace(request, body=b"\x93NUMPY" + bytes([version, 0]) + size + header + draw(st.binary(max_size=40)))


@st.composite
def _table(draw: st.DrawFn, request: Valid) -> Valid:
    """Return a stream of another table, or written in another way."""
    table = pa.ipc.open_stream(request.body).read_all()
    name = table.column_names[0]
    column = draw(
        st.sampled_from(
            [
                pa.array([None, 1.0]), pa.array(["a", "b"]).dictionary_encode(), pa.nulls(2), pa.array([[1], [2, 3]]),
                pa.array([True, False]), pa.array([1, 2], pa.timestamp("s")), pa.array([b"x", b"y"]),
                pa.array([{"a": 1}, {"a": 2}]), pa.array(["\0", "é"]), pa.array([1, 2], pa.decimal128(5)),
                pa.array([[1, None], [3, 4]], pa.list_(pa.int64(), 2)), pa.array([[], []], pa.list_(pa.int64(), 0)),
                pa.array([[True, None], [False, True]], pa.list_(pa.bool_(), 2)),
                pa.RunEndEncodedArray.from_arrays(np.array([2], np.int64), np.array([1.5])),
            ]
        )
    )  # fmt: skip
    if draw(st.booleans()):
        names = draw(st.sampled_from([[name], ["y"], ["A" * 3000]]))
        table = pa.table([column], names=names)
    elif draw(st.booleans()):
        table = pa.table([table.column(0)] * 3, names=[name, name, "z"])
    codec = draw(st.sampled_from([None, "zstd", "lz4"]))
    return replace(request, body=valid.stream(table, draw(st.integers(1, 3)), compression=codec))
