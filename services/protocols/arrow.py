"""Arrow IPC streams, for tables: a column an input, a row a row (`application/vnd.apache.arrow.stream`).

An input of shape [batch] or [batch, 1] is a plain column, [batch, n] a fixed-size list (or the numeric columns of a
model with that one input, in their order). The answer has a column an output.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hone.errors import SignatureError
from hone.signature import TensorSpec
from services.batching import Tensors
from services.failures import MediaTypeError, RequestError
from services.http import Body, Fields, Head
from services.protocols.base import Protocol, Request, timeout_of
from services.tensors import check_finite

ARROW = b"application/vnd.apache.arrow.stream"


class Arrow(Protocol):
    """A table of inputs in, a table of outputs out."""

    def decode(self, head: Head, body: Body) -> Request:
        table = _read(body)
        inputs = self.signature.check(self._tensors(table))
        for spec in self.signature.inputs:
            check_finite(inputs[spec.name], spec)
        return Request(inputs, timeout_of(head))

    def _tensors(self, table: Any) -> Tensors:
        only = self.signature.inputs[0]
        if len(self.signature.inputs) == 1 and only.name not in table.column_names and len(only.shape) == 2:
            columns = [_plain(table.column(i), only, name) for i, name in enumerate(table.column_names)]
            if not columns:
                raise SignatureError("the table has no columns")
            return {only.name: np.ascontiguousarray(np.stack(columns, axis=1))}
        return {name: _tensor(table.column(name), self.signature.input(name)) for name in table.column_names}

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        import pyarrow as pa

        arrays = [_column(array) for array in outputs.values()]
        table = pa.table(arrays, names=list(outputs))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return [(b"content-type", ARROW)], memoryview(sink.getvalue())


def _read(body: Body) -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise MediaTypeError("this server has no Arrow; install the [ops] extra on it, or send JSON") from None
    try:
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            table = reader.read_all()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        line = (str(error).splitlines() or ["no stream"])[0]
        raise RequestError(f"the body is not an Arrow IPC stream: {line}") from None
    if len(set(table.column_names)) != table.num_columns:
        raise RequestError("the table has two columns of one name")
    return table


def _plain(column: Any, spec: TensorSpec, name: str) -> np.ndarray:
    """Return a column without lists as a 1-D array of the spec's dtype.

    Integers become floats only where every one of them can be; nothing else is converted.
    """
    import pyarrow as pa

    kind = column.type
    if column.null_count and not (spec.allow_nan and spec.numpy_dtype.kind == "f"):
        raise SignatureError(f"column '{name}' has nulls; the model takes no missing values")
    if spec.dtype == "string":
        if pa.types.is_dictionary(kind):
            column, kind = column.cast(kind.value_type), kind.value_type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            raise SignatureError(f"column '{name}' holds {kind}, expected strings")
        return np.array(column.to_pylist(), dtype=object)
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    widens = spec.numpy_dtype.kind == "f" and numeric
    if not (widens or str(kind) == _arrow_name(spec)):
        raise SignatureError(f"column '{name}' holds {kind}, expected {spec.describe()}")
    return np.asarray(column.to_numpy()).astype(spec.numpy_dtype, copy=False)


def _arrow_name(spec: TensorSpec) -> str:
    return {"float64": "double", "float32": "float", "float16": "halffloat"}.get(spec.dtype, spec.dtype)


def _tensor(column: Any, spec: TensorSpec) -> np.ndarray:
    import pyarrow as pa

    rows = len(column)
    if not pa.types.is_fixed_size_list(column.type):
        if pa.types.is_nested(column.type):
            raise SignatureError(f"column '{spec.name}' is {column.type}; use a fixed-size list for {spec.describe()}")
        flat = _plain(column, spec, spec.name)
        return flat.reshape(rows, 1) if len(spec.shape) == 2 else flat
    if column.null_count:
        raise SignatureError(f"column '{spec.name}' has null rows")
    width = column.type.list_size
    values = _plain(column.combine_chunks().flatten(), spec, spec.name)
    inner = [axis for axis in spec.shape[1:] if isinstance(axis, int)]
    if len(inner) == len(spec.shape) - 1 and prod(inner) == width:
        return values.reshape(rows, *inner)
    return values.reshape(rows, width)


def _column(array: np.ndarray) -> Any:
    import pyarrow as pa

    if array.dtype.kind == "O":
        return pa.array([str(item) for item in array.reshape(-1)])
    if array.ndim == 1:
        return pa.array(array)
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, int(array.size // max(1, len(array))))
