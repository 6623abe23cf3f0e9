"""Quality without labels, from how sure a model is: an estimate, never a measurement.

The model's confidence in the class that it gives is turned into the share of such rows that are right, learned from
rows with labels (isotonic regression: Zadrozny and Elkan, Transforming classifier scores into accurate multiclass
probability estimates, KDD 2002). The mean over live rows is the accuracy to expect (Guillory et al., Predicting with
confidence on unseen distributions, ICCV 2021; NannyML calls it confidence-based performance estimation).

Any other metric of classes or probabilities is what the recipe's own function gives for labels that are drawn by the
probabilities of the classes, each calibrated against the rest and together made 1 again (Zadrozny and Elkan): the mean
over many draws.

It sees that a model is less sure; that the same confidence has come to mean less (concept drift), or that inputs are of
a kind that the model is wrongly sure of, it can't see. So its verdicts warn, and act on nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .quality import Estimate

FEWEST = 100
"""Rows with labels that a calibration takes."""
DRAWS = 200
LABELINGS = 40
"""Of the live rows, that a figure is the mean of."""
MOST_CLASSES = 100
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


@dataclass(frozen=True)
class ClassCalibration:
    """A calibration of each class against the rest."""

    classes: tuple[Calibration, ...]

    def __call__(self, shares: np.ndarray) -> np.ndarray:
        """Return [rows, classes] how likely each class is the right one; 1 in a row.

        Args:
            shares: [rows, classes] as the model gives them.
        """
        found = np.stack([one(shares[:, place]) for place, one in enumerate(self.classes)], axis=1)
        total = found.sum(axis=1, keepdims=True)
        # Where no row of the kind was of any class, there is nothing better than what the model says.
        return np.where(total > 0, found / np.where(total > 0, total, 1.0), shares)


def calibrated_classes(shares: np.ndarray, wanted: np.ndarray) -> ClassCalibration:
    """Learn how likely each class is by the probability that the model gives it.

    Args:
        shares: [rows, classes] that the model gives.
        wanted: [rows] the place of the right class.

    Raises:
        ValueError: too few rows, or too many classes.
    """
    if shares.shape[1] > MOST_CLASSES:
        raise ValueError(f"{shares.shape[1]} classes; metrics of up to {MOST_CLASSES} are estimated")
    return ClassCalibration(tuple(calibrated(shares[:, place], wanted == place) for place in range(shares.shape[1])))


Scorer = Callable[[np.ndarray], float]
"""Numbers of rows to a figure of theirs; NaN where they have none."""


def expected_figure(
    scorer: Callable[[np.ndarray], Scorer],
    live: np.ndarray,
    shares: np.ndarray,
    wanted: np.ndarray,
    bounds: tuple[float, float] = (-math.inf, math.inf),
) -> Estimate:
    """Return a figure that is to be expected of live rows, with the error that few rows of either kind make.

    Args:
        scorer: gets the places of the right classes of all live rows; of these labels the figure is.
        live: [rows, classes] probabilities of live answers.
        shares, wanted: of rows with labels, as `calibrated_classes` takes them.
        bounds: that the figure lies between.

    Raises:
        ValueError: too few rows, too many classes, or the figure can't be computed of them.
    """
    if not len(live):
        raise ValueError("no live rows")
    generator, everything = np.random.default_rng(SEED), np.arange(len(live))
    likely = calibrated_classes(shares, wanted)(live)
    points = [scorer(_labeled(likely, generator))(everything) for _ in range(LABELINGS)]
    drawn = []
    for _ in range(DRAWS // 2):
        known = generator.integers(0, len(shares), len(shares))
        likely = calibrated_classes(shares[known], wanted[known])(live)
        rows = generator.integers(0, len(live), len(live))
        drawn.append(scorer(_labeled(likely, generator))(rows))
    if np.isfinite(points).mean() < 0.5 or np.isfinite(drawn).mean() < 0.5:
        raise ValueError("the figure can't be computed of these rows")
    error = float(np.nanstd(drawn, ddof=1))
    return Estimate(float(np.nanmean(points)), min(len(live), len(shares)), error, None, *bounds)


def _labeled(likely: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw the place of a class for each row."""
    ends = np.cumsum(likely, axis=1)
    places = (generator.random((len(likely), 1)) * ends[:, -1:] >= ends).sum(axis=1)
    return np.minimum(places, likely.shape[1] - 1)
