"""Sets of categories as nodes of ONNX's trees.

TreeEnsembleRegressor knows no sets, so a set becomes nodes `feature == category`, one for each category, all with the
same child, which ONNX Runtime allows where a node's answer is yes. They form chains of at most CHAIN, and comparisons
above them find a row's chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hone.errors import PassError

CHAIN = 32
"""Most nodes in a row for one set: each costs time, and ONNX Runtime crashes when it loads a chain of thousands."""
LARGEST_CATEGORY = 2**24
"""Below it float32, which the trees compare in, tells all whole numbers apart."""
NODE_KEYS = (
    "treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids", "missing_value_tracks_true",
)  # fmt: skip
Row = tuple[int, int, str, float, int, int, int]
"""A node, as NODE_KEYS has it but for the number of its tree."""


def checked_set(categories: Iterable[int | str], number: int) -> list[int]:
    """Return the categories of a split, in order.

    Raises:
        PassError: one is too large for float32; names the tree.
    """
    found = sorted(int(category) for category in categories)
    if found[-1] >= LARGEST_CATEGORY:
        raise PassError(
            f"export: tree {number} splits on category {found[-1]}, and float32 tells whole numbers apart "
            f"below {LARGEST_CATEGORY} only; number the categories from 0"
        )
    return found


@dataclass(frozen=True)
class SetSplit:
    """Where a categorical node sends a row: members of its set right, others left."""

    column: int
    left: int
    right: int
    missing_left: bool


def set_rows(node: int, members: list[int], split: SetSplit, numbers: Iterator[int]) -> list[Row]:
    """Return the nodes that stand for one categorical node.

    Args:
        node: its number, which the first of them takes.
        members: its set, in order.
        split: where it sends rows.
        numbers: gives the other nodes theirs.
    """
    if len(members) <= CHAIN:
        return _chain(node, members, split, split.left, numbers)
    return _search(node, members, split, numbers)


def _search(node: int, members: list[int], split: SetSplit, numbers: Iterator[int]) -> list[Row]:
    """Return comparisons that halve a large set down to chains.

    ONNX Runtime shares a child only between nodes whose answer is yes. So each chain ends with a node that always says
    yes, as no category is 0.5, and leads left; its other child is a leaf that no row reaches.
    """
    if len(members) <= CHAIN:
        last, unreached = next(numbers), next(numbers)
        return [
            *_chain(node, members, split, last, numbers),
            (last, split.column, "BRANCH_NEQ", 0.5, split.left, unreached, int(split.missing_left)),
            (unreached, 0, "LEAF", 0.0, 0, 0, 0),
        ]
    half = len(members) // 2
    lower, upper = next(numbers), next(numbers)
    return [
        (node, split.column, "BRANCH_LEQ", float(members[half - 1]), lower, upper, 0),
        *_search(lower, members[:half], split, numbers),
        *_search(upper, members[half:], split, numbers),
    ]


def _chain(node: int, members: list[int], split: SetSplit, otherwise: int, numbers: Iterator[int]) -> list[Row]:
    """Return one node for each member, which leads right or to the next, and the last of them to `otherwise`."""
    ids = [node, *(next(numbers) for _ in members[1:])]
    return [
        (own, split.column, "BRANCH_EQ", float(member), split.right, following, int(not split.missing_left))
        for own, member, following in zip(ids, members, [*ids[1:], otherwise], strict=True)
    ]
