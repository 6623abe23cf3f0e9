"""Raw rows, for models with one input: `application/octet-stream` (bare little-endian bytes) and `application/x-npy`.

Bare bytes carry no shape: it is the signature's, with as many rows as fit. A model whose rows have another dynamic
axis takes it from the body's length when it is the only one of a single row, else from `x-shape: 2,32`. The answer has
the form of the request; a model with several outputs sends them one behind the other, and `x-outputs` (JSON: name,
dtype and shape of each) says where each ends.
"""

from __future__ import annotations

import ast
import struct
import sys
from math import prod

import numpy as np
import orjson

from hone.artifact import Artifact
from hone.errors import SignatureError
from hone.signature import BATCH, Signature, Tensors, TensorSpec
from hone.steps.base import BYTES
from hone.steps.ready import offered_by

from ..http.failures import MediaTypeError, RequestError
from ..http.limits import MAX_AXES, NO_MORE_THAN, Limits
from ..http.responses import BINARY, Body, Fields, Head
from .base import DEADLINE, Part, Protocol, Request, register, timeout_of
from .predict import PREDICT
from .schemas import BINARY_BODY
from .tensors import STRING_BYTES, WIRE_SIZES, all_finite, check_finite, from_bytes, to_bytes

NPY = b"application/x-npy"
MAGIC = b"\x93NUMPY"
MAX_NPY_HEADER = 4096
SURROGATES = np.uint32(0xD800)
"""The first of 2048 numbers that stand for no character."""


def only_input(signature: Signature, media: bytes) -> TensorSpec:
    """Return the model's input.

    Raises:
        MediaTypeError: it has several, so that bare bytes don't say which is which; or callers give files for it.
    """
    only, *others = signature.inputs
    if others:
        raise MediaTypeError(
            f"the model has {len(signature.inputs)} inputs ({', '.join(signature.input_names)}), {media.decode()} "
            "carries one; use JSON, the V2 protocol or Arrow"
        )
    if only.dtype == BYTES:
        raise MediaTypeError(f"input '{only.name}' takes files, not {media.decode()}; send image/jpeg or image/png")
    return only


@register(PREDICT, BINARY)
class RawBytes(Protocol):
    """Bare bytes of one tensor."""

    names_inputs = False
    quick_bytes = 1 << 20  # a view of them; only that they are finite is looked at

    def __init__(self, signature: Signature, name: str, version: str, limits: Limits = NO_MORE_THAN) -> None:
        super().__init__(signature, name, version, limits)
        self._fields: Fields = [(b"content-type", BINARY)]
        spec = signature.inputs[0]
        fixed = spec.batchable and all(isinstance(axis, int) for axis in spec.shape[1:])
        self._fixed = spec.shape[1:] if fixed else ()
        self._row_bytes = prod(int(axis) for axis in self._fixed) * WIRE_SIZES.get(spec.dtype, 0)
        self._name = spec.name
        self._dtype = spec.numpy_dtype
        # Of these a view of the bytes is a valid tensor, whatever they are.
        self._plain = fixed and self._row_bytes > 0 and self._dtype.kind in "iuf" and len(signature.inputs) == 1
        self._most_bytes = self._row_bytes * limits.rows
        self._check = self._dtype.kind == "f" and not spec.allow_nan

    def decode(self, head: Head, body: Body) -> Request:
        size = len(body)
        if self._plain and 0 < size <= self._most_bytes and not size % self._row_bytes and b"x-shape" not in head:
            # The common case by itself: the shape needs no check, it is made from the signature.
            flat = np.frombuffer(body, self._dtype)
            if not self._check or all_finite(flat):
                inputs = {self._name: flat.reshape(-1, *self._fixed)}
                return Request(inputs, timeout_of(head) if DEADLINE in head else None)
        spec = only_input(self.signature, BINARY)
        array = from_bytes(body, spec, self._shape(spec, head, size), self.limits)
        inputs = self.limits.check(self.signature, {spec.name: array})
        check_finite(inputs[spec.name], spec)
        return Request(inputs, timeout_of(head))

    def _shape(self, spec: TensorSpec, head: Head, size: int) -> tuple[int, ...]:
        if b"x-shape" in head:
            return _parse_shape(head[b"x-shape"])
        if spec.dtype == "string":
            raise RequestError("strings of variable length need the header x-shape, such as 'x-shape: 2'")
        unit = prod(axis for axis in spec.shape if isinstance(axis, int)) * WIRE_SIZES[spec.dtype]
        unknown = [axis for axis in spec.shape if isinstance(axis, str)]
        if len(unknown) > 1 and BATCH in unknown:
            unknown.remove(BATCH)  # one row
        if len(unknown) > 1:
            raise RequestError(f"{spec.describe()} has several dynamic axes; give its shape in the header x-shape")
        count, rest = divmod(size, unit)
        if rest or not size:
            raise SignatureError(
                f"input '{spec.name}' is {spec.describe()}: the body must be a multiple of {unit} bytes, it has {size}"
            )
        return tuple(axis if isinstance(axis, int) else count if axis in unknown else 1 for axis in spec.shape)

    def in_text(self, request: Request) -> bool:
        return False

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        if len(outputs) == 1:
            return self._fields, to_bytes(next(iter(outputs.values())))
        described = [
            {"name": spec.name, "dtype": spec.dtype, "shape": list(outputs[spec.name].shape)}
            for spec in self.signature.outputs
        ]
        body = b"".join(to_bytes(array) for array in outputs.values())
        return [*self._fields, (b"x-outputs", orjson.dumps(described))], body

    @classmethod
    def describe(cls, artifact: Artifact, rows: Tensors) -> Part:
        return _described(artifact, BINARY)


