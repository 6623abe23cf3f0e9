"""Rows for a search and rows for the proof: what was chosen by some rows is proven on others.

A search tries many chains and keeps what looked best; on the rows that it looked at, the best is partly luck.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hone.data import read_dataset, save_dataset
from hone.errors import RecipeError

from ..proof.judge import at
from ..proof.subject import Subject
from ..proof.verdicts.loss import FEWEST_ROWS
from .prepare import Prepared

SHARE = 1 / 3
"""Of the evaluation rows go to the search; a proof needs more than a choice does."""

SEED = 0


@dataclass(frozen=True)
class Half:
    """Some of the evaluation rows, and the source's answers to them."""

    prepared: Prepared
    source: Subject
    rows: int


def split(prepared: Prepared, source: Subject, where: str) -> tuple[Half, Half]:
    """Return the rows for the search and those for the proof, the same ones each time.

    Args:
        prepared: of the run; the halves' rows are written beside its own.
        source: that has answered all rows.
        where: the recipe's file, for messages.

    Raises:
        RecipeError: either would have too few.
    """
    dataset = read_dataset(prepared.evaluation)
    order = np.random.default_rng(SEED).permutation(dataset.rows)
    searched = round(SHARE * dataset.rows)
    if searched < FEWEST_ROWS:
        raise RecipeError(
            f"{where}: evaluation: {dataset.rows} rows are too few for --search, which chooses by a third of them and "
            f"proves on the others; give {int(FEWEST_ROWS / SHARE)} or more"
        )

    def half(name: str, rows: np.ndarray) -> Half:
        file = prepared.evaluation.with_name(f"{prepared.evaluation.stem}-{name}.npz")
        save_dataset(dataset.of(rows), file)
        mine = replace(prepared, rows=replace(prepared.rows, evaluation=Path(file)))
        return Half(mine, source.answering(at(source.outputs, rows)), len(rows))

    return half("search", np.sort(order[:searched])), half("proof", np.sort(order[searched:]))
