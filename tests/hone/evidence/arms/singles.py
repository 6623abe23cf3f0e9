"""Units that have one figure each, of which only sums are drawn."""

from __future__ import annotations

from typing import Any

from hone.evidence.arms.means import Sums


def singles(units: Any, totals: Any, squares: Any) -> Sums:
    """Return the sums of so many units, of their figures and of these squared; numbers, or arrays of one shape."""
    return Sums(units, units, totals, squares, totals, units)
