"""What the rows of a proof looked like, column by column: what traffic is compared with. It holds no row.

These are the evaluation rows, which the proof is of. Where there are calibration rows, they are counted into the same
cells beside them, and never with them: they are of another set, often of what the model was trained with.

It is a file of the artifact. Where rows must not leave the data (`keep_rows: false`) its numbers are rounded to three
digits, extremes are left out, and so are categories of few rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hone.artifact import Artifact
from hone.errors import ArtifactError, first_problem
from hone.signature import Signature

from .columns import CATEGORIES, Column, columns_of, taken, texts
from .sets import of_categories, of_numbers

FILE = "drift-reference.json"
MOST_BYTES = 4_000_000
TENTHS = 10
QUANTILES = 101
FEWEST_ROWS = 20
"""Rows under which a reference says nothing."""
FEWEST_OF_A_CATEGORY = 10
"""Rows of a category that is named where rows must not leave the data."""
CUT = 0.01
"""Share of rows at each end whose values are left out there."""


class Reference(BaseModel):
    """One column: rows in cells that don't overlap.

    The cells of numbers are: missing, below `low`, up to each of `edges` and above the last, above `high`. Those of
    categories: missing, each of `categories`, all others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    column: Column
    counts: tuple[int, ...] = Field(min_length=2, max_length=CATEGORIES + 2)
    low: float = Field(0.0, allow_inf_nan=False)
    high: float = Field(0.0, allow_inf_nan=False)
    edges: tuple[float, ...] = Field((), max_length=TENTHS)
    quantiles: tuple[float, ...] = Field((), description="At 0 %, 1 %, ... 100 %; none where all are missing.")
    categories: tuple[str, ...] = Field((), max_length=CATEGORIES)
    calibration: tuple[int, ...] = Field((), description="Calibration rows in the same cells; none of an output.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        cells = len(self.categories) + 2 if self.column.category else len(self.edges) + 4
        if len(self.counts) != cells or min(self.counts) < 0:
            raise ValueError(f"{len(self.counts)} counts for {cells} cells")
        if self.calibration and (len(self.calibration) != cells or min(self.calibration) < 0):
            raise ValueError(f"{len(self.calibration)} counts of calibration rows for {cells} cells")
        if list(self.edges) != sorted(set(self.edges)) or not all(map(math.isfinite, (*self.edges, *self.quantiles))):
            raise ValueError("edges must be finite and rise")
        if len(self.quantiles) not in (0, QUANTILES):
            raise ValueError(f"{len(self.quantiles)} quantiles instead of {QUANTILES}")
        return self

    @property
    def points(self) -> list[float]:
        """Values between the cells of numbers; the cell of a value is the number of points below it."""
        return [math.nextafter(self.low, -math.inf), *self.edges, *([self.high] if self._above_edges else [])]

    @property
    def _above_edges(self) -> bool:
        return not self.edges or self.high > self.edges[-1]

    def sets(self) -> tuple[np.ndarray, list[str]]:
        """Return [sets, cells] which cells each set of rows has, and what the rows of each are."""
        if self.column.category:
            return of_categories(self.categories, self.counts)
        return of_numbers(self.edges, self.low, self.high, self.counts)

    def count(self, numbers: np.ndarray, categories: np.ndarray) -> np.ndarray:
        """Return [cells] rows: of numbers, or of text where the column is of categories."""
        if self.column.category:
            known = {name: index + 1 for index, name in enumerate(self.categories)} | {"": 0}
            places = [known.get(str(one), len(self.counts) - 1) for one in categories.tolist()]
            return np.bincount(places, minlength=len(self.counts)).astype(float)
        present = numbers[~np.isnan(numbers)]
        below = np.array([0, *(np.searchsorted(np.sort(present), self.points, "right")), len(present)])
        return self.spread(np.diff(below).astype(float), len(numbers) - len(present))

    def spread(self, between: np.ndarray, missing: float) -> np.ndarray:
        """Return [cells] rows from those between the points."""
        if not self._above_edges:  # the last tenth ends at the largest value: nothing lies between the two
            between = np.insert(between, len(between) - 1, 0.0)
        return np.concatenate([[missing], between])


class References(BaseModel):
    """The content of `drift-reference.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    rows: int = Field(ge=0)
    calibration_rows: int = Field(0, ge=0, description="That are counted beside those; artifacts of before have none.")
    private: bool = Field(False, description="Rounded, without extremes and rare categories.")
    columns: tuple[Reference, ...] = Field(max_length=256)

    @property
    def names(self) -> list[Column]:
        return [one.column for one in self.columns]


def make_references(
    signature: Signature, inputs: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray], *, private: bool
) -> References | None:
    """Return what rows look like; None where they are too few to say.

    Args:
        signature: of the model.
        inputs, outputs: the rows, as the model takes and gives them; outputs may be missing.
        private: rows must not leave the data.
    """
    rows = min((len(array) for array in inputs.values()), default=0)
    if rows < FEWEST_ROWS:
        return None
    columns = columns_of(signature, inputs, outputs)
    numbers, words = taken(columns, inputs, outputs), iter(texts(columns, inputs, outputs))
    found = [
        _of_categories(column, next(words), private) if column.category else _of_numbers(column, values, private)
        for column, values in zip(columns, numbers.T, strict=True)
    ]
    return References(rows=rows, private=private, columns=tuple(found))


def with_calibration(references: References, inputs: Mapping[str, np.ndarray]) -> References:
    """Return references that hold calibration rows beside the evaluation rows, counted into the same cells.

    Args:
        inputs: the calibration rows, as the model takes them.
    """
    rows = min((len(array) for array in inputs.values()), default=0)
    if not rows:
        return references
    numbers, words = taken(references.names, inputs, {}), iter(texts(references.names, inputs, {}))
    found = []
    for one, values in zip(references.columns, numbers.T, strict=True):
        categories = next(words) if one.column.category else np.array([])
        counts = one.count(values, categories) if one.column.side == "input" else ()
        found.append(one.model_copy(update={"calibration": tuple(int(count) for count in counts)}))
    return references.model_copy(update={"calibration_rows": rows, "columns": tuple(found)})


def _of_numbers(column: Column, values: np.ndarray, private: bool) -> Reference:
    known = np.sort(values[np.isfinite(values)])
    if not known.size:
        return Reference(column=column, counts=(len(values), 0, 0, 0))
    levels = np.linspace(CUT if private else 0, 1 - CUT if private else 1, QUANTILES)
    quantiles = np.quantile(known, levels, method="nearest")
    if private:
        quantiles = np.array([float(f"{value:.3g}") for value in quantiles.tolist()])
    tenths = np.quantile(known, np.arange(1, TENTHS) / TENTHS, method="nearest")
    if private:
        tenths = np.array([float(f"{value:.3g}") for value in tenths.tolist()])
    edges = [float(edge) for edge in np.unique(tenths)]
    low, high = min(float(quantiles[0]), edges[0]), max(float(quantiles[-1]), edges[-1])
    shape = Reference(
        column=column,
        counts=(0,) * (len(edges) + 4),
        low=low,
        high=high,
        edges=tuple(edges),
        quantiles=tuple(quantiles.tolist()),
    )
    counts = shape.count(values, np.array([]))
    return shape.model_copy(update={"counts": tuple(int(count) for count in counts)})


def _of_categories(column: Column, values: np.ndarray, private: bool) -> Reference:
    names, counts = np.unique(values[values != ""], return_counts=True)
    order = np.argsort(-counts, kind="stable")[:CATEGORIES]
    fewest = FEWEST_OF_A_CATEGORY if private else 1
    kept = [(str(names[place]), int(counts[place])) for place in order if counts[place] >= fewest]
    missing = int((values == "").sum())
    rest = len(values) - missing - sum(count for _, count in kept)
    return Reference(
        column=column,
        counts=(missing, *(count for _, count in kept), rest),
        categories=tuple(name for name, _ in kept),
    )


def read_references(artifact: Artifact) -> References | None:
    """Return what an artifact's file says; None when it has none: it is older, or its rows were too few.

    Raises:
        ArtifactError: the file can't be read, or is of another version.
    """
    if artifact.manifest.drift is None:
        return None
    return parse_references(artifact.path / artifact.manifest.drift)


def parse_references(file: Path) -> References:
    """Return what a file says.

    Raises:
        ArtifactError: it can't be read, or is of another version.
    """
    try:
        if file.stat().st_size > MOST_BYTES:
            raise ArtifactError(f"{file}: over {MOST_BYTES / 1e6:.0f} MB; no reference is as large")
        return References.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise ArtifactError(f"{file}: {first_problem(error, 'content')}") from None
    except OSError as error:
        raise ArtifactError(f"{file}: cannot be read: {error.strerror or error}") from None
