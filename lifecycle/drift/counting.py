"""Rows of sketches and references, counted into the same cells."""

from __future__ import annotations

import numpy as np

from hone.evidence.shifts import Counted, request_effect
from hone.sketches.reference import Reference
from hone.sketches.window import Window

AT_99 = 2.576
"""Standard deviations at 99 %: KLL tells what it is off by at that confidence."""


def of_reference(reference: Reference) -> Counted:
    return Counted(np.array(reference.counts, float))


def of_window(window: Window, place: int, reference: Reference) -> Counted:
    """Return the rows of a window's column in the cells of a reference."""
    sketch, missing = window.sketches[place], float(window.missing[place])
    present = max(0.0, window.rows - missing)
    total, squares, between = window.sums[place].tolist()
    effect = request_effect(window.rows, window.requests, window.squares, (total, squares, between))
    if window.columns[place].category:
        known = [float(sketch.get_estimate(name)) for name in reference.categories]
        return Counted(np.array([missing, *known, max(0.0, present - sum(known))]), effect)
    if not present or sketch.is_empty():
        return Counted(reference.spread(np.zeros(len(reference.points) + 1), missing), effect)
    below = np.array([0.0, *sketch.get_cdf(reference.points, True)])
    error = sketch.normalized_rank_error(False) / AT_99 if sketch.is_estimation_mode() else 0.0
    return Counted(reference.spread(np.maximum(np.diff(below), 0) * present, missing), effect, error)
