"""A file of rows that a recipe is written for: what is in it, whether the model takes it, and who gets which rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from hone.data import DEFAULT_LABELS, fit_inputs
from hone.errors import RecipeError, did_you_mean
from hone.recipe.columns import read_columns
from hone.recipe.fields import ROWS_SUFFIXES
from hone.signature import Signature

from ..proof.verdicts.loss import FEWEST_ROWS

CALIBRATION_SHARE = 0.2
FEWEST_CALIBRATION, MOST_CALIBRATION = 16, 256
"""Fewer show no range; more change none, and evaluation rows prove."""

FEWEST_SPLIT = 40
"""Of fewer rows all judge."""

FEW_CLASSES = 20
"""Whole numbers of more values than these, for one output, are amounts."""


Reads = Literal["", "classes", "values"]


@dataclass(frozen=True)
class RowsFile:
    """Rows, and how a recipe is to use them.

    Attributes:
        path: as the recipe is to name it.
        rows: that judge variants.
        calibration: rows that int8 ranges come from, none of those; 0: the file gives none.
        labels: what the file calls them; None: it has none, or none were asked for.
        reads: what labels are; empty without.
        columns: of a table, those that make up an input.
    """

    path: Path
    rows: int
    calibration: int = 0
    labels: str | None = None
    reads: Reads = ""
    columns: Mapping[str, list[str]] = field(default_factory=dict)
    split: bool = False
    """It is all the rows there are, calibration rows included where there are any."""

    @property
    def share(self) -> float:
        """Of the rows for calibration, in so few digits that a person can read it."""
        return _share(self.calibration, self.calibration + self.rows)


def evaluation_rows(file: Path, named: Path) -> RowsFile:
    """Return a file all of whose rows judge variants; whether the model takes them is seen in the run.

    Raises:
        RecipeError: it is no file of rows, or has too few.
    """
    if file.suffix not in ROWS_SUFFIXES:
        raise RecipeError(
            f"--evaluation: {file}: give an .npz, .csv or .parquet file; a function goes into the recipe by hand"
        )
    columns = read_columns(file, "--evaluation")
    rows = min((len(column) if column.ndim else 0 for column in columns.values()), default=0)
    _check_enough(rows, f"--evaluation: {file}")
    return RowsFile(named, rows)


def split_rows(
    file: Path, named: Path, signature: Signature, labels: str | None, *, calibrates: bool, outputs: int = 0
) -> RowsFile:
    """Return a file whose rows are both kinds: some for calibration, where the model has use for them, the rest judge.

    Args:
        file: the rows.
        named: the same, as the recipe is to name it.
        signature: the model's inputs, which the rows must fit.
        labels: array or column of the labels; None: there are none.
        calibrates: something may be learned from calibration rows.
        outputs: values of a row of the model's first output, where that is known.

    Raises:
        RecipeError: it can't be read, has too few rows, or not what the model takes; with what it has.
    """
    where = f"--data: {file}"
    arrays = read_columns(file, "--data")
    if not arrays:
        raise RecipeError(f"{where}: holds no arrays; the model takes {_described(signature)}")
    if labels is not None and labels not in arrays:
        raise RecipeError(f"--labels: {file} has no '{labels}'{did_you_mean(labels, arrays)}; it has {_names(arrays)}")
    # An array of this name is never an input; it is judged by only where it was asked for.
    known = labels or DEFAULT_LABELS
    truth = arrays.pop(known, None)
    columns = {} if file.suffix == ".npz" else _columns(arrays, signature, where)
    for name, parts in columns.items():
        arrays[name] = np.column_stack([arrays[part] for part in parts])
    for spec in signature.inputs:
        if spec.name not in arrays:
            raise RecipeError(f"{where}: has {_shapes(arrays)}; the model takes {_described(signature)}")
    inputs = fit_inputs(arrays, signature, where)
    counts = {**{name: len(array) for name, array in inputs.items()}, **({} if truth is None else {known: len(truth)})}
    if len(set(counts.values())) > 1:
        raise RecipeError(f"{where}: rows differ: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    rows = min(counts.values())
    _check_enough(rows, where)
    calibration = 0
    if calibrates and rows >= FEWEST_SPLIT:
        wanted = min(MOST_CALIBRATION, max(FEWEST_CALIBRATION, round(CALIBRATION_SHARE * rows)))
        calibration = round(_share(wanted, rows) * rows)
    reads: Reads = "" if labels is None or truth is None else _reads(truth, outputs)
    return RowsFile(named, rows - calibration, calibration, labels, reads, columns, split=True)


def _share(part: int, whole: int) -> float:
    return round(part / whole, 6)


def _check_enough(rows: int, where: str) -> None:
    if rows < FEWEST_ROWS:
        raise RecipeError(f"{where}: {rows} row(s) are too few to tell anything; give {FEWEST_ROWS} or more")


def _columns(arrays: Mapping[str, np.ndarray], signature: Signature, where: str) -> dict[str, list[str]]:
    """Return which columns of a table make up the model's one input, where it takes a row whole.

    Raises:
        RecipeError: they are more or fewer than that input has.
    """
    (spec, *others) = signature.inputs
    if others or len(spec.shape) != 2 or spec.name in arrays or spec.shape[1] == 1:
        return {}
    numbers = [name for name, array in arrays.items() if array.ndim == 1 and array.dtype.kind in "iufb"]
    if isinstance(spec.shape[1], int) and len(numbers) != spec.shape[1]:
        raise RecipeError(
            f"{where}: has {len(numbers)} columns of numbers beside labels ({', '.join(numbers[:8])}"
            f"{', …' if len(numbers) > 8 else ''}); the model takes {_described(signature)}"
        )
    return {spec.name: numbers}


def _reads(labels: np.ndarray, outputs: int) -> Reads:
    """Tell classes from amounts by the labels, and by how many values the model gives a row."""
    if labels.dtype.kind == "f" and not np.array_equal(labels, np.round(labels)):
        return "values"
    many = labels.dtype.kind in "iuf" and len(np.unique(labels)) > FEW_CLASSES
    return "values" if outputs == 1 and many else "classes"


def _described(signature: Signature) -> str:
    return ", ".join(f"{spec.name} {spec.describe()}" for spec in signature.inputs)


def _names(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(arrays) or "nothing else"


def _shapes(arrays: Mapping[str, np.ndarray]) -> str:
    """Return what a file holds as it is told: `x float32[100, 4], y int64[100]`."""
    told = [f"{name} {array.dtype}{list(array.shape)}" for name, array in list(arrays.items())[:8]]
    return ", ".join(told + (["…"] if len(arrays) > 8 else [])) or "labels alone"
