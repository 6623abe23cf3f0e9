"""From JSON to tensors: strict about dtypes and shapes, so that a mistake is named, never computed on."""

from __future__ import annotations

import gc
from base64 import b64decode
from itertools import chain
from typing import Any

import numpy as np
import orjson

from hone.errors import SignatureError, did_you_mean, one_line, shorten
from hone.signature import Signature, TensorSpec
from hone.steps.base import BYTES
from hone.steps.offered import Offered

from ..http.failures import RequestError
from ..http.limits import MAX_AXES, NO_MORE_THAN, Limits
from ..http.responses import Body
from .tensors import all_finite


def read_json(body: Body, limits: Limits) -> Any:
    """Return a JSON body's content.

    Raises:
        RequestError: it is not JSON.
        BodyTooLargeError: it is small, but full of values: it would take more memory than one request may.
    """
    if len(body) * JSON_WORST > limits.memory:
        limits.check_memory(_json_memory(body))
    # What is made of JSON has no cycles, and the collector would walk all of it again and again while it grows.
    pause = len(body) > LARGE_JSON and gc.isenabled()
    if pause:
        gc.disable()
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"the body is not JSON: {one_line(error)}") from None
    finally:
        if pause:
            gc.enable()


LARGE_JSON = 1_000_000
JSON_WORST = 64
"""No JSON takes more memory than this times its length: measured with orjson, `{"":0}` again and again takes 35."""


JSON_COSTS = ((ord(","), 32), (ord("["), 80), (ord("{"), 232), (ord('"'), 28))
"""Bytes of memory for each of these characters in a body."""

PIECE = 1 << 18
"""Bytes that are compared at a time: what fits the processor's cache is several times faster."""


def _json_memory(body: Body) -> int:
    """Return about what parsing takes, from its length and a count of what makes objects; measured with orjson.

    The parser's own tree takes about 14 times the body; then come a pointer and an object of 24 bytes for each value,
    80 bytes for a list, 232 for an object, 56 for a string, which has two quotes.
    """
    total = 14 * len(body)
    everything = np.frombuffer(body, np.uint8)
    for start in range(0, len(body), PIECE):
        piece = everything[start : start + PIECE]
        total += sum(cost * int(np.count_nonzero(piece == letter)) for letter, cost in JSON_COSTS)
    return total


def parse_request(body: Body, signature: Signature, limits: Limits = NO_MORE_THAN) -> dict[str, np.ndarray]:
    """Return the tensors of `{"inputs": {name: nested lists}}`, in signature order; of what callers of a model with
    steps give also those of `{name: values}`.

    Raises:
        RequestError: not JSON, not of this form, or more than one request may bring.
        SignatureError: naming the input that is missing, unknown, or of a wrong dtype or shape.
    """
    content = read_json(body, limits)
    if isinstance(signature, Offered) and isinstance(content, dict) and "inputs" not in content:
        return parse_inputs(content, signature, limits)
    if not isinstance(content, dict) or not isinstance(content.get("inputs"), dict):
        raise RequestError(f'the body must be {{"inputs": {{{_form(signature)}}}}}')
    for key in content:
        if key != "inputs":
            raise RequestError(f"unknown field '{shorten(key)}'{did_you_mean(key, ['inputs'])}")
    return parse_inputs(content["inputs"], signature, limits)


def parse_inputs(values: dict[str, Any], signature: Signature, limits: Limits = NO_MORE_THAN) -> dict[str, np.ndarray]:
    """Return checked tensors from nested lists by input name; a value may stand alone for one row where callers of a
    model with steps give one a row."""
    signature = signature.taken_by(values)
    lone = isinstance(signature, Offered)
    arrays: dict[str, np.ndarray] = {}
    for name, value in values.items():
        spec = signature.input(name)
        if lone and len(spec.shape) == 1 and not isinstance(value, list):
            value = [value]
        if spec.batchable and isinstance(value, list):
            limits.check_rows(len(value))
        arrays[name] = to_array(value, spec)
    return limits.check(signature, arrays)


def _form(signature: Signature) -> str:
    return ", ".join(f'"{spec.name}": {spec.describe()}' for spec in signature.inputs)


