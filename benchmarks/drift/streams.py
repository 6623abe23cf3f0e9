"""Months of traffic made of real sets, and what may happen to it.

A set's rows are all there is: the proof's rows and each hour's are drawn from them with replacement. So while nothing
moves they are truly of one kind, and how far a change moves them is known exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

import numpy as np

RATE = 100
"""Rows an hour."""
REFERENCE = 3000
"""Rows of the proof."""
LEAD = 2000
"""Rows before the first look: as many as the widest window takes."""
TAIL_HOURS = 30
"""That a change is looked for in."""
CHANGE = 0.2
"""Total variation of a column that moves."""
GROWTH = 0.4
"""By which the share of a part of the set grows."""
MOST_CATEGORIES = 32


@dataclass(frozen=True)
class Set:
    """A real set.

    Attributes:
        name: of the set.
        rows: [rows, columns] all of them.
        part: [rows] which belong to a part that may grow.
        about: what the part is.
    """

    name: str
    rows: np.ndarray
    part: np.ndarray
    about: str

    def draw(self, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return [count, columns] rows as they are."""
        return self.rows[generator.integers(0, len(self.rows), count)]


@cache
def sets() -> tuple[Set, ...]:
    """Return the sets, by name; they come with their libraries, nothing is downloaded."""
    from sklearn.datasets import load_breast_cancer
    from statsmodels.datasets import fair, randhie

    tumors, survey, insured = load_breast_cancer(), fair.load_pandas().data, randhie.load_pandas().data
    return (
        Set("breast_cancer", tumors.data.astype(np.float32), tumors.target == 0, "malignant tumors"),
        Set("fair", survey.to_numpy(np.float32), survey["yrs_married"].to_numpy() >= 13, "married 13 years or more"),
        Set("randhie", insured.to_numpy(np.float32), insured["physlm"].to_numpy() > 0, "people with a physical limit"),
    )


@dataclass(frozen=True)
class Change:
    """A column that moves: a value in `leaving` becomes one of `coming`, with a chance. The others stay as they are.

    The total variation is the chance times the share of rows that may leave, for no value is in both.
    """

    column: int
    leaving: np.ndarray
    coming: np.ndarray
    chance: float

    def draw(self, of: Set, generator: np.random.Generator, count: int) -> np.ndarray:
        """Return [count, columns] rows after the change."""
        rows = of.draw(generator, count)
        goes = np.isin(rows[:, self.column], self.leaving) & (generator.random(count) < self.chance)
        rows[goes, self.column] = generator.choice(self.coming, int(goes.sum()))
        return rows


def column_moves(of: Set, generator: np.random.Generator) -> Change | None:
    """Return a fifth of all rows going from a column's upper half to values of its lower one."""
    found = []
    for column, values in enumerate(of.rows.T):
        cuts = np.unique(values)[:-1]
        above = np.array([(values > cut).mean() for cut in cuts])
        place = int(np.argmin(np.abs(above - 0.5))) if len(cuts) else 0
        if len(cuts) and CHANGE <= above[place] <= 1 - CHANGE:
            leaving, coming = np.unique(values[values > cuts[place]]), values[values <= cuts[place]]
            found.append(Change(column, leaving, coming, CHANGE / float(above[place])))
    return found[int(generator.integers(len(found)))]


def category_grows(of: Set, generator: np.random.Generator) -> Change | None:
    """Return a column's second category growing by a fifth of all rows; None: the set has no categories."""
    found = []
    for column, values in enumerate(of.rows.T):
        names, counts = np.unique(values, return_counts=True)
        if 2 <= len(names) <= MOST_CATEGORIES:
            second = names[np.argsort(-counts, kind="stable")[1]]
            leaving = names[names != second]
            found.append(Change(column, leaving, np.array([second]), CHANGE / float((values != second).mean())))
    return found[int(generator.integers(len(found)))] if found else None


def part_grows(of: Set, generator: np.random.Generator, count: int) -> np.ndarray:
    """Return [count, columns] rows of which more are of the set's part, with all that goes with it."""
    share = min(1.0, float(of.part.mean()) + GROWTH)
    members, others = of.rows[of.part], of.rows[~of.part]
    rows = others[generator.integers(0, len(others), count)]
    inside = generator.random(count) < share
    rows[inside] = members[generator.integers(0, len(members), int(inside.sum()))]
    return rows


MOVES: dict[str, Callable[[Set, np.random.Generator], Change | None]] = {
    "column": column_moves,
    "category": category_grows,
}
QUIET, PART = "quiet", "part"


@dataclass(frozen=True)
class Stream:
    """Traffic of a set: a time in which nothing moves, and different ends of it.

    Attributes:
        name: set and seed.
        reference: [REFERENCE, columns] the proof's rows.
        quiet: [rows, columns] while nothing moves.
        ends: [rows, columns] what follows, by what happens then.
    """

    name: str
    reference: np.ndarray
    quiet: np.ndarray
    ends: dict[str, np.ndarray] = field(default_factory=dict)

    def looks(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a part with enough before them, and where in them each hourly look ends."""
        if part == QUIET:
            return self.quiet, np.arange(LEAD, len(self.quiet) + 1, RATE)
        rows = np.concatenate([self.quiet[-LEAD:], self.ends[part]])
        return rows, np.arange(LEAD + RATE, len(rows) + 1, RATE)


def make_stream(of: Set, seed: int, days: int) -> Stream:
    """Return a stream of so many days; the same seed gives the same one."""
    generator, count = np.random.default_rng([seed, len(of.rows)]), TAIL_HOURS * RATE
    reference, quiet = of.draw(generator, REFERENCE), of.draw(generator, days * 24 * RATE)
    ends = {}
    for kind, moves in MOVES.items():
        change = moves(of, generator)
        if change is not None:
            ends[kind] = change.draw(of, generator, count)
    ends[PART] = part_grows(of, generator, count)
    return Stream(f"{of.name}-{seed}", reference, quiet, ends)
