"""The rows of a scenario as each server takes them, and how its answer is read: all servers get the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import orjson

from ..load.wire import Call, json_call, v2_binary_call, v2_json_call
from .description import servers

Inputs = dict[str, np.ndarray]
Decode = Callable[[bytes, dict[str, str]], np.ndarray]
"""Makes the first output's values, one behind the other, of an answer's body and headers."""


@dataclass(frozen=True)
class Format:
    """How rows are written, and how an answer in the same format is read.

    Attributes:
        request: makes the call to a path; None for rows that the format has no place for.
        answer: reads what comes back.
    """

    request: Callable[[str, Inputs], Call | None]
    answer: Decode


def call(server: str, model: str, inputs: Inputs, kind: str) -> tuple[Call, Decode] | None:
    """Return a server's request for some rows and the reader of its answer, or None when it has no such payload.

    Args:
        server: `hone`, or a peer's name.
        model: in Hone's store.
        inputs: the rows.
        kind: `json-1` or `binary-64`, for one: what is sent, and how many rows.
    """
    payload = kind.partition("-")[0]
    if server == "hone":
        name, path = _of_hone(model, inputs, payload)
    else:
        peer = next(peer for peer in servers() if peer.name == server)
        offer = next((offer for known, offer in peer.about.payloads.items() if known == payload), None)
        if offer is None:
            return None
        name, path = offer.format, offer.path
    made = FORMATS[name].request(path, inputs)
    return None if made is None else (made, FORMATS[name].answer)


def _of_hone(model: str, inputs: Inputs, payload: str) -> tuple[str, str]:
    if payload == "json":
        return "tensors-json", "/predict"
    if len(inputs) == 1:
        return "bytes", "/predict"
    return "v2-binary", f"/v2/models/{model}/infer"


def _array(path: str, inputs: Inputs) -> Call | None:
    if len(inputs) > 1:
        return None
    body = orjson.dumps({"inputs": next(iter(inputs.values()))}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Call(path, {"content-type": "application/json"}, body)


def _bytes(path: str, inputs: Inputs) -> Call:
    """All inputs, one behind the other."""
    body = b"".join(array.tobytes() for array in inputs.values())
    return Call(path, {"content-type": "application/octet-stream"}, body)


def _counted_bytes(path: str, inputs: Inputs) -> Call:
    made = _bytes(path, inputs)
    return Call(path, {**made.headers, "x-rows": str(len(next(iter(inputs.values()))))}, made.body)


def _dtypes(inputs: Inputs) -> dict[str, str]:
    return {name: str(array.dtype) for name, array in inputs.items()}


def _from_bytes(body: bytes, _: dict[str, str]) -> np.ndarray:
    return np.frombuffer(body, np.float32)


def _from_outputs(body: bytes, _: dict[str, str]) -> np.ndarray:
    outputs = orjson.loads(body)["outputs"]
    return np.array(next(iter(outputs.values())) if isinstance(outputs, dict) else outputs, np.float32).reshape(-1)


def _from_list(body: bytes, _: dict[str, str]) -> np.ndarray:
    return np.array(orjson.loads(body), np.float32).reshape(-1)


def _from_v2_json(body: bytes, _: dict[str, str]) -> np.ndarray:
    return np.array(orjson.loads(body)["outputs"][0]["data"], np.float32).reshape(-1)


def _from_v2_binary(body: bytes, headers: dict[str, str]) -> np.ndarray:
    size = int(headers["inference-header-content-length"])
    return np.frombuffer(body[size:], np.float32)


FORMATS = {
    "bytes": Format(_bytes, _from_bytes),
    "counted-bytes": Format(_counted_bytes, _from_bytes),
    "tensors-json": Format(json_call, _from_outputs),
    "array-json": Format(_array, _from_list),
    "v2-json": Format(lambda path, inputs: v2_json_call(path, inputs, _dtypes(inputs)), _from_v2_json),
    "v2-binary": Format(lambda path, inputs: v2_binary_call(path, inputs, _dtypes(inputs)), _from_v2_binary),
}
"""By the names that descriptions use."""
