"""How much one request may ask for: memory while it is read, rows, and values of a row.

Every protocol goes by these, before it does the work: what a body would take is known from its length, from a count of
its brackets and commas, or from the shapes that it names. A body within `HONE_MAX_BODY_MB` can stand for far more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from hone.errors import SignatureError
from hone.signature import BATCH, Signature, Tensors, TensorSpec

from ..settings import Settings
from .failures import BodyTooLargeError

MAX_AXES = 32
LARGEST = 1 << 40
"""No size of an axis, and no product of them, may be over this: far from what overflows an integer in numpy."""


@dataclass(frozen=True)
class Limits:
    """Limits of one request.

    Attributes:
        memory: bytes that may be taken while it is read, its body not counted; and as many while it is answered.
        rows: on the batch axis.
        row_values: of one row along its dynamic axes, such as the tokens of a text.
    """

    memory: int = 512_000_000
    rows: int = 65_536
    row_values: int = 1 << 20

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        return cls(settings.max_read_bytes, settings.max_rows, settings.max_row_values)

    def check_memory(self, needed: int) -> None:
        """Raise BodyTooLargeError when reading a request would take more memory than it may."""
        if needed > self.memory:
            raise BodyTooLargeError(
                f"reading this request would take about {needed / 1e6:.0f} MB of memory, {self.memory / 1e6:.0f} MB "
                "are allowed; send fewer values, send them in binary, or raise HONE_MAX_READ_MB"
            )

    def check_answer(self, needed: int) -> None:
        """Raise BodyTooLargeError when the answer to a request would take more memory than it may."""
        if needed > self.memory:
            raise BodyTooLargeError(
                f"the answer to this request would take about {needed / 1e6:.0f} MB of memory, {self.memory / 1e6:.0f} "
                "MB are allowed; send fewer rows, or raise HONE_MAX_READ_MB"
            )

    def check_made(self, needed: int) -> None:
        """Raise BodyTooLargeError when steps would make more of a request's rows than it may take."""
        if needed > self.memory:
            raise BodyTooLargeError(
                f"what the model takes would be about {needed / 1e6:.0f} MB, made of this request's rows, "
                f"{self.memory / 1e6:.0f} MB are allowed; send fewer rows, long texts apart from short ones, or raise "
                "HONE_MAX_READ_MB"
            )

    def check_rows(self, rows: int) -> None:
        """Raise BodyTooLargeError when a request has too many rows."""
        if rows > self.rows:
            raise BodyTooLargeError(
                f"{rows} rows in one request, {self.rows} are allowed; send several requests, or raise HONE_MAX_ROWS"
            )

    def count(self, spec: TensorSpec, shape: Sequence[int]) -> int:
        """Return the number of values in a tensor of a shape that a caller gave.

        Raises:
            SignatureError: a shape that no tensor can have.
            BodyTooLargeError: too many rows.
        """
        if len(shape) <= MAX_AXES:
            product = prod(shape)
            if 0 < product <= self.rows and min(shape, default=1) > 0:
                return product  # nearly always
        else:
            raise SignatureError(
                f"input '{spec.name}': a shape of {len(shape)} axes, {MAX_AXES} are possible; it is {spec.describe()}"
            )
        product = 1
        empty = False
        for size in shape:
            product *= size or 1
            empty = empty or not size
            if not 0 <= size <= LARGEST or product > LARGEST:
                raise SignatureError(
                    f"input '{spec.name}': the shape [{_sizes(shape)}] is not possible; it is {spec.describe()}"
                )
        if shape and spec.batchable:
            self.check_rows(shape[0])
        return 0 if empty else product

    def check(self, signature: Signature, arrays: Tensors) -> Tensors:
        """Return the inputs in signature order, checked against it and these limits.

        Raises:
            SignatureError: naming the tensor: missing, unknown, of another dtype or shape, or empty.
            BodyTooLargeError: too many rows, or rows that are too long.
        """
        signature = signature.taken_by(arrays)
        inputs = signature.check(arrays)
        for spec in signature.inputs:
            array = inputs[spec.name]
            if array.size > self.rows or array.size > self.row_values:  # else it is within both
                self._check_size(spec, array.shape)
        return inputs

    def _check_size(self, spec: TensorSpec, shape: tuple[int, ...]) -> None:
        if spec.batchable:
            self.check_rows(shape[0])
        values = 1
        for axis, size in zip(spec.shape, shape, strict=True):
            if isinstance(axis, str) and axis != BATCH:
                values *= size
        if values > self.row_values:
            raise BodyTooLargeError(
                f"a row of input '{spec.name}' has {values} values along its dynamic axes, {self.row_values} are "
                "allowed; send shorter rows, or raise HONE_MAX_ROW_VALUES"
            )


def _sizes(shape: Sequence[int]) -> str:
    """Return sizes for a message; one of thousands of digits can't even be printed."""
    return ", ".join(str(size) if abs(size) <= 1 << 64 else "…" for size in shape)


NO_MORE_THAN = Limits()
"""The defaults, for callers inside this process."""