def to_array(value: Any, spec: TensorSpec) -> np.ndarray:
    """Return nested lists as an array of the spec's dtype; its shape is not checked.

    numpy is never asked to find a dtype while there may be strings: it would give each value the longest one's room.

    Raises:
        SignatureError: ragged, of another kind of value, or out of the dtype's range.
    """
    shape, flat = _flatten(value, spec)
    if not flat:
        return np.zeros(shape, spec.numpy_dtype)
    kind = spec.numpy_dtype.kind
    if kind == "O":
        if {*map(type, flat)} != {str}:
            raise _wrong_kind(flat, spec)
        if spec.dtype == BYTES:
            flat = [_file(item, spec, row) for row, item in enumerate(flat)]
        return np.array(flat, dtype=object).reshape(shape)
    try:
        total = sum(flat)  # the fastest way to see that all are numbers: strings, nulls, lists and objects don't add
    except TypeError:
        return _with_nulls(shape, flat, spec)
    truths = type(flat[0]) is bool
    if kind == "f" and not truths:
        return _floats(flat, shape, spec)
    if kind in "iu" and not truths and type(total) is int:  # one float makes the sum a float
        return _integers(flat, spec).reshape(shape)
    if kind == "b" and {*map(type, flat)} == {bool}:
        return np.array(flat).reshape(shape)
    raise _wrong_kind(flat, spec)


def _file(text: str, spec: TensorSpec, row: int) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise SignatureError(
            f"input '{spec.name}': row {row} is not base64, as the bytes of a file are in JSON"
        ) from None


def _flatten(value: Any, spec: TensorSpec) -> tuple[tuple[int, ...], list[Any]]:
    """Return the shape of nested lists and their values in a row.

    Raises:
        SignatureError: lists of several lengths, or more levels of them than a tensor has axes.
    """
    level = [value]
    shape: tuple[int, ...] = ()
    while level and type(level[0]) is list:
        size = len(level[0])
        if len(level) == 1:
            level = level[0]
        elif {*map(type, level)} == {list} and {*map(len, level)} == {size}:
            level = list(chain.from_iterable(level))
        else:
            raise _mixed(spec)
        shape = (*shape, size)
        if len(shape) > MAX_AXES:
            raise SignatureError(f"input '{spec.name}' is nested too deeply; it is {spec.describe()}")
    return shape, level


def _mixed(spec: TensorSpec) -> SignatureError:
    return SignatureError(f"input '{spec.name}' is ragged or mixes types; it is {spec.describe()}")


KINDS = {bool: "booleans", int: "integers", float: "floats", str: "strings"}


def _wrong_kind(flat: list[Any], spec: TensorSpec) -> SignatureError:
    """Return the error that says what is in the lists instead of the spec's kind of value."""
    found = {*map(type, flat)}
    if len(found) == 1:
        held = KINDS.get(found.pop())
        return SignatureError(f"input '{spec.name}' holds {held}, expected {spec.describe()}") if held else _mixed(spec)
    if found == {int, float}:
        return SignatureError(f"input '{spec.name}' holds floats, expected {spec.describe()}")
    return _mixed(spec)


def _with_nulls(shape: tuple[int, ...], flat: list[Any], spec: TensorSpec) -> np.ndarray:
    """Read null as NaN in a float input that allows it; anything else that isn't a number is a mistake."""
    if spec.numpy_dtype.kind != "f" or not {*map(type, flat)} <= {int, float, type(None)}:
        raise _wrong_kind(flat, spec)
    if not spec.allow_nan:
        row = _row(flat.index(None), flat, shape)
        raise SignatureError(f"input '{spec.name}' has a null in row {row}; the model takes no missing values")
    return _floats([np.nan if item is None else item for item in flat], shape, spec)


def _floats(flat: list[Any], shape: tuple[int, ...], spec: TensorSpec) -> np.ndarray:
    """Return numbers of JSON, which has neither NaN nor infinities, as floats."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            array = np.fromiter(flat, spec.numpy_dtype, len(flat))
            if spec.allow_nan or all_finite(array):
                return array.reshape(shape)
    except OverflowError:
        raise SignatureError(f"input '{spec.name}' holds a number beyond {spec.dtype}") from None
    row = _row(int(np.argmin(np.isfinite(array))), flat, shape)
    raise SignatureError(f"input '{spec.name}' has a number too large for {spec.dtype} in row {row}")


def _row(position: int, flat: list[Any], shape: tuple[int, ...]) -> int:
    return position // (len(flat) // shape[0]) if shape else 0


def _integers(flat: list[int], spec: TensorSpec) -> np.ndarray:
    try:
        return np.fromiter(flat, spec.numpy_dtype, len(flat))
    except OverflowError:
        limits = np.iinfo(spec.numpy_dtype)
        raise SignatureError(
            f"input '{spec.name}' has a value outside {spec.dtype}: {limits.min} to {limits.max}"
        ) from None
