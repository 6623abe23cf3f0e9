"""Quality without labels, from how sure a model is: an estimate, never a measurement.

The model's confidence in the class that it gives is turned into the share of such rows that are right, learned from
rows with labels (isotonic regression: Zadrozny and Elkan, Transforming classifier scores into accurate multiclass
probability estimates, KDD 2002). The mean over live rows is the accuracy to expect (Guillory et al., Predicting with
confidence on unseen distributions, ICCV 2021; NannyML calls it confidence-based performance estimation).

It sees that a model is less sure; that the same confidence has come to mean less (concept drift), or that inputs are of
a kind that the model is wrongly sure of, it can't see. So its verdicts warn, and act on nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .quality import Estimate

FEWEST = 100
"""Rows with labels that a calibration takes."""
DRAWS = 200
SEED = 0


@dataclass(frozen=True)
class Calibration:
    """Shares of right rows by confidence, ascending in both.

    Attributes:
        at: confidences.
        right: the share of rows that are right there.
        rows: that it was learned from.
    """

    at: np.ndarray
    right: np.ndarray
    rows: int

    def __call__(self, confidence: np.ndarray) -> np.ndarray:
        """Return how likely rows are right; between two known confidences in a straight line."""
        return np.interp(confidence, self.at, self.right)


def calibrated(confidence: np.ndarray, right: np.ndarray) -> Calibration:
    """Learn how often a model is right by how sure it is.

    Args:
        confidence: [rows] that the model has in the class that it gives.
        right: [rows] whether that class is right.

    Raises:
        ValueError: too few rows.
    """
    if len(confidence) < FEWEST:
        raise ValueError(f"{len(confidence)} rows with labels; a calibration takes {FEWEST}")
    from scipy.optimize import isotonic_regression

    order = np.argsort(confidence, kind="stable")
    fitted = isotonic_regression(right[order].astype(float)).x
    return Calibration(confidence[order], np.asarray(fitted), len(confidence))


def expected(live: np.ndarray, confidence: np.ndarray, right: np.ndarray) -> Estimate:
    """Return the accuracy that is to be expected of live rows, with the error that few rows of either kind make.

    Args:
        live: [rows] confidence of live answers.
        confidence, right: of rows with labels, as `calibrated` takes them.

    Raises:
        ValueError: too few rows.
    """
    if not len(live):
        raise ValueError("no live rows")
    generator = np.random.default_rng(SEED)
    drawn = []
    for _ in range(DRAWS):
        known = generator.integers(0, len(confidence), len(confidence))
        rows = generator.integers(0, len(live), len(live))
        drawn.append(float(calibrated(confidence[known], right[known])(live[rows]).mean()))
    point = float(calibrated(confidence, right)(live).mean())
    return Estimate(point, min(len(live), len(confidence)), float(np.std(drawn, ddof=1)), None, 0.0, 1.0)
