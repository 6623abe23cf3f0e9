"""What has been answered of a job: one batch of rows after the other, until they are one answer."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from hone.signature import Tensors
from hone.traffic.answered import MOST_ROWS

from ..http.answers import NUMBER_BYTES, taken_by
from ..http.limits import Limits


class Parts:
    """The answers to batches of a job. Of the model's own tensors, which can be a thousand times larger, it holds what
    feedback needs of a job with few rows.

    Args:
        limits: of one job.
        rows: of the job; None: its model takes no batches, so that there is one part.
        text: the answer is encoded as JSON.
    """

    def __init__(self, limits: Limits, rows: int | None, text: bool) -> None:
        self._limits, self._rows, self._text = limits, rows, text
        self._answers: list[Tensors] = []
        self._noted: list[Tensors] = []
        self._longest: dict[str, tuple[int, ...]] = {}

    def add(self, answer: Tensors, noted: Tensors) -> None:
        """Keep the answer to the next rows.

        Args:
            answer: to them.
            noted: the model's outputs that are kept beside an answer.

        Raises:
            BodyTooLargeError: by what is known of it the whole answer takes more memory than a job may.
        """
        self._answers.append(dict(answer))
        if self._rows is None or self._rows <= MOST_ROWS:
            self._noted.append(noted)
        for name, array in answer.items():
            shape = array.shape[1:]
            self._longest[name] = tuple(map(max, shape, self._longest.get(name, shape)))
        self._limits.check_answer(self._takes(answer))

    def _takes(self, answer: Tensors) -> int:
        """Return the bytes that the answer to all rows takes, as tensors and encoded, if no later ones are longer."""
        if self._rows is None:
            return taken_by(answer, self._text)[1]
        sizes = [(self._rows * prod(self._longest[name]), array.itemsize) for name, array in answer.items()]
        return sum(values * (held + (NUMBER_BYTES if self._text else held)) for values, held in sizes)

    def joined(self) -> Tensors:
        """Return the answer to all rows."""
        return _joined(self._answers)

    def noted(self) -> Tensors:
        """Return what is kept beside it."""
        return _joined(self._noted) if self._noted else {}


def _joined(parts: Sequence[Tensors]) -> Tensors:
    if len(parts) == 1:
        return parts[0]
    return {name: _filled([part[name] for part in parts]) for name in parts[0]}


def _filled(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return arrays one below the other; shorter ones, such as of shorter texts, are filled up with zeros."""
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) == 1:
        return np.concatenate(arrays)
    longest = tuple(map(max, *shapes))
    nothing = "" if arrays[0].dtype == object else 0
    whole = np.full((sum(map(len, arrays)), *longest), nothing, arrays[0].dtype)
    start = 0
    for array in arrays:
        whole[(slice(start, start + len(array)), *map(slice, array.shape[1:]))] = array
        start += len(array)
    return whole
