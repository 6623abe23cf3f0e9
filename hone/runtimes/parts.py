"""Any number of rows through a model that takes exactly so many at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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
