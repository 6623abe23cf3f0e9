"""The columns that tensors are looked at by: a number or a category of each row, whatever the tensor's shape.

An element of a narrow tensor is a column. A wide one, such as an image or an embedding, has 32 fixed random projections
and its norm instead (very sparse ones: Li, Hastie and Church, Very sparse random projections, KDD 2006); one with
dynamic axes its size, mean and deviation; long text its length; scores of classes also the class and its confidence.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from hone.signature import Signature, TensorSpec

NARROW = 64
"""Most elements of a row that are columns each."""
PROJECTIONS = 32
MOST_COLUMNS = 128
MOST_CLASSES = 1000
MOST_SCORES = 16
"""Most scores of classes that are columns each, beside the class."""
CATEGORIES = 32
"""Most distinct values of a column of categories."""
ROWS_A_CATEGORY = 5

How = Literal["value", "projection", "norm", "size", "mean", "deviation", "length", "class", "confidence"]


class Column(BaseModel):
    """One number or category of each row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Literal["input", "output"]
    tensor: str
    how: How = "value"
    index: int | None = Field(None, ge=0, description="Of the element or projection; null: there is one only.")
    category: bool = False

    @property
    def group(self) -> str:
        """The tensor that it is of."""
        return f"{self.side}.{self.tensor}"

    @property
    def name(self) -> str:
        what = "" if self.how == "value" else f".{self.how}"
        return f"{self.group}{what}{'' if self.index is None else f'[{self.index}]'}"


