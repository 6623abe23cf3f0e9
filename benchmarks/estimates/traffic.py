"""Real sets with a model of each, and traffic that is as the proof's rows, shifted, or means something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

ROWS = 1000
"""Of traffic, as many as `hone feedback check` takes."""
MANY = 20_000
"""Of the same traffic, of which labels show what is true."""


@dataclass(frozen=True)
class Set:
    """A real set, parted.

    Attributes:
        name: of the set, and what is predicted.
        model: that was fitted; gives [rows, classes] probabilities.
        proof, labels: its rows with labels.
        rest, answers: rows that traffic is drawn from, with labels.
        shifts: by name, what draws so many rows of traffic, of which some are more or changed.
    """

    name: str
    model: Any
    proof: np.ndarray
    labels: np.ndarray
    rest: np.ndarray
    answers: np.ndarray
    shifts: dict[str, Callable[[np.random.Generator, int], Drawn]]

    def scores(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.predict_proba(rows))


Drawn = tuple[np.ndarray, np.ndarray]
"""Rows and their labels."""


def _parted(name: str, rows: np.ndarray, labels: np.ndarray, part: np.ndarray, words: str, seed: int) -> Set:
    """Return a set whose part may grow; a third each is fitted with, proven with, and asked."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    order = np.random.default_rng(seed).permutation(len(rows))
    fit, proof, rest = np.array_split(order, 3)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(rows[fit], labels[fit])
    rows_of, labels_of, inside = rows[rest], labels[rest], part[rest]

    def drawn(generator: np.random.Generator, count: int, growing: float = 1.0) -> Drawn:
        weights = np.where(inside, growing, 1.0)
        places = generator.choice(len(rows_of), count, p=weights / weights.sum())
        return rows_of[places], labels_of[places]

    def noisy(generator: np.random.Generator, count: int) -> Drawn:
        taken, wanted = drawn(generator, count)
        return taken + generator.normal(0, 0.5, taken.shape) * rows_of.std(axis=0), wanted

    def another_meaning(generator: np.random.Generator, count: int) -> Drawn:
        taken, wanted = drawn(generator, count)
        changed = generator.random(count) < 0.15
        return taken, np.where(changed, (wanted + 1) % (labels.max() + 1), wanted)

    return Set(
        name, model, rows[proof], labels[proof], rows_of, labels_of,
        {
            "as the proof": drawn,
            words: partial(drawn, growing=4.0),
            "noise of half a deviation": noisy,
            "15 % of labels mean something else": another_meaning,
        },
    )  # fmt: skip


def sets(seed: int) -> list[Set]:
    """Return the sets, of which each seed fits and proves other rows; they come with their libraries."""
    from sklearn.datasets import load_digits
    from statsmodels.datasets import fair, randhie

    digits, survey, insured = load_digits(), fair.load_pandas().data, randhie.load_pandas().data
    affair, visited = survey.pop("affairs").to_numpy() > 0, insured.pop("mdvis").to_numpy() > 2
    return [
        _parted("digits", digits.data, digits.target, digits.target >= 5, "four times as many 5 to 9", seed),
        _parted(
            "fair: an affair", survey.to_numpy(float), affair.astype(int), survey["yrs_married"].to_numpy() >= 13,
            "four times as many long marriages", seed,
        ),
        _parted(
            "randhie: over 2 visits", insured.to_numpy(float), visited.astype(int), insured["physlm"].to_numpy() > 0,
            "four times as many people with a limit", seed,
        ),
    ]  # fmt: skip
