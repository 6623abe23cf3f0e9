"""Which rows of many are the ones that can't be used: found by halves, because whatever looks at rows looks at many."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from hone.errors import InputError, RecipeError, SignatureError, one_line

from .errors import RowError

Made = TypeVar("Made")

FAULTS = (RecipeError, SignatureError, InputError)
"""What is raised of rows that are wrong; anything else isn't the rows' fault."""


def sift(rows: np.ndarray, attempt: Callable[[np.ndarray], Made]) -> tuple[np.ndarray, Made | None, dict[int, str]]:
    """Return the rows that can be used, what was made of them (None: of none), and why the others can't.

    Args:
        rows: their numbers.
        attempt: makes something of rows; raises one of `FAULTS` when one of them is wrong.
    """
    if not len(rows):
        return rows, None, {}
    bad: dict[int, str] = {}

    def look(part: np.ndarray) -> Made | None:
        try:
            return attempt(part)
        except FAULTS as error:
            if len(part) == 1:
                bad[int(part[0])] = why(error)
                return None
        half = len(part) // 2
        look(part[:half])
        look(part[half:])
        return None

    made = look(rows)
    if not bad and made is None:
        raise RowError("rows fail together, and none of them alone")
    if not bad:
        return rows, made, {}
    good = rows[~np.isin(rows, [*bad])]
    return good, attempt(good) if len(good) else None, bad


def why(error: BaseException) -> str:
    """Return what is wrong with the only row that was looked at: that it is the first of one needn't be said."""
    text = one_line(error).removeprefix(": ")
    for words in (" in 1 rows, first in row 0", ": row 0 has", ": row 0 is", " in row 0"):
        head, found, tail = text.partition(words)
        if found:
            kept = {": row 0 has": " has", ": row 0 is": " is"}.get(words, "")
            text = head + kept + ("" if "first in" in words else tail)
    return text
