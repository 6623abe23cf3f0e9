"""V2's protobuf messages and tensors: the same checks as over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hone.errors import SignatureError, did_you_mean, shorten
from hone.signature import Signature, Tensors, TensorSpec
from hone.steps.base import BYTES

from ..http.failures import BodyTooLargeError, RequestError
from ..http.limits import NO_MORE_THAN, Limits
from ..http.responses import Head
from ..protocols.base import timeout_of
from ..protocols.tensors import STRING_BYTES, check_finite, from_bytes, to_bytes
from ..protocols.v2 import DATATYPES, MAX_ID

CONTENTS = {
    "bool": "bool_contents", "int8": "int_contents", "int16": "int_contents", "int32": "int_contents",
    "int64": "int64_contents", "uint8": "uint_contents", "uint16": "uint_contents", "uint32": "uint_contents",
    "uint64": "uint64_contents", "float32": "fp32_contents", "float64": "fp64_contents", "string": "bytes_contents",
    "bytes": "bytes_contents",
}  # fmt: skip
WORST = 64
"""No message takes more memory than this times its length: an empty message in a list takes two bytes on the wire."""

OBJECT_BYTES = 40
"""Of a number that protobuf gives as a Python object, and the pointer to it."""

MAX_FIELDS = 250_000
"""Of a message so large that its fields are counted; packed numbers and raw tensors are one field each."""


def parse(raw: bytes, kind: Any, limits: Limits = NO_MORE_THAN) -> Any:
    """Return a message of a kind from its bytes.

    Raises:
        RequestError: they are no such message.
        BodyTooLargeError: it is small, but made of more fields than any tensor needs.
    """
    from google.protobuf.message import DecodeError

    if len(raw) * WORST > limits.memory:
        _check_fields(raw)
    try:
        return kind.FromString(raw)
    except (DecodeError, ValueError):
        raise RequestError(f"the message is not a {kind.DESCRIPTOR.name} of the V2 protocol") from None


def _check_fields(raw: bytes) -> None:
    """Count the fields of a message, its tensors and their contents (protobuf.dev, "Encoding").

    A field of wire type 2 holds bytes or another message. Down to the contents of a tensor it is walked into where it
    can be a message: field 5, and the parameters, field 4. What is no message ends the walk; the parser refuses it.
    """
    waiting = [(0, len(raw), 0)]
    fields = 0
    while waiting:
        position, end, depth = waiting.pop()
        while position < end:
            fields += 1
            if fields > MAX_FIELDS:
                raise BodyTooLargeError(
                    f"the message has more than {MAX_FIELDS} fields; send tensors in raw_input_contents"
                )
            tag, position = _varint(raw, position, end)
            wire = tag & 7
            if wire == 2:
                size, position = _varint(raw, position, end)
                if depth < 2 and tag >> 3 in (4, 5):
                    waiting.append((position, min(end, position + size), depth + 1))
                position += size
            elif wire == 0:
                _, position = _varint(raw, position, end)
            elif wire in (1, 5):
                position += 8 if wire == 1 else 4
            else:
                break


def _varint(raw: bytes, position: int, end: int) -> tuple[int, int]:
    """Return a number of up to ten bytes and the position behind it; a broken one reaches behind the end."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= end:
            return 0, end + 1
        byte = raw[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    return 0, end + 1


def decode(request: Any, signature: Signature, limits: Limits = NO_MORE_THAN) -> Tensors:
    """Return the tensors of a ModelInferRequest, checked.

    Raises:
        RequestError: raw contents and inputs don't pair up.
        SignatureError: naming the input that is wrong.
        BodyTooLargeError: it asks for more than one request may.
    """
    if len(request.id) > MAX_ID:
        raise RequestError(f"the id is longer than {MAX_ID} characters")
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise RequestError(f"{len(request.inputs)} inputs, but {len(raw)} raw_input_contents")
    arrays: Tensors = {}
    for index, entry in enumerate(request.inputs):
        spec = signature.input(entry.name)
        if entry.datatype != DATATYPES[spec.dtype]:
            raise SignatureError(
                f"input '{spec.name}' has datatype {shorten(entry.datatype)}, expected {DATATYPES[spec.dtype]}"
            )
        if entry.name in arrays:
            raise RequestError(f"input '{entry.name}' is given twice")
        if not raw:
            array = _from_contents(entry, spec, limits)
        elif not entry.HasField("contents"):
            array = from_bytes(raw[index], spec, tuple(entry.shape), limits)
        else:
            raise RequestError(f"input '{spec.name}' comes in contents and in raw_input_contents")
        check_finite(array, spec)
        arrays[entry.name] = array
    return limits.check(signature, arrays)


def _from_contents(entry: Any, spec: TensorSpec, limits: Limits) -> np.ndarray:
    count = limits.count(spec, entry.shape)
    shape = tuple(entry.shape)
    field = CONTENTS.get(spec.dtype)
    if field is None:
        raise RequestError(f"input '{spec.name}': {DATATYPES[spec.dtype]} must come in raw_input_contents")
    values: Sequence[Any] = getattr(entry.contents, field)
    if len(values) != count:
        raise SignatureError(f"input '{spec.name}' of shape {list(shape)} has {len(values)} values in {field}")
    if field == "bytes_contents":
        limits.check_memory(count * STRING_BYTES + 4 * entry.ByteSize())
        if spec.dtype == BYTES:
            return np.array([*values, None], dtype=object)[:-1].reshape(shape)
        try:
            return np.array([value.decode() for value in values], dtype=object).reshape(shape)
        except UnicodeDecodeError:
            raise SignatureError(f"input '{spec.name}' holds a string that is not UTF-8") from None
    limits.check_memory(count * (OBJECT_BYTES + spec.numpy_dtype.itemsize))
    try:
        return np.fromiter(values, spec.numpy_dtype, count).reshape(shape)
    except OverflowError:  # int8 to int16 come in a field of wider integers
        raise SignatureError(f"input '{spec.name}' has a value outside {spec.dtype}") from None


def encode(identity: str, name: str, version: str, signature: Signature, names: Sequence[str], outputs: Tensors) -> Any:
    """Return a ModelInferResponse with raw contents."""
    from . import v2_pb2 as pb

    answer = pb.ModelInferResponse(model_name=name, model_version=version, id=identity)
    specs = {spec.name: spec for spec in signature.outputs}
    for output in names:
        array = outputs[output]
        answer.outputs.add(name=output, datatype=DATATYPES[specs[output].dtype], shape=array.shape)
        if specs[output].dtype == "bfloat16":
            array = (np.ascontiguousarray(array, np.float32).view(np.uint32) >> 16).astype(np.uint16)
        answer.raw_output_contents.append(bytes(to_bytes(array)))
    return answer


def wanted(outputs: Sequence[Any], signature: Signature) -> list[str]:
    """Return the names of the outputs that a request asks for, all when it names none.

    Raises:
        RequestError: the model has no such output.
    """
    names = signature.output_names
    if len(outputs) > len(names):
        raise RequestError(f"{len(outputs)} outputs are asked for, the model has {len(names)}")
    for entry in outputs:
        if entry.name not in names:
            raise RequestError(f"no output '{shorten(entry.name)}'{did_you_mean(entry.name, names)}")
    return list(dict.fromkeys(entry.name for entry in outputs)) or names


def timeout_s(request: Any, head: Head) -> float | None:
    """Return the smaller of the call's deadline and the parameter `timeout`, microseconds."""
    limits = [timeout_of(head)]
    if "timeout" in request.parameters:
        limits.append(request.parameters["timeout"].int64_param / 1e6)
    return min((limit for limit in limits if limit is not None), default=None)


def plain_parameters(parameters: Any) -> dict[str, Any]:
    """Return a map of parameters as plain values; those that are set to nothing are left out."""
    values: dict[str, Any] = {}
    for name, value in parameters.items():
        field = value.WhichOneof("parameter_choice")
        if field is not None:
            values[name] = getattr(value, field)
    return values