def columns_of(
    signature: Signature, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> list[Column]:
    """Return the columns of a model, at most 128; which are categories shows in the rows.

    Args:
        signature: of the model.
        inputs, outputs: rows of all or some of its tensors.
    """
    rows = min(len(array) for array in inputs.values())
    found: list[Column] = []
    for side, specs, tensors in (("input", signature.inputs, inputs), ("output", signature.outputs, outputs)):
        for spec in specs:
            array = tensors.get(spec.name)
            if array is not None and array.ndim and len(array) == rows:
                found += _of_tensor("input" if side == "input" else "output", spec, array)
    outs = [column for column in found if column.side == "output"][: MOST_COLUMNS // 2]
    return [*[column for column in found if column.side == "input"][: MOST_COLUMNS - len(outs)], *outs]


def _of_tensor(side: Literal["input", "output"], spec: TensorSpec, array: np.ndarray) -> list[Column]:
    def column(how: How, index: int | None = None, category: bool = False) -> Column:
        return Column(side=side, tensor=spec.name, how=how, index=index, category=category)

    if any(isinstance(axis, str) for axis in spec.shape[1:]):
        summed: tuple[How, ...] = ("size",) if array.dtype.kind in "OU" else ("size", "mean", "deviation")
        return [column(how) for how in summed]
    flat = array.reshape(len(array), -1)
    width = flat.shape[1]
    if array.dtype.kind in "OU":
        return [
            column("value" if few else "length", index if width > 1 else None, few)
            for index in range(min(width, NARROW))
            for few in [_few_values(flat[:, index])]
        ]
    classes = side == "output" and array.ndim == 2 and array.dtype.kind == "f" and 1 < width <= MOST_CLASSES
    found = [column("class", category=True), column("confidence")] if classes else []
    if width <= (MOST_SCORES if classes else NARROW):
        found += [column("value", index if width > 1 else None, _few_values(flat[:, index])) for index in range(width)]
    elif not classes:
        found += [*(column("projection", index) for index in range(PROJECTIONS)), column("norm")]
    return found


def _few_values(values: np.ndarray) -> bool:
    """Return whether a column is of categories: text, whole numbers or truth values, each in several rows."""
    if values.dtype.kind == "f":
        known = values[~np.isnan(values)]
        if not known.size or not np.isfinite(known).all() or (known != np.round(known)).any():
            return False
    distinct = len(np.unique(values.astype(str) if values.dtype.kind == "O" else values))
    return values.dtype.kind == "b" or distinct <= min(CATEGORIES, len(values) // ROWS_A_CATEGORY)


def taken(columns: Sequence[Column], inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return [rows, columns] the values: numbers, NaN where there is none; of a column of categories text in `texts`.

    Categories are left NaN here.
    """
    rows = len(next(iter(inputs.values())))
    found = np.full((rows, len(columns)), np.nan)
    for group, places in _groups(tuple(columns)):
        array = (inputs if group[0] == "input" else outputs).get(group[1])
        if array is None or not array.ndim or len(array) != rows:
            continue
        flat = array.reshape(rows, -1)
        for how, where, indices in places:
            found[:, where] = _numbers(how, flat, indices, group)
    return found


def texts(
    columns: Sequence[Column], inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """Return the categories of each column of categories, in their order: text, empty where there is none."""
    rows = len(next(iter(inputs.values())))
    found = []
    for column in columns:
        if not column.category:
            continue
        array = (inputs if column.side == "input" else outputs).get(column.tensor)
        if array is None or not array.ndim or len(array) != rows:
            found.append(np.full(rows, ""))
            continue
        flat = array.reshape(rows, -1)
        if column.how == "class":
            found.append(flat.argmax(axis=1).astype(str))
        else:
            index = column.index or 0
            found.append(as_categories(flat[:, index]) if index < flat.shape[1] else np.full(rows, ""))
    return found


def as_categories(values: np.ndarray) -> np.ndarray:
    """Return values as text: whole numbers without a point, at most 64 characters, missing ones empty."""
    if values.dtype.kind in "OU":
        return values.astype(str).astype("U64")
    if values.dtype.kind != "f":
        return values.astype(np.int64).astype(str) if values.dtype.kind in "iu" else values.astype(str)
    return np.array(["" if math.isnan(value) else f"{value:.12g}" for value in values.tolist()], dtype="U64")


@lru_cache(32)
def _groups(
    columns: tuple[Column, ...],
) -> list[tuple[tuple[str, str], list[tuple[How, list[int], list[int]]]]]:
    """Return columns of numbers by tensor and kind, so that each is computed at once."""
    found: dict[tuple[str, str], dict[How, tuple[list[int], list[int]]]] = {}
    for place, column in enumerate(columns):
        if not column.category:
            kinds = found.setdefault((column.side, column.tensor), {})
            where, indices = kinds.setdefault(column.how, ([], []))
            where.append(place)
            indices.append(column.index or 0)
    return [(group, [(how, *lists) for how, lists in kinds.items()]) for group, kinds in found.items()]


def _numbers(how: How, flat: np.ndarray, indices: list[int], group: tuple[str, str]) -> np.ndarray:
    """Return [rows, indices] numbers of a tensor's rows [rows, elements]."""
    rows, width = flat.shape
    if how == "size":
        return np.full((rows, 1), float(width))
    if how == "length":
        return np.array([[len(str(row[index])) for index in indices] for row in flat], dtype=float)
    if how == "value":
        return flat[:, indices].astype(np.float64) if max(indices) < width else np.full((rows, len(indices)), np.nan)
    if not width:
        return np.full((rows, 1), np.nan)
    values = flat.astype(np.float64) if how != "projection" else flat
    if how == "projection":
        places, signs = _projections(f"{group[0]}.{group[1]}", width)
        return np.asarray((values[:, places[indices]] * signs[indices]).sum(axis=2) / math.sqrt(places.shape[1]))
    if how == "norm":
        return np.asarray(np.linalg.norm(values, axis=1, keepdims=True))
    if how == "confidence":
        return _confidence(values)
    return values.mean(axis=1, keepdims=True) if how == "mean" else values.std(axis=1, keepdims=True)


def _confidence(scores: np.ndarray) -> np.ndarray:
    """Return [rows, 1] the largest probability of a row; scores that are none become some by softmax."""
    if ((scores >= 0) & (scores <= 1)).all() and np.allclose(scores.sum(axis=1), 1.0, atol=1e-2):
        return scores.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return np.asarray(1 / np.exp(scores - scores.max(axis=1, keepdims=True)).sum(axis=1, keepdims=True))


@lru_cache(64)
def _projections(group: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return [32, root of the width] elements and their signs, always the same of a tensor's name and width."""
    seed = int.from_bytes(hashlib.sha256(f"{group}:{width}".encode()).digest()[:8], "big")
    generator = np.random.default_rng(seed)
    size = (PROJECTIONS, math.ceil(math.sqrt(width)))
    return generator.integers(0, width, size), generator.choice([-1.0, 1.0], size)
