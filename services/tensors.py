"""Between JSON and tensors: strict about dtypes and shapes, so that a caller's mistake is named, never computed on."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from hone.errors import SignatureError, did_you_mean
from hone.signature import Signature, TensorSpec
from services.failures import RequestError


def parse_request(body: bytes, signature: Signature) -> dict[str, np.ndarray]:
    """Return the tensors of `{"inputs": {name: nested lists}}`, in signature order.

    Raises:
        RequestError: not JSON, or not of this form.
        SignatureError: naming the input that is missing, unknown, or of a wrong dtype or shape.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(content, dict) or not isinstance(content.get("inputs"), dict):
        raise RequestError(f'the body must be {{"inputs": {{{_form(signature)}}}}}')
    for key in content:
        if key != "inputs":
            raise RequestError(f"unknown field '{key}'{did_you_mean(str(key), ['inputs'])}")
    return parse_inputs(content["inputs"], signature)


def parse_inputs(values: dict[str, Any], signature: Signature) -> dict[str, np.ndarray]:
    """Return checked tensors from nested lists by input name."""
    arrays = {name: _to_array(value, signature.input(name)) for name, value in values.items()}
    return signature.check(arrays)


def _form(signature: Signature) -> str:
    return ", ".join(f'"{spec.name}": {spec.describe()}' for spec in signature.inputs)


def _to_array(value: Any, spec: TensorSpec) -> np.ndarray:
    if isinstance(value, np.ndarray):
        raw = value
    else:
        try:
            raw = np.array(value)
        except (ValueError, OverflowError, TypeError):
            raise SignatureError(f"input '{spec.name}' is ragged or mixes types; it is {spec.describe()}") from None
    if raw.size == 0 and raw.dtype.kind == "f":
        return raw.astype(spec.numpy_dtype)  # an empty list has no dtype; its shape is what is wrong with it
    kind = spec.numpy_dtype.kind
    if kind == "O":
        return _strings(raw, spec)
    if raw.dtype.kind == "O":
        raw = _with_nulls(raw, spec)
    if kind == "b" and raw.dtype.kind == "b":
        return raw
    if kind == "f" and raw.dtype.kind in "fiu":
        return _floats(raw, spec)
    if kind in "iu" and raw.dtype.kind in "iu":
        return _integers(raw, spec)
    raise SignatureError(f"input '{spec.name}' holds {_kind_name(raw)}, expected {spec.describe()}")


def _strings(raw: np.ndarray, spec: TensorSpec) -> np.ndarray:
    if raw.dtype.kind == "U":
        return raw.astype(object)
    raise SignatureError(f"input '{spec.name}' holds {_kind_name(raw)}, expected {spec.describe()}")


def _with_nulls(raw: np.ndarray, spec: TensorSpec) -> np.ndarray:
    """Read null as NaN in a float input that allows it; anything else in an object array is a mistake."""
    flat = raw.reshape(-1)
    numbers = all(item is None or (isinstance(item, int | float) and not isinstance(item, bool)) for item in flat)
    if spec.numpy_dtype.kind != "f" or not numbers:
        raise SignatureError(f"input '{spec.name}' is ragged or mixes types; it is {spec.describe()}")
    if not spec.allow_nan and any(item is None for item in flat):
        position = next(index for index, item in enumerate(flat) if item is None)
        row = position // max(1, raw.size // len(raw)) if raw.ndim else 0
        raise SignatureError(f"input '{spec.name}' has a null in row {row}; the model takes no missing values")
    try:
        return np.array([np.nan if item is None else float(item) for item in flat]).reshape(raw.shape)
    except OverflowError:
        raise SignatureError(f"input '{spec.name}' holds a number beyond {spec.dtype}") from None


def _floats(raw: np.ndarray, spec: TensorSpec) -> np.ndarray:
    with np.errstate(over="ignore"):
        array = raw.astype(spec.numpy_dtype)
    if spec.allow_nan or not array.size:
        return array
    bad = ~np.isfinite(array)
    if bad.any():
        row = int(np.argwhere(bad)[0][0]) if array.ndim else 0
        what = "NaN or infinity" if raw.dtype.kind == "f" and not np.isfinite(raw).all() else "a number too large"
        raise SignatureError(f"input '{spec.name}' has {what} for {spec.dtype} in row {row}")
    return array


def _integers(raw: np.ndarray, spec: TensorSpec) -> np.ndarray:
    limits = np.iinfo(spec.numpy_dtype)
    if raw.size and (int(raw.min()) < limits.min or int(raw.max()) > limits.max):
        raise SignatureError(f"input '{spec.name}' has a value outside {spec.dtype}: {limits.min} to {limits.max}")
    return raw.astype(spec.numpy_dtype)


def _kind_name(raw: np.ndarray) -> str:
    return {"b": "booleans", "i": "integers", "u": "integers", "f": "floats", "U": "strings"}.get(
        raw.dtype.kind, "values of mixed types"
    )


def encode_response(outputs: dict[str, np.ndarray], model: str) -> bytes:
    """Return `{"outputs": {name: nested lists}, "model": tag}`; NaN and infinities become null, as JSON has none."""
    values = {name: _encodable(array) for name, array in outputs.items()}
    return orjson.dumps({"outputs": values, "model": model}, option=orjson.OPT_SERIALIZE_NUMPY)


def _encodable(array: np.ndarray) -> Any:
    if array.dtype.kind in "OUS":
        return array.tolist()
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)
