"""Mutations that know what they break: JSON by its tree, protobuf by its fields, the rest by lengths and bytes."""

from __future__ import annotations

import json
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa

from tests.fuzz import valid
from tests.fuzz.valid import BUILDERS, SIGNATURES, Valid

LIES = [0, 1, 2, 3, 5, 127, 255, 2**16, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1, -1]
ODD: list[Any] = [
    None, True, 0, -1, 300, 1.5, 1e300, 2**63, 2**64, -(2**70), "", "1.5", "A" * 3000, [], {}, [[]], [None], {"a": 1},
    [0] * 40, ["A" * 500] + [""] * 50, [[[[[1]]]]], ["x", 1],
]  # fmt: skip
INTEGERS = [0, 1, -1, 127, 128, 300, 2**31 - 1, -(2**31)]
FLOATS = [0.0, 1.5, -1e30, float("nan"), float("inf")]
KEYS = [
    "inputs",
    "instances",
    "x",
    "ids",
    "mask",
    "name",
    "datatype",
    "shape",
    "data",
    "parameters",
    "outputs",
    "id",
    "",
]
SHAPES = [
    [0], [], [1], [1] * 33, [1] * 70, [0, 2**40 - 1, 2**40 - 1], [2**31, 2**33], [-1, 4], [2, -2, -2], [10**30], [4, 1],
    [2**62, 2], [0, 10**30], [99999999999],
]  # fmt: skip


def requests(pick: Random, protocol: str) -> tuple[Valid, bool]:
    """Return a request of a protocol, and whether it is still the valid one."""
    request = valid_requests(pick, protocol)
    changes = {"none": None, "bytes": _bytes, "splice": _splice, "lie": _lie, "cut": _cut, "grow": _grow, "head": _head}
    special = {
        "predict": _json, "v1": _json, "v2": _json, "v2_binary": _json_header, "grpc": _message, "npy": _npy_header,
        "arrow": _table,
    }  # fmt: skip
    if protocol in special:
        changes |= {"special": special[protocol], "again": special[protocol]}
    name = pick.choice(list(changes))
    change = changes[name]
    if change is None:
        return request, True
    changed = change(pick, request)
    if pick.randint(0, 5) == 5:
        changed = _bytes(pick, changed)
    return changed, False


def packed(pick: Random, body: bytes) -> bytes:
    """Return a compressed body, whole or broken."""
    change = pick.choice([None, _bytes, _splice, _lie, _cut, _grow])
    return body if change is None else change(pick, Valid(SIGNATURES["float"], {}, body)).body


def valid_requests(pick: Random, protocol: str) -> Valid:
    build, names = BUILDERS[protocol]
    signature = SIGNATURES[pick.choice(names)]
    values = valid.tensors(signature, pick.randint(1, 3), pick.randint(1, 4), pick.randint(0, 2**16))
    if protocol == "grpc":
        return valid.grpc(signature, values, pick.random() < 0.5)
    if protocol == "arrow":
        return valid.arrow(signature, values, pick.randint(1, 3))
    return build(signature, values)


def _bytes(pick: Random, request: Valid) -> Valid:
    changed = bytearray(request.body)
    for _ in range(pick.randint(1, 4)):
        if changed:
            changed[pick.randint(0, len(changed) - 1)] = pick.randint(0, 255)
    return replace(request, body=bytes(changed))


def _splice(pick: Random, request: Valid) -> Valid:
    """Repeat, move or drop a stretch of the body."""
    body = request.body
    start = pick.randint(0, len(body))
    end = pick.randint(start, min(len(body), start + 64))
    to = pick.randint(0, len(body))
    times = pick.choice([0, 1, 2, 50])
    kept = body[:start] + body[end:] if pick.random() < 0.5 else body
    return replace(request, body=kept[:to] + body[start:end] * times + kept[to:])


def _lie(pick: Random, request: Valid) -> Valid:
    """Write a number over some bytes: a length, an offset, a size, wherever it hits."""
    size = pick.choice([1, 2, 4, 8])
    number = (pick.choice(LIES) % (1 << 8 * size)).to_bytes(size, "little")
    at = pick.randint(0, max(0, len(request.body) - size))
    return replace(request, body=request.body[:at] + number + request.body[at + size :])


def _cut(pick: Random, request: Valid) -> Valid:
    return replace(request, body=request.body[: pick.randint(0, max(0, len(request.body) - 1))])


def _grow(pick: Random, request: Valid) -> Valid:
    return replace(request, body=request.body + pick.choice([b"\0", b" ", b"\xff" * 8, request.body, b"[]"]))


def _head(pick: Random, request: Valid) -> Valid:
    name = pick.choice([b"x-shape", b"inference-header-content-length", b"x-timeout-ms"])
    sizes = [",".join(map(str, shape)).encode() for shape in SHAPES]
    plain = [b"", b"0", b"-1", b"nan", b"1e400", b"16", b"99999999999", b"\xb2", b"1,4", b"2,2", b"0,4"]
    value = pick.choice(plain + sizes)
    return replace(request, head={**request.head, name: value})


def _json(pick: Random, request: Valid) -> Valid:
    text = json.dumps(_trees(pick, json.loads(request.body)))
    if pick.randint(0, 9) == 0:
        text = text.replace("1", pick.choice(["1e999", "NaN", "01", "1" * 400, "\\ud800", "-0"]), 1)
    return replace(request, body=text.encode())


