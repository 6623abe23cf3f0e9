"""Named columns to tensors: scaling, categories, and columns side by side."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from hone.errors import InputError, shorten
from hone.signature import BATCH
from hone.steps.base import Columns, ColumnSpec, Run, Specs, Step, StepError, located, number_dtype, read_names


class Scale(Step):
    """Columns minus their mean, over their deviation."""

    input: str = Field(description="What callers, or a step before, name the columns: [batch, n].")
    output: str = Field("", description="The scaled ones; default: the same name.")
    mean: tuple[float, ...] = Field(min_length=1, description="One number a column.")
    std: tuple[float, ...] = Field(min_length=1, description="One number a column.")

    @model_validator(mode="after")
    def _possible(self) -> Scale:
        if len(self.mean) != len(self.std):
            raise ValueError(f"mean has {len(self.mean)} numbers, std {len(self.std)}")
        if not all(self.std):
            raise ValueError("std must not be 0")
        return self

    def takes(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        there = known.get(self.input)
        if there is not None:
            if there.numpy_dtype.kind not in "fiu" or there.shape not in ((BATCH, len(self.mean)), self._shape):
                raise StepError(f"'{self.input}' is {there.describe()}, expected numbers of {len(self.mean)} columns")
            return [there]
        return [self._column(self.input, wanted)]

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        shape = known[self.input].shape
        return [self._column(self.output or self.input, wanted).model_copy(update={"shape": shape})]

    @property
    def _shape(self) -> tuple[int | str, ...]:
        return (BATCH,) if len(self.mean) == 1 else (BATCH, len(self.mean))

    def _column(self, name: str, wanted: Specs) -> ColumnSpec:
        target = wanted.get(self.output or self.input)
        one = target is not None and target.shape == (BATCH, 1)
        return ColumnSpec(
            name=name,
            dtype=number_dtype(wanted, self.output or self.input, "f", "float32"),
            shape=(BATCH, 1) if one else self._shape,
            allow_nan=target is not None and target.allow_nan,
        )

    def bind(self, folder: Path, known: Specs) -> Run:
        mean, std = np.asarray(self.mean), np.asarray(self.std)
        dtype = known[self.output or self.input].numpy_dtype

        def run(columns: Columns) -> Columns:
            return {self.output or self.input: ((columns[self.input] - mean) / std).astype(dtype)}

        return run


class Categories(Step):
    """Names to their places in a list."""

    file_fields: ClassVar[tuple[str, ...]] = ("file",)

    input: str = Field(description="What callers name the column.")
    output: str = Field("", description="The places; default: the same name.")
    values: tuple[str, ...] = Field((), description="The names, in the order of their places.")
    file: str = Field("", description="Or a file of them: a JSON list, or one a line.")
    unknown: Literal["refuse"] | int = Field("refuse", description="Refuse other names, or the place that they get.")

    @model_validator(mode="after")
    def _one_list(self) -> Categories:
        if bool(self.values) == bool(self.file):
            raise ValueError("give either 'values' or 'file'")
        if len(set(self.values)) != len(self.values):
            raise ValueError("a name is in 'values' twice")
        return self

    def takes(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        sample = self.values[0] if self.values else None
        return [ColumnSpec(name=self.input, dtype="string", shape=(BATCH,), sample=sample)]

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        name = self.output or self.input
        target = wanted.get(name)
        shape = target.shape if target is not None and target.shape == (BATCH, 1) else (BATCH,)
        return [ColumnSpec(name=name, dtype=number_dtype(wanted, name, "fiu", "int64"), shape=shape)]

    def bind(self, folder: Path, known: Specs) -> Run:
        names = self.values or tuple(read_names(located(folder, self.file)))
        places = {name: place for place, name in enumerate(names)}
        name, spec = self.output or self.input, known[self.output or self.input]
        otherwise = None if self.unknown == "refuse" else self.unknown

        def run(columns: Columns) -> Columns:
            given = columns[self.input]
            found = [places.get(value, otherwise) for value in given.tolist()]
            if None in found:
                row = found.index(None)
                raise InputError(
                    f"input '{self.input}': row {row} has '{shorten(str(given[row]))}', which is none of the "
                    f"{len(places)} known names"
                )
            return {name: np.array(found, spec.numpy_dtype).reshape(-1, *spec.shape[1:])}

        return run


class Records(Step):
    """Columns of one number a row, side by side in one tensor."""

    columns: tuple[str, ...] = Field(min_length=1, description="Their names, in the tensor's order.")
    output: str = Field(description="The model's input: [batch, n].")
    allow_nan: bool = Field(False, description="Accept null: the model takes missing values.")

    @model_validator(mode="after")
    def _names_differ(self) -> Records:
        if len(set(self.columns)) != len(self.columns):
            raise ValueError("a column is named twice")
        return self

    def takes(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        dtype = number_dtype(wanted, self.output, "fiu", "float32")
        found = []
        for name in self.columns:
            there = known.get(name)
            if there is not None and (
                there.numpy_dtype.kind not in "fiub" or there.shape not in ((BATCH,), (BATCH, 1))
            ):
                raise StepError(f"'{name}' is {there.describe()}, expected one number a row")
            found.append(there or ColumnSpec(name=name, dtype=dtype, shape=(BATCH,), allow_nan=self.allow_nan))
        return found

    def gives(self, known: Specs, wanted: Specs) -> list[ColumnSpec]:
        dtype = number_dtype(wanted, self.output, "fiu", "float32")
        return [ColumnSpec(name=self.output, dtype=dtype, shape=(BATCH, len(self.columns)))]

    def drops(self) -> tuple[str, ...]:
        return tuple(name for name in self.columns if name != self.output)

    def bind(self, folder: Path, known: Specs) -> Run:
        dtype = known[self.output].numpy_dtype

        def run(columns: Columns) -> Columns:
            side_by_side = [columns[name].reshape(-1).astype(dtype, copy=False) for name in self.columns]
            return {self.output: np.stack(side_by_side, axis=1)}

        return run
