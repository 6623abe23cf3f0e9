"""Any number of rows through a model that takes exactly so many at a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

Run = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def run_in_parts(run: Run, inputs: Mapping[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Run rows in parts; the last part is filled up with its last row, whose extra answers are dropped.

    Args:
        run: takes exactly `rows` rows.
        inputs: arrays whose axis 0 is the batch.
        rows: of a part.
    """
    total = len(next(iter(inputs.values())))
    if total == rows:
        return run(inputs)
    index = np.minimum(np.arange(-(-total // rows) * rows), total - 1).reshape(-1, rows)
    parts = [run({name: np.ascontiguousarray(array[part]) for name, array in inputs.items()}) for part in index]
    return {name: np.concatenate([part[name] for part in parts])[:total] for name in parts[0]}


def rows_at_once(shapes: Mapping[str, Sequence[object]], batched: Collection[str]) -> int | None:
    """Return the rows that a model takes at a time when it is made for so many; None: it takes any number.

    Args:
        shapes: of its inputs by name; a size that is not fixed is no integer.
        batched: names of inputs whose axis 0 is the batch.
    """
    sizes = {shape[0] for name, shape in shapes.items() if name in batched and shape}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) else None
