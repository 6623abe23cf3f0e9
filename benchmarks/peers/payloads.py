"""A request of each kind for each server, and how its answer is read: all servers get the same rows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import orjson

from ..load.wire import Call, json_call, v2_binary_call, v2_json_call

Inputs = dict[str, np.ndarray]
KINDS = ("json-1", "binary-1", "binary-64")
Decode = Callable[[bytes, dict[str, str]], np.ndarray]


def call(server: str, model: str, inputs: Inputs, kind: str) -> tuple[Call, Decode] | None:
    """Return a server's request for some rows and the reader of its answer, or None when it has no such payload."""
    json = kind.startswith("json")
    if server == "hone":
        if json:
            return json_call("/predict", inputs), _from_outputs
        if len(inputs) == 1:
            body = next(iter(inputs.values())).tobytes()
            return Call("/predict", {"content-type": "application/octet-stream"}, body), _from_bytes
        return v2_binary_call(f"/v2/models/{model}/infer", inputs, _dtypes(inputs)), _from_v2_binary
    if server == "pytriton":
        return (v2_json_call("/v2/models/model/infer", inputs, _dtypes(inputs)), _from_v2_json) if json else (
            v2_binary_call("/v2/models/model/infer", inputs, _dtypes(inputs)), _from_v2_binary
        )  # fmt: skip
    if server == "mlserver":
        return v2_json_call("/v2/models/model/infer", inputs, _dtypes(inputs)), _from_v2_json
    if server == "litserve":
        return json_call("/predict", inputs), _from_outputs
    if server == "bentoml":
        if len(inputs) > 1:
            return None
        body = orjson.dumps({"inputs": next(iter(inputs.values()))}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Call("/predict", {"content-type": "application/json"}, body), _from_list
    if server == "fastapi" and json:
        return json_call("/json", inputs), _from_outputs
    if json:
        return None
    return Call("/binary" if server == "fastapi" else "/", _row_headers(inputs), _concatenated(inputs)), _from_bytes


def _row_headers(inputs: Inputs) -> dict[str, str]:
    return {"content-type": "application/octet-stream", "x-rows": str(len(next(iter(inputs.values()))))}


def _concatenated(inputs: Inputs) -> bytes:
    return b"".join(array.tobytes() for array in inputs.values())


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
