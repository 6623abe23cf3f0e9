"""Where a series settles: what comes before it is the warm-up, and says nothing of how a service runs."""

from __future__ import annotations

import numpy as np

BATCH = 5


def warm_up(values: np.ndarray) -> int:
    """Return how many values to leave out at the start, at most half of them: MSER-5.

    The rest is that whose mean has the smallest standard error, in batches of five (White, Cobb and Spratt, A
    comparison of five steady-state truncation heuristics for simulation, Winter Simulation Conference 2000). Half of
    the values means that the series didn't settle.

    Args:
        values: in the order of time.
    """
    count = len(values) // BATCH
    if count < 4:
        return 0
    means = values[: count * BATCH].reshape(count, BATCH).mean(axis=1)
    means = means - means.mean()
    left = np.arange(count, 0, -1)
    sums, squares = (np.cumsum(column[::-1])[::-1] / left for column in (means, means**2))
    errors = (squares - sums**2) / left
    return int(np.argmin(errors[: count // 2 + 1])) * BATCH
