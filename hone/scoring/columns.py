"""Columns of tables as a model's inputs, and its outputs as columns."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from hone.errors import InputError, one_line
from hone.signature import TensorSpec
from hone.steps.base import BYTES


def array_of(column: Any, spec: TensorSpec) -> tuple[np.ndarray, np.ndarray | None]:
    """Return a column as an array, lists as further axes, and the lengths of its rows where they differ.

    Args:
        column: of a table.
        spec: the input that it is for. Where its rows are lists of several lengths, and it says what to fill them up
            with, they are filled up to the longest.

    Raises:
        InputError: the column holds what the input can't be made of; the message doesn't say which row.
    """
    import pyarrow as pa

    values = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    shape, lengths = [len(values)], None
    while isinstance(values, pa.FixedSizeListArray | pa.ListArray | pa.LargeListArray):
        if values.null_count:
            raise InputError(f"'{spec.name}' is null")
        if isinstance(values, pa.FixedSizeListArray):
            shape.append(values.type.list_size)
        else:
            each = np.diff(values.offsets.to_numpy())
            if len(each) and (each != each[0]).any():
                if len(shape) > 1 or len(spec.shape) != 2 or spec.pad_value is None:
                    raise InputError(f"'{spec.name}' has rows of several lengths, {each.min()} to {each.max()}")
                lengths = each
            shape.append(int(each[0]) if len(each) else 1)
        values = values.flatten()
    flat = _plain(values, spec)
    if lengths is not None:
        return _filled_up(flat, lengths, spec), lengths
    inner = spec.shape[1:]
    sizes = [size for size in inner if isinstance(size, int)]
    if len(shape) == 2 and len(inner) == len(sizes) != 1 and shape[1] == prod(sizes):
        shape = [shape[0], *sizes]
    return flat.reshape(shape), None


def _filled_up(flat: np.ndarray, lengths: np.ndarray, spec: TensorSpec) -> np.ndarray:
    found = np.full((len(lengths), int(lengths.max())), spec.pad_value, flat.dtype)
    found[np.arange(found.shape[1]) < lengths[:, None]] = flat
    return found


def _plain(values: Any, spec: TensorSpec) -> np.ndarray:
    """Return a column without lists as a 1-axis array: text and bytes as objects, numbers as they are."""
    import pyarrow as pa
    import pyarrow.compute as pc

    types, kind = pa.types, values.type
    if types.is_dictionary(kind):
        values, kind = values.dictionary_decode(), kind.value_type
    if spec.dtype in ("string", BYTES):
        return _objects(values, spec)
    if types.is_string(kind) or types.is_large_string(kind):
        return _numbers_in_text(values, spec)
    if types.is_decimal(kind):
        values = values.cast(pa.float64())
    elif types.is_null(kind):
        values = values.cast(pa.from_numpy_dtype(np.float64))
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)):
        raise InputError(f"'{spec.name}' is {kind}, expected {spec.describe()}")
    if values.null_count and not types.is_floating(kind):
        if not (spec.allow_nan and spec.numpy_dtype.kind == "f"):
            raise InputError(f"'{spec.name}' is null")
        values = values.cast(pa.float64())
    found: np.ndarray = values.to_numpy(zero_copy_only=False)
    if values.null_count and not spec.allow_nan:
        place = pc.index(values.is_null(), True).as_py()
        raise InputError(f"'{spec.name}' is null" if len(values) == 1 else f"'{spec.name}' is null in row {place}")
    return found


def _numbers_in_text(values: Any, spec: TensorSpec) -> np.ndarray:
    """Return the numbers that text is, as a .csv has them; an empty one is a missing value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(values)
    empty = pc.equal(text, "")
    if pc.any(empty).as_py():
        if not (spec.allow_nan and spec.numpy_dtype.kind == "f"):
            raise InputError(f"'{spec.name}' is empty")
        text = pc.if_else(empty, None, text)
    kind = {"i": pa.int64(), "u": pa.uint64(), "b": pa.bool_()}.get(spec.numpy_dtype.kind, pa.float64())
    try:
        found: np.ndarray = text.cast(kind).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        first = next((item for item in text.to_pylist() if item and not _is(item, kind)), "")
        raise InputError(f"'{spec.name}' is '{one_line(ValueError(first), 60)}', expected {spec.dtype}") from None
    return found


def _is(text: str, kind: Any) -> bool:
    import pyarrow as pa

    try:
        pa.scalar(text).cast(kind)
    except pa.ArrowInvalid:
        return False
    return True


def _objects(values: Any, spec: TensorSpec) -> np.ndarray:
    import pyarrow as pa

    types, kind = pa.types, values.type
    if values.null_count:
        raise InputError(f"'{spec.name}' is null")
    text = types.is_string(kind) or types.is_large_string(kind)
    binary = types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind)
    if not text and not (binary and spec.dtype == BYTES):
        raise InputError(f"'{spec.name}' is {kind}, expected {'the bytes of files' if spec.dtype == BYTES else 'text'}")
    found = np.empty(len(values), object)
    found[:] = values.to_pylist()
    if spec.dtype == BYTES and text:
        try:
            found[:] = [b64decode(item, validate=True) for item in found]
        except ValueError:
            raise InputError(f"'{spec.name}' is text that isn't base64, as the bytes of a file are in text") from None
    return found


def column_of(parts: Sequence[np.ndarray], spec: TensorSpec | None) -> Any:
    """Return what a model gave for some batches as one Arrow array: lists for axes beside that of the rows.

    Args:
        parts: an array a batch; they may differ in the sizes of axes that have a name.
        spec: of the output; sizes that it doesn't know may differ by row. None: none is known.
    """
    import pyarrow as pa

    sizes = [None] * (parts[0].ndim - 1) if spec is None else [*spec.shape[1:]]
    fixed = len(sizes) == parts[0].ndim - 1 and all(isinstance(size, int) for size in sizes)
    if fixed:
        return _lists(np.concatenate(parts) if len(parts) > 1 else parts[0], [True] * len(sizes))
    arrays = [_lists(part, [isinstance(size, int) for size in sizes]) for part in parts]
    return pa.concat_arrays(arrays)


def _lists(array: np.ndarray, fixed: list[bool]) -> Any:
    import pyarrow as pa

    if array.dtype.kind in "OUS":
        found = pa.array([str(item) for item in array.reshape(-1)], pa.string())
    else:
        found = pa.array(np.ascontiguousarray(array).reshape(-1))
    fixed = fixed if len(fixed) == array.ndim - 1 else [False] * (array.ndim - 1)
    for axis in range(array.ndim - 1, 0, -1):
        size = array.shape[axis]
        if fixed[axis - 1] and size:
            found = pa.FixedSizeListArray.from_arrays(found, size)
            continue
        lists = int(np.prod(array.shape[:axis], dtype=int))
        found = pa.ListArray.from_arrays(pa.array(np.arange(lists + 1, dtype=np.int32) * size), found)
    return found
