"""How far two models' answers to the same rows agree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hone.signature import Tensors


@dataclass(frozen=True)
class Agreement:
    """Of answers to the same rows, over all outputs.

    Attributes:
        share: of scores of classes, rows with the same class on top; of whole numbers and texts, equal values; of
            other numbers, the share of their variance that the other's explain (R², at least 0). The least of the
            outputs.
        off: root mean square of the differences of float outputs over that of the first's values about their mean; the
            largest of the outputs, 0 where none is float; None: it has no bound, as where shapes differ.
    """

    share: float
    off: float | None


def agreement(first: Tensors, second: Tensors) -> Agreement:
    """Compare answers to the same rows, by output name."""
    found = [_of(np.asarray(first[name]), np.asarray(second[name])) for name in first]
    offs = [one.off for one in found]
    known = [off for off in offs if off is not None]
    return Agreement(min(one.share for one in found), max(known) if len(known) == len(offs) else None)


def _of(first: np.ndarray, second: np.ndarray) -> Agreement:
    if first.shape != second.shape:
        return Agreement(0.0, None)
    if first.dtype.kind != "f" or second.dtype.kind != "f":
        return Agreement(float((first == second).mean()) if first.size else 1.0, 0.0)
    a, b = first.astype(np.float64), second.astype(np.float64)
    same = np.isfinite(a) & np.isfinite(b)
    gap = np.where(same, a - np.where(same, b, 0.0), np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.inf))
    about = a - a[same].mean() if same.any() else a
    spread = float(np.sqrt(np.mean(np.square(about[same])))) if same.any() else 0.0
    rms = float(np.sqrt(np.mean(np.square(gap))))
    off = rms / spread if spread else float(bool(rms))
    known = off if np.isfinite(off) else None
    if a.ndim == 2 and a.shape[1] > 1:
        return Agreement(float((a.argmax(1) == b.argmax(1)).mean()), known)
    return Agreement(max(0.0, 1 - off**2), known)
