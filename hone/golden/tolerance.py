"""How far answers may be from the proof's: from how far the proof's own repeats are, and never nothing.

Two figures for each output. The largest difference of a value sees what is wrong with one row; the mean over all
values is far steadier, so it can be narrow, and sees what is a little wrong with many.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from hone.golden.record import Tolerance
from hone.golden.rows import span
from hone.signature import Tensors

MARGIN = 3.0
"""Times the largest spread of the repeats: other hosts have other kernels, which round in another order."""

FLOORS = {"float": (1e-3, 2e-4), "half": (2e-2, 4e-3), "integer": (1e-2, 2e-3)}
"""By how values are rounded inside: (largest, mean) as shares of an output's span and of its standard deviation."""

PRECISIONS = {"fp32": "float", "fp64": "float", "fp16": "half", "bf16": "half"}
"""What else an artifact's precision may be is computed with integers, in part."""

FEWEST_EQUAL = 2
"""Rows of another class that are let pass in any case: a class may hang by the last digit of two scores."""

EQUAL_SHARE = 0.05


def rounding(precision: str, on_gpu: bool) -> str:
    """Return the row of FLOORS for an artifact; a GPU multiplies float32 with the digits of a half (TF32)."""
    found = PRECISIONS.get(precision, "integer")
    return "half" if found == "float" and on_gpu else found


def tolerances(
    reference: Tensors, repeats: Sequence[Tensors], rounded: str, classes: Collection[str] = ()
) -> dict[str, Tolerance]:
    """Return the tolerance of each output.

    Args:
        reference: the proof's answers to the golden rows.
        repeats: answers to the same rows of further runs.
        rounded: a key of FLOORS.
        classes: outputs that hold a score for each class, on the last axis.
    """
    found = {}
    for name, array in reference.items():
        others = [repeat[name] for repeat in repeats]
        equal = min((equal_share(array, other) for other in others), default=1.0)
        if array.dtype.kind != "f":
            found[name] = Tolerance(equal=_slack(equal, len(array)))
            continue
        largest, mean = FLOORS[rounded]
        width = span(array) or float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) or 1.0
        deviation = float(np.std(array[np.isfinite(array)].astype(np.float64))) if span(array) else width
        spread = [differences(array, other) for other in others]
        found[name] = Tolerance(
            largest=max(largest * width, *(MARGIN * each for each, _ in spread), np.finfo(np.float32).tiny),
            mean=max(mean * deviation, *(MARGIN * each for _, each in spread), np.finfo(np.float32).tiny),
            equal=_slack(equal, len(array)) if name in classes else None,
        )
    return found


def _slack(equal: float, rows: int) -> float:
    return max(0.05, round(equal - max(EQUAL_SHARE, FEWEST_EQUAL / rows), 6))


def differences(expected: np.ndarray, got: np.ndarray) -> tuple[float, float]:
    """Return the largest and the mean absolute difference; infinite where one is finite and the other isn't."""
    finite = np.isfinite(expected)
    if got.shape != expected.shape or not np.array_equal(finite, np.isfinite(got)):
        return np.inf, np.inf
    if not finite.any():
        return 0.0, 0.0
    gaps = np.abs(expected[finite].astype(np.float64) - got[finite].astype(np.float64))
    return float(gaps.max()), float(gaps.mean())


def equal_share(expected: np.ndarray, got: np.ndarray) -> float:
    """Return the share of equal values; of float scores that of rows with the same largest one."""
    if got.shape != expected.shape:
        return 0.0
    if expected.dtype.kind == "f":
        return float((expected.argmax(-1) == got.argmax(-1)).mean()) if expected.ndim > 1 else 1.0
    return float((expected == got).mean()) if expected.size else 1.0


def gaps(expected: Tensors, got: Tensors, allowed: Mapping[str, Tolerance]) -> dict[str, str]:
    """Return what is wrong with answers, by output, in words that follow its name.

    Args:
        expected: the proof's answers.
        got: a host's answers to the same rows.
        allowed: the tolerance of each output.
    """
    found = {}
    for name, tolerance in allowed.items():
        problem = _gap(expected[name], got.get(name), tolerance)
        if problem:
            found[name] = problem
    return found


def _gap(expected: np.ndarray, got: np.ndarray | None, tolerance: Tolerance) -> str:
    if got is None:
        return "is missing"
    if got.shape != expected.shape:
        return f"has shape {list(got.shape)} instead of {list(expected.shape)}"
    if (got.dtype.kind in "fiub") != (expected.dtype.kind in "fiub"):
        return f"is {got.dtype} instead of {expected.dtype}"
    if tolerance.largest is not None and tolerance.mean is not None:
        largest, mean = differences(expected, got)
        if not largest <= tolerance.largest:
            return f"is off by up to {largest:.3g}, tolerance {tolerance.largest:.3g}"
        if not mean <= tolerance.mean:
            return f"is off by {mean:.3g} on average, tolerance {tolerance.mean:.3g}"
    if tolerance.equal is not None:
        share = equal_share(expected, got)
        if share < tolerance.equal:
            return f"agrees in {share:.0%} of the rows, at least {tolerance.equal:.0%} should"
    return ""
