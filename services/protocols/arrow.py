"""Arrow IPC streams, for tables: a column an input, a row a row (`application/vnd.apache.arrow.stream`).

An input of shape [batch] or [batch, 1] is a plain column, [batch, n] a fixed-size list (or the numeric columns of a
model with that one input, in their order). The answer has a column an output. A stream ends with its end-of-stream
marker at the body's last byte, and its buffers aren't compressed: the body may be.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import SignatureError, one_line, shorten
from hone.signature import Signature, Tensors, TensorSpec

from ..http.failures import MediaTypeError, RequestError
from ..http.responses import Body, Fields, Head
from .arrow_stream import survey
from .base import Part, Protocol, Request, register, timeout_of
from .predict import PREDICT
from .schemas import BINARY_BODY
from .tensors import STRING_BYTES, check_finite

MAX_COLUMNS = 65_536
"""Of a table that stands for one input whose width is dynamic."""

COPIES = 3
"""Copies of a column that there may be at once: widened, joined, in the order of rows."""

ARROW = b"application/vnd.apache.arrow.stream"


@register(PREDICT, ARROW)
class Arrow(Protocol):
    """A table of inputs in, a table of outputs out."""

    def decode(self, head: Head, body: Body) -> Request:
        table = self._read(body)
        signature = self.signature.taken_by(table.column_names)
        inputs = self.limits.check(signature, self._tensors(table, signature))
        for spec in signature.inputs:
            check_finite(inputs[spec.name], spec)
        return Request(inputs, timeout_of(head))

    def _read(self, body: Body) -> Any:
        """Return the table; no column of it takes more memory than its values are worth."""
        try:
            import pyarrow as pa
        except ImportError:
            raise MediaTypeError("this server has no Arrow; send JSON, or there: pip install 'hone[ops]'") from None
        self.limits.check_rows(survey(body).rows)
        try:
            with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
                self._check_columns(reader.schema)
                table = reader.read_all()
            table.validate(full=True)
        except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
            raise RequestError(f"the body is not an Arrow IPC stream: {one_line(error)}") from None
        return table

    def _check_columns(self, schema: Any) -> None:
        """Refuse, before any of them is read, more columns than the model can take and types that no input has."""
        names = schema.names
        most = _most_columns(self.signature.taken_by(names))
        if len(names) > most:
            raise SignatureError(f"the table has {len(names)} columns, the model takes {most} at most")
        if len(set(names)) != len(names):
            raise RequestError("the table has two columns of one name")
        for name, kind in zip(names, schema.types, strict=True):
            if not _known(kind):
                raise SignatureError(
                    f"column '{shorten(name)}' holds {shorten(kind)}; send numbers, booleans, strings or fixed-size "
                    "lists of them"
                )

    def _tensors(self, table: Any, signature: Signature) -> Tensors:
        only = signature.inputs[0]
        if len(signature.inputs) == 1 and only.name not in table.column_names and len(only.shape) == 2:
            if not table.num_columns:
                raise SignatureError("the table has no columns")
            self.limits.check_memory(COPIES * table.num_rows * table.num_columns * only.numpy_dtype.itemsize)
            columns = [self._plain(table.column(i), only, name) for i, name in enumerate(table.column_names)]
            return {only.name: np.ascontiguousarray(np.stack(columns, axis=1))}
        return {name: self._tensor(table.column(name), signature.input(name)) for name in table.column_names}

    def _tensor(self, column: Any, spec: TensorSpec) -> np.ndarray:
        import pyarrow as pa

        rows = len(column)
        if not pa.types.is_fixed_size_list(column.type):
            flat = self._plain(column, spec, spec.name)
            return flat.reshape(rows, 1) if len(spec.shape) == 2 else flat
        if column.null_count:
            raise SignatureError(f"column '{spec.name}' has null rows")
        width = column.type.list_size
        self.limits.count(spec, (rows, width))
        lists = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        values = self._plain(lists.values.slice(lists.offset * width, rows * width), spec, spec.name)
        inner = [axis for axis in spec.shape[1:] if isinstance(axis, int)]
        if len(inner) == len(spec.shape) - 1 and prod(inner) == width:
            return values.reshape(rows, *inner)
        return values.reshape(rows, width)

    def _plain(self, column: Any, spec: TensorSpec, name: str) -> np.ndarray:
        """Return a column without lists as a 1-D array of the spec's dtype.

        Integers become floats only where every one of them can be; nothing else is converted.
        """
        import pyarrow as pa

        kind = column.type
        if column.null_count and not (spec.allow_nan and spec.numpy_dtype.kind == "f"):
            raise SignatureError(f"column '{shorten(name)}' has nulls; the model takes no missing values")
        if spec.dtype == "string":
            return self._texts(column, name)
        numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
        widens = spec.numpy_dtype.kind == "f" and numeric
        if not (widens or str(kind) == _arrow_name(spec)):
            raise SignatureError(f"column '{shorten(name)}' holds {kind}, expected {spec.describe()}")
        self.limits.check_memory(COPIES * len(column) * spec.numpy_dtype.itemsize)
        return np.asarray(column.to_numpy(zero_copy_only=False)).astype(spec.numpy_dtype, copy=False)

    def _texts(self, column: Any, name: str) -> np.ndarray:
        """Return a column of strings. Equal strings of a dictionary are one object, but count as many times as they
        stand there: the model copies them."""
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = column.type
        if not pa.types.is_dictionary(kind):
            if not _is_text(kind):
                raise SignatureError(f"column '{shorten(name)}' holds {kind}, expected strings")
            self.limits.check_memory(len(column) * STRING_BYTES + 4 * column.nbytes)
            return np.array(column.to_pylist(), dtype=object)
        parts = []
        for chunk in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
            lengths = pc.binary_length(chunk.dictionary).cast("int64")
            total = pc.sum(pc.take(lengths, chunk.indices)).as_py() or 0
            self.limits.check_memory(
                (len(chunk) + len(chunk.dictionary)) * STRING_BYTES + 4 * (total + chunk.dictionary.nbytes)
            )
            words = np.array([*chunk.dictionary.to_pylist(), None], dtype=object)
            parts.append(words[chunk.indices.to_numpy(zero_copy_only=False)])
        texts = np.concatenate(parts) if parts else np.zeros(0, object)
        if any(text is None for text in texts):
            raise SignatureError(f"column '{shorten(name)}' has nulls; the model takes no missing values")
        return texts

    def in_text(self, request: Request) -> bool:
        return False

    def encode(self, request: Request, outputs: Tensors) -> tuple[Fields, Body]:
        import pyarrow as pa

        arrays = [_column(array) for array in outputs.values()]
        table = pa.table(arrays, names=list(outputs))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return [(b"content-type", ARROW)], memoryview(sink.getvalue())

    @classmethod
    def describe(cls, artifact: Artifact, rows: Tensors) -> Part:
        return Part({ARROW.decode(): BINARY_BODY}, {ARROW.decode(): BINARY_BODY})


def _most_columns(signature: Signature) -> int:
    only, *others = signature.inputs
    if others or len(only.shape) != 2:
        return len(signature.inputs)
    return only.shape[1] if isinstance(only.shape[1], int) else MAX_COLUMNS


def _known(kind: Any) -> bool:
    """Return whether a type is one that inputs come in."""
    import pyarrow as pa

    types = pa.types
    if types.is_fixed_size_list(kind):
        kind = kind.value_type
    elif types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or _is_text(kind)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _arrow_name(spec: TensorSpec) -> str:
    return {"float64": "double", "float32": "float", "float16": "halffloat"}.get(spec.dtype, spec.dtype)


def _column(array: np.ndarray) -> Any:
    import pyarrow as pa

    if array.dtype.kind == "O":
        return pa.array([str(item) for item in array.reshape(-1)])
    if array.ndim == 1:
        return pa.array(array)
    values = pa.array(np.ascontiguousarray(array).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(values, int(array.size // max(1, len(array))))
