"""Between JSON or bytes and tensors: strict about dtypes and shapes, so that a mistake is named, never computed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from hone.errors import SignatureError, did_you_mean
from hone.signature import Signature, TensorSpec
from services.failures import RequestError
from services.http import Body

SMALL = 4096
"""Elements up to which a tensor is checked by one dot product."""

_ZEROS: dict[tuple[str, int], np.ndarray] = {}
MOST_ZEROS = 256
"""Sizes of tensors that zeros are kept for; callers choose sizes, so they are bounded."""


def parse_request(body: Body, signature: Signature) -> dict[str, np.ndarray]:
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
    arrays = {name: to_array(value, signature.input(name)) for name, value in values.items()}
    return signature.check(arrays)


def _form(signature: Signature) -> str:
    return ", ".join(f'"{spec.name}": {spec.describe()}' for spec in signature.inputs)


def to_array(value: Any, spec: TensorSpec) -> np.ndarray:
    """Return nested lists as an array of the spec's dtype; its shape is not checked.

    Raises:
        SignatureError: ragged, of another kind of value, or out of the dtype's range.
    """
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


def check_finite(array: np.ndarray, spec: TensorSpec) -> None:
    """Refuse NaN and infinities in a binary tensor whose model takes none.

    Raises:
        SignatureError: naming the first row that has one.
    """
    if array.dtype.kind != "f" or spec.allow_nan:
        return
    if all_finite(array.reshape(-1)):
        return
    bad = ~np.isfinite(array)
    if bad.any():
        row = int(np.argwhere(bad)[0][0]) if array.ndim else 0
        raise SignatureError(f"input '{spec.name}' has NaN or infinity for {spec.dtype} in row {row}")


def all_finite(flat: np.ndarray) -> bool:
    """Return whether a flat float tensor has neither NaN nor infinities.

    0 x NaN and 0 x infinity are NaN, so one dot product with zeros finds both, in a third of isfinite's time.
    """
    size = flat.size
    zeros = _ZEROS.get((flat.dtype.char, size))
    if zeros is None:
        if size > SMALL or flat.dtype.char not in "fd":
            return bool(np.isfinite(flat).all())
        zeros = _ZEROS[flat.dtype.char, size] = np.zeros(size, flat.dtype)
        if len(_ZEROS) > MOST_ZEROS:
            _ZEROS.clear()
    return bool(flat.dot(zeros) == 0)


def from_bytes(content: Body, spec: TensorSpec, shape: tuple[int, ...]) -> np.ndarray:
    """Return a view of little-endian C-order bytes as a tensor; strings and bfloat16 are converted.

    Args:
        content: of one tensor. Strings are 4 bytes of little-endian length and UTF-8 each, as in the V2 protocol.
        spec: gives the dtype.
        shape: with its product of elements in `content`.

    Raises:
        SignatureError: more or fewer bytes than the shape needs, or strings that aren't UTF-8.
    """
    count = 1
    for size in shape:
        count *= size
    if spec.dtype == "string":
        return _strings_from_bytes(bytes(content), spec, count).reshape(shape)
    itemsize = WIRE_SIZES[spec.dtype]
    if len(content) != count * itemsize:
        raise SignatureError(
            f"input '{spec.name}' of shape {list(shape)} needs {count * itemsize} bytes as {spec.dtype}, "
            f"{len(content)} came"
        )
    if spec.dtype == "bfloat16":
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32).reshape(shape)
    if spec.dtype == "bool":
        raw = np.frombuffer(content, np.uint8)
        if raw.size and raw.max() > 1:
            raise SignatureError(f"input '{spec.name}' is bool: each byte must be 0 or 1")
        return raw.view(np.bool_).reshape(shape)
    return np.frombuffer(content, spec.numpy_dtype).reshape(shape)


WIRE_SIZES = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip


def _strings_from_bytes(content: bytes, spec: TensorSpec, count: int) -> np.ndarray:
    strings: list[str] = []
    position = 0
    for _ in range(min(count, len(content) // 4 + 1)):
        size = int.from_bytes(content[position : position + 4], "little")
        start, position = position + 4, position + 4 + size
        if position > len(content):
            raise SignatureError(f"input '{spec.name}': string {len(strings)} ends behind the tensor's bytes")
        try:
            strings.append(content[start:position].decode())
        except UnicodeDecodeError:
            raise SignatureError(f"input '{spec.name}': string {len(strings)} is not UTF-8") from None
    if position != len(content) or len(strings) != count:
        raise SignatureError(f"input '{spec.name}': its bytes don't hold exactly {count} strings")
    return np.array(strings, dtype=object)


def to_bytes(array: np.ndarray) -> Body:
    """Return a tensor's little-endian C-order bytes: a view of it where it is contiguous, never a copy then."""
    if array.dtype.kind in "OUS":
        parts = []
        for item in array.reshape(-1):
            text = str(item).encode()
            parts += [len(text).to_bytes(4, "little"), text]
        return b"".join(parts)
    if not array.size:
        return b""
    if not array.flags.c_contiguous:
        array = np.ascontiguousarray(array)
    return array.data.cast("B") if array.ndim else array.tobytes()


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
    values = {name: encodable(array) for name, array in outputs.items()}
    return orjson.dumps({"outputs": values, "model": model}, option=orjson.OPT_SERIALIZE_NUMPY)


def encodable(array: np.ndarray) -> Any:
    """Return what orjson can write: numbers as a contiguous array, strings as lists."""
    if array.dtype.kind in "OUS":
        return array.tolist()
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)


def row_count(inputs: Mapping[str, np.ndarray]) -> int:
    """Return the rows of checked inputs."""
    for array in inputs.values():
        return len(array) if array.ndim else 1
    return 0
