"""Between bytes and tensors: strict about dtypes and shapes, so that a mistake is named, never computed on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

from hone.errors import SignatureError
from hone.signature import TensorSpec
from hone.steps.base import BYTES

from ..http.limits import NO_MORE_THAN, Limits
from ..http.responses import Body

SMALL = 4096
"""Elements up to which a tensor is checked by one dot product."""

_ZEROS: dict[tuple[str, int], np.ndarray] = {}
MOST_ZEROS = 256
"""Sizes of tensors that zeros are kept for; callers choose sizes, so they are bounded."""


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


def from_bytes(content: Body, spec: TensorSpec, shape: tuple[int, ...], limits: Limits = NO_MORE_THAN) -> np.ndarray:
    """Return a view of little-endian C-order bytes as a tensor; strings and bfloat16 are converted.

    Args:
        content: of one tensor. Strings are 4 bytes of little-endian length and UTF-8 each, as in the V2 protocol.
        spec: gives the dtype.
        shape: with its product of elements in `content`.
        limits: of the request.

    Raises:
        SignatureError: a shape that is not possible, more or fewer bytes than it needs, or strings that aren't UTF-8.
        BodyTooLargeError: too many rows, or strings that would take too much memory.
    """
    count = limits.count(spec, shape)
    if spec.dtype in (BYTES, "string"):
        limits.check_memory(len(content) // 4 * STRING_BYTES + 4 * len(content))
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


STRING_BYTES = 64
"""Of a short Python string and the pointer to it."""

WIRE_SIZES = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2,
    "int32": 4, "uint32": 4, "float32": 4, "int64": 8, "uint64": 8, "float64": 8,
}  # fmt: skip


def _strings_from_bytes(content: bytes, spec: TensorSpec, count: int) -> np.ndarray:
    strings: list[str | bytes] = []
    position = 0
    for _ in range(min(count, len(content) // 4 + 1)):
        size = int.from_bytes(content[position : position + 4], "little")
        start, position = position + 4, position + 4 + size
        if position > len(content):
            raise SignatureError(f"input '{spec.name}': string {len(strings)} ends behind the tensor's bytes")
        try:
            strings.append(content[start:position].decode() if spec.dtype == "string" else content[start:position])
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