def _parse_shape(text: bytes) -> tuple[int, ...]:
    parts = text.split(b",")
    if len(parts) > MAX_AXES or not all(part.strip().isdigit() and len(part) < 12 for part in parts):
        raise RequestError(f"x-shape: '{text.decode('latin-1')[:60]}' is not a list of sizes such as 2,32")
    return tuple(int(part) for part in parts)


@register(PREDICT, NPY)
class Npy(Protocol):
    """NumPy's file format, version 1.0 to 3.0 (numpy.lib.format): a header with dtype and shape, then the bytes."""

    names_inputs = False

    def decode(self, head: Head, body: Body) -> Request:
        spec = only_input(self.signature, NPY)
        inputs = self.limits.check(self.signature, {spec.name: read_npy(body, spec, self.limits)})
        check_finite(inputs[spec.name], spec)
        return Request(inputs, timeout_of(head))

    def in_text(self, request: Request) -> bool:
        return False

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        if len(outputs) > 1:
            raise MediaTypeError(f"the model has {len(outputs)} outputs, an npy file holds one; use another format")
        return [(b"content-type", NPY)], write_npy(next(iter(outputs.values())))

    @classmethod
    def describe(cls, artifact: Artifact, rows: Tensors) -> Part:
        return _described(artifact, NPY)


def _described(artifact: Artifact, media: bytes) -> Part:
    """Return what OpenAPI says of a form that carries one input; nothing of a model that can't be asked in it."""
    try:
        only_input(offered_by(artifact).unnamed, media)
    except MediaTypeError:
        return Part({}, {})
    form = {media.decode(): BINARY_BODY}
    return Part(form, form)


def read_npy(body: Body, spec: TensorSpec, limits: Limits = NO_MORE_THAN) -> np.ndarray:
    """Return the array of an npy file: a view of its bytes where order and byte order allow. Never unpickles.

    Raises:
        RequestError: not an npy file.
        SignatureError: objects, a shape that is not possible, or fewer or more bytes than the header says.
        BodyTooLargeError: too many rows, or strings that would take too much memory.
    """
    view = memoryview(body)
    if bytes(view[:6]) != MAGIC or len(view) < 12 or view[6] not in (1, 2, 3) or view[7]:
        raise RequestError("the body is not an npy file")
    wide = view[6] > 1
    size, start = (struct.unpack("<I", view[8:12])[0], 12) if wide else (struct.unpack("<H", view[8:10])[0], 10)
    if size > MAX_NPY_HEADER or start + size > len(view):
        raise RequestError("the npy file's header is too long")
    dtype, shape, fortran = _npy_header(bytes(view[start : start + size]))
    if dtype.kind == "U" and spec.dtype == "string":
        pass
    elif dtype.kind not in "biuf":
        raise SignatureError(f"input '{spec.name}' holds {dtype}, expected {spec.describe()}; objects are not read")
    content = view[start + size :]
    count = limits.count(spec, shape)
    if len(content) != count * dtype.itemsize:
        raise SignatureError(
            f"input '{spec.name}': the npy header promises {count * dtype.itemsize} bytes, {len(content)} came"
        )
    if dtype.kind == "U":
        limits.check_memory(count * STRING_BYTES + 2 * len(content))
        letters = np.frombuffer(content, np.dtype("u4").newbyteorder(dtype.byteorder))
        if ((letters > sys.maxunicode) | (letters - SURROGATES < 2048)).any():  # unsigned: what is less wraps around
            raise SignatureError(f"input '{spec.name}' holds a character that Unicode doesn't have")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    if dtype.kind == "U":
        return array.astype(object)
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("<"), copy=False))


def _npy_header(text: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    try:
        header = ast.literal_eval(text.decode("utf-8").strip(" \n"))
        dtype = np.dtype(header["descr"])
        shape, fortran = header["shape"], header["fortran_order"]
        valid = (
            len(header) == 3 and isinstance(fortran, bool) and all(type(size) is int and size >= 0 for size in shape)
        )
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise RequestError("the npy file's header can't be read") from None
    if not valid or dtype.itemsize == 0:
        raise RequestError("the npy file's header can't be read")
    return dtype, tuple(shape), fortran


def write_npy(array: np.ndarray) -> bytes:
    """Return an array as an npy file, version 1.0; strings become fixed-width text."""
    if array.dtype.kind == "O":
        array = array.astype(str)
    header = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {tuple(array.shape)}, }}"
    padding = -(10 + len(header) + 1) % 64
    text = (header + " " * padding + "\n").encode()
    return MAGIC + b"\x01\x00" + struct.pack("<H", len(text)) + text + np.ascontiguousarray(array).tobytes()
