"""Which columns of a table are which inputs of a model, and what rows are kept by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hone.data import fit_inputs
from hone.errors import InputError, did_you_mean
from hone.signature import Signature, Tensors
from hone.steps.base import ColumnSpec
from hone.steps.offered import Offered

from .columns import array_of
from .errors import ScoreError


@dataclass(frozen=True)
class Mapped:
    """Where a model's inputs are in a table.

    Attributes:
        signature: of the inputs: its callers', or the model's own.
        columns: of each input, one that has its name, or numbers side by side.
        keep: columns that go through to the answers.
    """

    signature: Signature
    columns: Mapping[str, tuple[str, ...]]
    keep: tuple[str, ...] = ()

    @property
    def needed(self) -> list[str]:
        """All columns that are read."""
        return list(dict.fromkeys([*(name for names in self.columns.values() for name in names), *self.keep]))

    def inputs(self, table: Any, where: str) -> tuple[Tensors, np.ndarray | None]:
        """Return the inputs in a table's rows, and their lengths where rows differ in length.

        Raises:
            HoneError: a row has what the input can't be made of.
        """
        arrays, counts = {}, None
        for spec in self.signature.inputs:
            names = self.columns[spec.name]
            if len(names) == 1:
                arrays[spec.name], lengths = array_of(table.column(names[0]), spec)
                if counts is not None and lengths is not None and (counts != lengths).any():
                    raise InputError(f"'{spec.name}' and an input before it differ in length")
                counts = lengths if counts is None else counts
            else:
                arrays[spec.name] = np.column_stack([_one(table, name, spec) for name in names])
        return fit_inputs(arrays, self.signature, where), counts


def _one(table: Any, name: str, spec: Any) -> np.ndarray:
    """Return a column that is one of an input's."""
    one = ColumnSpec(name=name, dtype=spec.dtype, shape=("batch",), allow_nan=spec.allow_nan)
    array, _ = array_of(table.column(name), one)
    return array.reshape(-1)


def mapped(
    offered: Signature, names: Sequence[str], keep: Sequence[str], given: Mapping[str, Sequence[str]], where: str
) -> Mapped:
    """Return where a model's inputs are in a table.

    What callers give is looked for first, then the model's own tensors. A model with one input of two axes also takes
    all columns that aren't kept, in their order.

    Args:
        offered: what callers give.
        names: of the table's columns.
        keep: of those that go through.
        given: the columns of inputs, where their names don't say it.
        where: the table is from, for messages.

    Raises:
        ScoreError: an input is nowhere, or a column that is asked for isn't there.
    """
    for name in [*keep, *(name for of in given.values() for name in of)]:
        if name not in names:
            raise ScoreError(f"{where}: there is no column '{name}'{did_you_mean(name, names)}")
    if clash := [name for name in keep if name in offered.output_names]:
        raise ScoreError(f"{where}: '{clash[0]}' can't be kept: it is the name of an output, too")
    both = [offered, offered.model] if isinstance(offered, Offered) else [offered]
    known = {name for signature in both for name in signature.input_names}
    if unknown := [name for name in given if name not in known]:
        raise ScoreError(f"there is no input '{unknown[0]}'{did_you_mean(unknown[0], known)}")
    for spec in (spec for signature in both for spec in signature.inputs if spec.name in given):
        width, said = spec.shape[1] if len(spec.shape) == 2 else 1, len(given[spec.name])
        if said > 1 and isinstance(width, int) and width != said:
            raise ScoreError(f"--columns {spec.name}: {said} columns, but '{spec.name}' is {spec.describe()}")
    for signature in both:
        found = {
            spec.name: tuple(given.get(spec.name, (spec.name,)))
            for spec in signature.inputs
            if spec.name in given or spec.name in names
        }
        if len(found) == len(signature.inputs):
            return Mapped(signature, found, tuple(keep))
    for signature in both:
        rest = [name for name in names if name not in keep]
        if side_by_side := _all_columns(signature, rest, where):
            return Mapped(signature, side_by_side, tuple(keep))
    missing = next(spec for spec in offered.inputs if spec.name not in names and spec.name not in given)
    raise ScoreError(
        f"{where}: no column for the input '{missing.name}', which is {missing.describe()}"
        f"{did_you_mean(missing.name, names)}; --columns {missing.name}=COLUMN,… says which"
    )


def _all_columns(signature: Signature, names: Sequence[str], where: str) -> dict[str, tuple[str, ...]]:
    """Return all columns as those of a model's one input; nothing where they can't be."""
    only, *others = signature.inputs
    if others or not names or (len(names) > 1 and len(only.shape) != 2):
        return {}
    width = only.shape[1] if len(only.shape) == 2 else 1
    if len(names) > 1 and isinstance(width, int) and width != len(names):
        raise ScoreError(
            f"{where}: {len(names)} columns beside what is kept, but '{only.name}' is {only.describe()}; "
            f"say which: --columns {only.name}={','.join(names[:2])},…"
        )
    return {only.name: tuple(names)}
