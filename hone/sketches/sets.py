"""The sets of rows that a column's change is looked for in: fixed by the reference alone, before any traffic is seen.

More sets see more kinds of change, and each takes some of the others' power, for they share the doubt. So numbers have
those up to each tenth, a few between two, and single cells where one value holds much; categories have each one, and
several together: all ways of parting a few, those up to a tenth of the rows of many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

FEW = 5
"""Categories of which all sets are looked at: then the largest change is the total variation."""
HEAVY = 0.15
"""Share of the reference's rows in a tenth from which it is looked at alone: a value that repeats made it so large."""

Sets = tuple[np.ndarray, list[str]]


def of_categories(names: Sequence[str], counts: Sequence[int]) -> Sets:
    """Return [sets, cells] which cells each set has, and what its rows are.

    Args:
        names: of the categories, the most frequent first.
        counts: [names + 2] rows in the reference: missing, each category, all others.
    """
    cells = len(names) + 2
    rows = [*np.eye(cells)]
    words = ["missing", *(f"in '{name}'" for name in names), "in another category"]
    for places, told in _together(names, counts):
        rows.append(np.isin(np.arange(cells), [place + 1 for place in places]).astype(float))
        words.append(told)
    return np.array(rows), words


def _together(names: Sequence[str], counts: Sequence[int]) -> Iterator[tuple[tuple[int, ...], str]]:
    """Yield categories that are looked at as one, two or more beside two or more others, and their name together."""
    if len(names) <= FEW:
        for size in range(2, len(names) // 2 + 1):
            for places in combinations(range(len(names)), size):
                if 2 * size < len(names) or 0 in places:  # of two halves one is enough
                    yield places, f"in one of {', '.join(map(repr, map(names.__getitem__, places)))}"
        return
    order, numbers = _in_order(names)
    shares = np.cumsum([counts[place + 1] for place in order]) / max(1, sum(counts[1:-1]))
    for end in sorted({int(np.argmin(np.abs(shares - tenth / 10))) for tenth in range(1, 10)}):
        if 1 <= end < len(names) - 2:
            told = f"in '{names[order[0]]}' to '{names[order[end]]}'" if numbers else f"in the {end + 1} most frequent"
            yield tuple(order[: end + 1]), told


def _in_order(names: Sequence[str]) -> tuple[list[int], bool]:
    """Return the places of categories, and whether they are numbers: those by their size, others by frequency."""
    try:
        return sorted(range(len(names)), key=lambda place: float(names[place])), True
    except ValueError:
        return list(range(len(names))), False


def of_numbers(edges: Sequence[float], low: float, high: float, counts: Sequence[int]) -> Sets:
    """Return [sets, cells] which cells each set has, and what its rows are.

    Args:
        edges: upper ends of the tenths but the last.
        low, high: the least and the largest value.
        counts: [edges + 4] rows in the reference: missing, below, up to each edge, above the last, above `high`.
    """
    cells, total = len(counts), max(1, sum(counts))
    rows, words = [np.eye(cells)[0]], ["missing"]
    for last in range(2, cells - 2):
        rows.append(np.array([0 < cell <= last for cell in range(cells)], float))
        words.append(f"up to {edges[last - 2]:.4g}")
    half = (len(edges) - 1) // 2
    middles = [(index + 3, len(edges) + 1 - index) for index in range(0, half, 2)]
    heavy = [(cell, cell) for cell in range(3, cells - 2) if counts[cell] >= HEAVY * total]
    for first, last in [*middles, *(one for one in heavy if one not in middles)]:
        rows.append(np.array([first <= cell <= last for cell in range(cells)], float))
        words.append(f"over {edges[first - 3]:.4g}, up to {edges[last - 2]:.4g}")
    rows += [np.eye(cells)[1], np.eye(cells)[-1]]
    words += [f"below {low:.4g}", f"above {high:.4g}"]
    return np.array(rows), words
