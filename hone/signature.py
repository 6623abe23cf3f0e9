"""Signatures: the names, dtypes and shapes of a model's inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from hone.errors import SignatureError, did_you_mean, shorten

BATCH = "batch"
DTYPES = (
    "float16", "float32", "float64", "bfloat16",
    "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64",
    "bool", "string",
)  # fmt: skip
Tensors = dict[str, np.ndarray]
"""Tensors by the names that a signature gives them."""

AXIS_NAME = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")


def as_text(array: np.ndarray) -> np.ndarray:
    """Return text as fixed-width text, as files hold it without pickles; other tensors as they are."""
    return array.astype(str) if array.dtype.kind == "O" else array


def as_objects(array: np.ndarray) -> np.ndarray:
    """Return fixed-width text as the objects that models take; other tensors as they are."""
    return array.astype(object) if array.dtype.kind == "U" else array


def known_dtype(value: str) -> str:
    """Return the name of a dtype; raises ValueError for one that tensors can't have."""
    if value not in DTYPES:
        raise ValueError(f"unknown dtype '{value}'{did_you_mean(value, DTYPES)}")
    return value


def valid_axes(value: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Return the axes of a tensor; raises ValueError for a size or name that none can have."""
    for axis in value:
        if isinstance(axis, int) and axis < 1:
            raise ValueError(f"axis size {axis} is not positive; give a dynamic axis a name, such as 'batch'")
        if isinstance(axis, str) and not AXIS_NAME.match(axis):
            raise ValueError(f"axis name '{axis}' is not an identifier")
    return value


Dtype = Annotated[str, AfterValidator(known_dtype)]
"""The name of a dtype that tensors can have."""
Shape = Annotated[tuple[int | str, ...], AfterValidator(valid_axes)]
"""The axes of a tensor: a fixed size each, or the name of a dynamic axis."""


class TensorSpec(BaseModel):
    """One input or output: a dtype and a shape whose named axes are dynamic.

    Axis 0 of a batchable tensor is named `batch`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: Dtype = "float32"
    shape: Shape
    allow_nan: bool = Field(False, description="Accept NaN and infinities in this input when serving.")
    pad_value: float | None = Field(
        None, description="What rows are filled up with along named axes other than batch; the model ignores it there."
    )
    source_axes: tuple[int, ...] = Field(
        (), description="The source model's axes in the order that this tensor has them; empty: the same order."
    )

    @property
    def batchable(self) -> bool:
        return bool(self.shape) and self.shape[0] == BATCH

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The numpy dtype; `string` is `object`, `bfloat16` travels as float32."""
        if self.dtype == "string":
            return np.dtype(object)
        if self.dtype == "bfloat16":
            return np.dtype(np.float32)
        return np.dtype(self.dtype)

    def fit(self, array: np.ndarray) -> np.ndarray:
        """Return an array of the source model's input as this one takes it: its order of axes and its dtype."""
        if self.source_axes and array.ndim == len(self.source_axes):
            array = np.ascontiguousarray(array.transpose(self.source_axes))
        return array.astype(self.numpy_dtype, copy=False)

    def with_axes(self, order: tuple[int, ...]) -> TensorSpec:
        """Return this spec with its axes in another order."""
        return self.model_copy(update={"shape": tuple(self.shape[axis] for axis in order), "source_axes": order})

    def describe(self) -> str:
        return f"{self.dtype}[{', '.join(str(axis) for axis in self.shape)}]"

    def example(self, rows: int = 1, axis_size: int = 4) -> np.ndarray:
        """Return zeros (empty strings) of this spec: `rows` on the batch axis, `axis_size` on other dynamic axes."""
        sizes = [rows if axis == BATCH else axis_size if isinstance(axis, str) else axis for axis in self.shape]
        if self.dtype == "string":
            return np.full(sizes, "", dtype=object)
        return np.zeros(sizes, self.numpy_dtype)


class Signature(BaseModel):
    """The inputs and outputs of a model, in the order in which the model takes and gives them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...] = ()

    def input(self, name: str) -> TensorSpec:
        for spec in self.inputs:
            if spec.name == name:
                return spec
        raise SignatureError(f"unknown input '{shorten(name)}'{did_you_mean(name, self.input_names)}")

    @property
    def input_names(self) -> list[str]:
        return [spec.name for spec in self.inputs]

    @property
    def output_names(self) -> list[str]:
        return [spec.name for spec in self.outputs]

    @property
    def batchable(self) -> bool:
        """True when every input and output carries the batch axis first, so rows of several callers can be joined."""
        return all(spec.batchable for spec in (*self.inputs, *self.outputs))

    def taken_by(self, names: Iterable[str]) -> Signature:
        """Return the signature that a request with inputs of these names is of: this one, unless there are two."""
        return self

    @property
    def unnamed(self) -> Signature:
        """The signature of requests that don't name their inputs."""
        return self

    @property
    def dynamic_axes(self) -> list[str]:
        """Names of all dynamic axes of the inputs, in order of appearance."""
        names: dict[str, None] = {}
        for spec in self.inputs:
            names.update({axis: None for axis in spec.shape if isinstance(axis, str)})
        return list(names)

    def check(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the inputs in signature order, or raise.

        Arrays must have the exact dtype and shape of their spec, and agree on every named axis.

        Raises:
            SignatureError: naming the tensor: missing, unknown, of another dtype or shape, or empty.
        """
        for name in arrays:
            self.input(name)
        checked: dict[str, np.ndarray] = {}
        sizes: dict[str, tuple[int, str]] = {}
        for spec in self.inputs:
            if spec.name not in arrays:
                raise SignatureError(f"input '{spec.name}' is missing; it is {spec.describe()}")
            array = arrays[spec.name]
            if array.dtype != spec.numpy_dtype:
                raise SignatureError(f"input '{spec.name}' has dtype {array.dtype}, expected {spec.dtype}")
            _check_shape(spec, array.shape, sizes)
            checked[spec.name] = array
        return checked


def _check_shape(spec: TensorSpec, shape: tuple[int, ...], sizes: dict[str, tuple[int, str]]) -> None:
    """Compare a shape with its spec; `sizes` holds (size, input) of each named axis seen so far."""
    wanted = f"[{', '.join(str(axis) for axis in spec.shape)}]"
    if len(shape) != len(spec.shape):
        raise SignatureError(
            f"input '{spec.name}' has {len(shape)} axes {shorten(list(shape))}, expected {len(spec.shape)}: {wanted}"
        )
    for position, (axis, size) in enumerate(zip(spec.shape, shape, strict=True)):
        if isinstance(axis, int):
            if axis != size:
                raise SignatureError(
                    f"input '{spec.name}' has shape {list(shape)}, expected {wanted} "
                    f"(axis {position} is {size}, not {axis})"
                )
            continue
        if size == 0:
            raise SignatureError(f"input '{spec.name}' is empty: axis '{axis}' has size 0")
        first, owner = sizes.setdefault(axis, (size, spec.name))
        if first != size:
            raise SignatureError(f"inputs '{owner}' and '{spec.name}' differ in axis '{axis}': {first} and {size}")
