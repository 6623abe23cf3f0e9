"""Joining callers' rows into one batch of tensors and taking the answers apart again.

Rows of equal shape are concatenated. Rows whose dynamic axes differ (texts of several lengths) are filled up to the
longest of their batch where the signature gives a `pad_value` for every input with such an axis. Lengths are put into
buckets a quarter apart, and only works of one bucket share a batch: a text is never filled up to more than 1.25 times
its length, so a short one never pays for a long one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hone.signature import BATCH, Signature, Tensors, TensorSpec

from ..http.failures import InferenceError
from .queue import Work
from .sizes import Bucket

STEP = 1.25
FIXED = Bucket()


class Joiner:
    """Joins and splits by a signature.

    Args:
        signature: of the model; its inputs and outputs carry the batch axis first.
        pad: False never fills up, so only rows of equal shape share a batch.
    """

    def __init__(self, signature: Signature, *, pad: bool = True) -> None:
        self._inputs = signature.inputs
        self._names = signature.input_names
        self.first = self._names[0]
        self._dynamic = [(spec, dynamic_axes(spec)) for spec in signature.inputs if dynamic_axes(spec)]
        self._outputs = [(spec.name, dynamic_axes(spec)) for spec in signature.outputs]
        self.one_length = not self._dynamic
        self.pads = pad and can_pad(signature)

    def bucket(self, inputs: Tensors) -> Bucket:
        """Return what these rows may share a batch with."""
        if not self._dynamic:
            return FIXED
        sizes = _sizes(inputs, self._dynamic)
        lengths = tuple(edge_of(size) if self.pads else size for size in sizes.values())
        return Bucket(lengths, int(np.prod(lengths)))

    def join(self, works: Sequence[Work]) -> Tensors:
        """Return one tensor an input; a single work's own tensors, uncopied, when it is alone."""
        if len(works) == 1:
            return self.alone(works[0].inputs)
        if self.pads:
            shapes = [work.inputs[spec.name].shape[1:] for spec, _ in self._dynamic for work in works]
            if any(shape != shapes[0] for shape in shapes):
                return {spec.name: self._padded(spec, works) for spec in self._inputs}
        return {name: np.concatenate([work.inputs[name] for work in works]) for name in self._names}

    @staticmethod
    def alone(inputs: Tensors) -> Tensors:
        """Return one work's own tensors, uncopied unless they start between two elements, as behind a JSON header."""
        for array in inputs.values():
            if not array.flags.aligned:
                return {name: array.copy() for name, array in inputs.items()}
        return inputs

    @staticmethod
    def _padded(spec: TensorSpec, works: Sequence[Work]) -> np.ndarray:
        arrays = [work.inputs[spec.name] for work in works]
        longest = tuple(max(sizes) for sizes in zip(*(array.shape[1:] for array in arrays), strict=True))
        rows = sum(work.rows for work in works)
        joined = np.full((rows, *longest), spec.pad_value, arrays[0].dtype)
        start = 0
        for array in arrays:
            stop = start + len(array)
            joined[(slice(start, stop), *(slice(size) for size in array.shape[1:]))] = array
            start = stop
        return joined

    def split(self, outputs: Tensors, works: Sequence[Work]) -> list[Tensors]:
        """Return each work's rows: views, cut back to its own lengths.

        Raises:
            InferenceError: an output doesn't have one row for each row of input.
        """
        if len(works) == 1:
            return [outputs]
        total = sum(work.rows for work in works)
        for name, array in outputs.items():
            if len(array) != total:
                raise InferenceError(f"output '{name}' has {len(array)} rows for {total} rows of input")
        parts: list[Tensors] = []
        start = 0
        for work in works:
            stop = start + work.rows
            part = {name: array[start:stop] for name, array in outputs.items()}
            parts.append(self._cut(part, work) if self.pads else part)
            start = stop
        return parts

    def _cut(self, part: Tensors, work: Work) -> Tensors:
        """Take the filled-up ends of outputs off that share an axis with an input."""
        sizes = _sizes(work.inputs, self._dynamic)
        for name, axes in self._outputs:
            array = part.get(name)
            if array is not None and any(axis in sizes for _, axis in axes):
                cut = [slice(None)] * array.ndim
                for position, axis in axes:
                    if axis in sizes:
                        cut[position] = slice(sizes[axis])
                part[name] = array[tuple(cut)]
        return part


def can_pad(signature: Signature) -> bool:
    """Return whether rows of several lengths can be filled up to one."""
    dynamic = [spec for spec in signature.inputs if dynamic_axes(spec)]
    return bool(dynamic) and all(spec.pad_value is not None for spec in dynamic)


def dynamic_axes(spec: TensorSpec) -> list[tuple[int, str]]:
    """Return a tensor's named axes other than that of the rows, each with its place."""
    return [(i, axis) for i, axis in enumerate(spec.shape) if isinstance(axis, str) and axis != BATCH]


def _sizes(inputs: Tensors, dynamic: list[tuple[TensorSpec, list[tuple[int, str]]]]) -> dict[str, int]:
    return {axis: inputs[spec.name].shape[position] for spec, axes in dynamic for position, axis in axes}


def groups_of(lengths: np.ndarray, *, exact: bool = False) -> list[np.ndarray]:
    """Return the numbers of the rows of each bucket of lengths.

    Args:
        lengths: of rows.
        exact: only rows of one length go together.
    """
    edges = lengths if exact else np.fromiter(map(edge_of, lengths.tolist()), np.int64, len(lengths))
    return [np.flatnonzero(edges == edge) for edge in np.unique(edges)]


def part_of(inputs: Tensors, signature: Signature, rows: np.ndarray, lengths: np.ndarray) -> Tensors:
    """Return some rows of inputs that were filled up, no longer than the longest of them."""
    longest, part = int(lengths[rows].max()), {}
    for spec in signature.inputs:
        array = inputs[spec.name][rows]
        cut = [slice(None)] * array.ndim
        for position, _ in dynamic_axes(spec):
            cut[position] = slice(longest)
        part[spec.name] = np.ascontiguousarray(array[tuple(cut)])
    return part


def edge_of(size: int) -> int:
    """Round a length up to the edge of its bucket: 1 to 8, then steps of a quarter."""
    edge = 8
    while edge < size:
        edge = int(edge * STEP)
    return edge