def _json_header(pick: Random, request: Valid) -> Valid:
    size = int(request.head[b"inference-header-content-length"])
    text = json.dumps(_trees(pick, json.loads(request.body[:size]))).encode()
    head = {**request.head, b"inference-header-content-length": b"%d" % len(text)}
    return replace(request, body=text + request.body[size:], head=head)


def _trees(pick: Random, tree: Any) -> Any:
    """Return a JSON tree with one to three of its nodes replaced, doubled, dropped or renamed."""
    for _ in range(pick.randint(1, 3)):
        parent: Any = [tree]
        key: Any = 0
        while pick.randint(0, 5) and isinstance(parent[key], list | dict) and parent[key]:
            parent = parent[key]
            key = pick.choice(list(parent) if isinstance(parent, dict) else list(range(min(9, len(parent)))))
        action = pick.choice(["odd", "double", "drop", "name", "wrap", "shape"])
        if action == "odd" or (parent is not tree and parent == [tree]):
            parent[key] = pick.choice(ODD)
        elif action == "shape":
            parent[key] = pick.choice(SHAPES)
        elif action == "wrap":
            parent[key] = [parent[key]] * pick.choice([1, 2, 300])
        elif isinstance(parent, list):
            parent[key : key + 1] = [parent[key]] * (2 if action == "double" else 0)
        elif action == "name":
            parent[pick.choice([*KEYS, "A" * 5000])] = parent.pop(key)
        else:
            del parent[key]
        tree = json.loads(json.dumps(tree))  # no node twice
    return tree


def _message(pick: Random, request: Valid) -> Valid:
    from tritonclient.grpc import service_pb2

    message = service_pb2.ModelInferRequest.FromString(request.body)
    tensor = message.inputs[pick.randint(0, len(message.inputs) - 1)]
    action = pick.choice(["shape", "type", "name", "raw", "contents", "twice", "outputs", "both", "many"])
    if action == "shape":
        shape = pick.choice(SHAPES)
        tensor.shape[:] = [max(-(2**63), min(2**63 - 1, size)) for size in shape]
    elif action == "type":
        tensor.datatype = pick.choice(["FP32", "FP64", "INT8", "BYTES", "BF16", "", "A" * 900])
    elif action == "name":
        tensor.name = pick.choice(["", "y", "A" * 2000, "x\n"])
    elif action == "raw":
        message.raw_input_contents.append(pick.randbytes(pick.randint(0, 40)))
    elif action == "contents":
        tensor.contents.int_contents.extend(pick.choices(INTEGERS, k=pick.randint(0, 5)))
        tensor.contents.fp32_contents.extend(pick.choices(FLOATS, k=pick.randint(0, 5)))
    elif action == "both":
        tensor.contents.bytes_contents.append(b"\xff")
    elif action == "outputs":
        message.outputs.add(name=pick.choice(["scores", "score", "A" * 900]))
    elif action == "many":
        for _ in range(200):
            message.inputs.add()
    else:
        message.inputs.add().CopyFrom(tensor)
    return replace(request, body=message.SerializeToString())


def _npy_header(pick: Random, request: Valid) -> Valid:
    descr = pick.choice(["<f4", "|O", "<U1", "<U1000000", "|V8", "<f8", ">f4", "<M8[s]", "<c8", "|S3", "f4,f4"])
    shape = pick.choice([tuple(shape) for shape in SHAPES])
    literal = pick.choice([str(shape), "0x" + "f" * 3000, "(" * 150 + ")" * 150, "1" * 4200, "(1e3, 4)", "None"])
    fortran = pick.choice(["True", "False", "1"])
    header = f"{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {literal}, }}".encode()
    version = pick.choice([1, 2, 3, 4])
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return replace(
        request, body=b"\x93NUMPY" + bytes([version, 0]) + size + header + pick.randbytes(pick.randint(0, 40))
    )


def _table(pick: Random, request: Valid) -> Valid:
    """Return a stream of another table, or written in another way."""
    table = pa.ipc.open_stream(request.body).read_all()
    name = table.column_names[0]
    column = pick.choice([
                pa.array([None, 1.0]), pa.array(["a", "b"]).dictionary_encode(), pa.nulls(2), pa.array([[1], [2, 3]]),
                pa.array([True, False]), pa.array([1, 2], pa.timestamp("s")), pa.array([b"x", b"y"]),
                pa.array([{"a": 1}, {"a": 2}]), pa.array(["\0", "é"]), pa.array([1, 2], pa.decimal128(5)),
                pa.array([[1, None], [3, 4]], pa.list_(pa.int64(), 2)), pa.array([[], []], pa.list_(pa.int64(), 0)),
                pa.array([[True, None], [False, True]], pa.list_(pa.bool_(), 2)),
                pa.RunEndEncodedArray.from_arrays(np.array([2], np.int64), np.array([1.5])),
            ])  # fmt: skip
    if pick.random() < 0.5:
        names = pick.choice([[name], ["y"], ["A" * 3000]])
        table = pa.table([column], names=names)
    elif pick.random() < 0.5:
        table = pa.table([table.column(0)] * 3, names=[name, name, "z"])
    codec = pick.choice([None, "zstd", "lz4"])
    return replace(request, body=valid.stream(table, pick.randint(1, 3), compression=codec))
