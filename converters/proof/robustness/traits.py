"""What the rows tell of an input, so that it can be disturbed by a measure of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from hone.signature import TensorSpec

MOST_ROWS = 2000
MOST_BYTES = 64_000_000
"""Of the rows that traits are taken from."""

SPECIAL = 0.9
"""A number that so large a share of the rows has equally often is a mark, as those of a text's start and end are."""

PADDED = 0.1
"""Share of the rows that end, or begin, with the same number twice: it fills them up."""

CHANNELS = (1, 3, 4)
SMALLEST_SIDE = 4


class Traits:
    """What is known of one input.

    Args:
        spec: of the source model's input.
        rows: the evaluation rows, on axis 0.
        masks: other inputs of the same shape that say by 1 and 0 which places count.
    """

    def __init__(self, spec: TensorSpec, rows: np.ndarray, masks: Sequence[np.ndarray] = ()) -> None:
        self.spec = spec
        row_bytes = max(1, rows.nbytes // max(len(rows), 1))
        few = max(1, min(MOST_ROWS, MOST_BYTES // row_bytes))
        self._rows, self._masks = rows[:few], [mask[:few] for mask in masks]

    @property
    def is_float(self) -> bool:
        return self._rows.dtype.kind == "f" and self._rows.ndim > 1

    @property
    def is_text(self) -> bool:
        return self._rows.dtype.kind in "OU"

    @cached_property
    def is_choice(self) -> bool:
        """Whole numbers of which each stands for something, in two axes: ids of tokens or categories, but no marks of
        what counts and what doesn't, and no places that are the same in each row."""
        rows = self._rows
        return rows.dtype.kind in "iu" and rows.ndim == 2 and not _is_mask(rows) and not bool((rows == rows[:1]).all())

    @cached_property
    def is_image(self) -> bool:
        shape = self._rows.shape
        if self._rows.dtype.kind not in "fu" or len(shape) != 4 or not (shape[1] in CHANNELS or shape[3] in CHANNELS):
            return False
        return min(shape[axis] for axis in self.plane) >= SMALLEST_SIDE

    @property
    def plane(self) -> tuple[int, int]:
        """The axes of an image's height and width."""
        return (2, 3) if self._rows.shape[1] in CHANNELS else (1, 2)

    @property
    def side(self) -> int:
        """Pixels of an image's smaller side."""
        return min(self._rows.shape[axis] for axis in self.plane)

    @property
    def _axes(self) -> tuple[int, ...]:
        """The axes that hold values of one kind: rows; of images also places; of series also times."""
        if self.is_image:
            return (0, *self.plane)
        return {2: (0,), 3: (0, 1)}.get(self._rows.ndim, tuple(range(self._rows.ndim)))

    @cached_property
    def _known(self) -> np.ndarray:
        """The values with NaN where there is none; a feature without any is 0."""
        rows = self._rows.astype(np.float64)
        known = np.where(np.isfinite(rows), rows, np.nan)
        return np.where(np.isnan(known).all(axis=self._axes, keepdims=True), 0.0, known)

    @cached_property
    def spread(self) -> np.ndarray:
        """The standard deviation of each feature."""
        return np.asarray(np.nanstd(self._known, axis=self._axes, keepdims=True))

    @cached_property
    def middle(self) -> np.ndarray:
        """The median of each feature."""
        return np.asarray(np.nanmedian(self._known, axis=self._axes, keepdims=True))

    @cached_property
    def low(self) -> np.ndarray:
        return np.asarray(np.nanmin(self._known, axis=self._axes, keepdims=True))

    @cached_property
    def high(self) -> np.ndarray:
        return np.asarray(np.nanmax(self._known, axis=self._axes, keepdims=True))

    def within(self, values: np.ndarray) -> np.ndarray:
        """Return values inside of what the rows have: no negative count, no color beyond white."""
        return np.clip(values, self.low, self.high)

    @property
    def _is_sequence(self) -> bool:
        """One vocabulary for all places, as of tokens; else each column has its own values, as in a table."""
        return isinstance(self.spec.shape[1], str) or bool(self._masks) or self.spec.pad_value is not None

    @cached_property
    def special(self) -> np.ndarray:
        """Numbers of a sequence that stay: what fills rows up, and marks, which nearly every row has as often."""
        rows = self._rows
        if not self._is_sequence:
            return rows[:0, 0]
        found = [] if self.spec.pad_value is None else [np.array([self.spec.pad_value])]
        found += [rows[mask == 0] for mask in self._masks]
        for one, next_to_it in ((-1, -2), (0, 1)):
            if rows.shape[1] > 1:
                twice = rows[rows[:, one] == rows[:, next_to_it], one]
                values, counts = np.unique(twice, return_counts=True)
                found.append(values[counts >= PADDED * len(rows)])
        often = np.concatenate([np.stack(np.unique(row, return_counts=True), axis=1) for row in rows])
        values, counts = np.unique(often, axis=0, return_counts=True)
        found.append(values[counts >= SPECIAL * len(rows), 0])
        return np.unique(np.concatenate(found))

    def others(self, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
        """Return numbers that the rows hold, none of them special; those of a table each from its own column."""
        if self._is_sequence:
            return np.asarray(generator.choice(self._plain(self._rows), shape))
        return np.stack([generator.choice(column, shape[0]) for column in self._rows.T], axis=1)

    def _plain(self, array: np.ndarray) -> np.ndarray:
        plain = array[~np.isin(array, self.special)]
        return plain if plain.size else array.reshape(-1)


def _is_mask(array: np.ndarray) -> bool:
    return bool(np.isin(array, (0, 1)).all())


def masks_of(inputs: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    """Return the inputs that say which places of another count: whole numbers of its shape, 0 and 1, both of them."""
    mine = inputs[name]
    others = [array for other, array in inputs.items() if other != name and array.shape == mine.shape]
    return [array for array in others if array.dtype.kind in "biu" and _is_mask(array) and len(np.unique(array)) == 2]
