"""A bound of a mean of any figures that holds at all moments at once, as `mean +- reach * standard error`.

It is the asymptotic confidence sequence of Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas (Time-uniform central
limit theory and asymptotic confidence sequences, Annals of Statistics 52, 2024, theorem 2.2; theorem 2.5 for figures
whose variance changes): nothing has to be known of the figures but that they have a variance, and their sums are held
against a Brownian motion, whose crossing of the bound is known exactly (Robbins, Statistical methods related to the
law of the iterated logarithm, Annals of Mathematical Statistics 41, 1970). It needs as many figures as a normal
interval does."""

from __future__ import annotations

import numpy as np

FEWEST = 100
"""Units of an arm before anything is said of it."""


EARLY = 2.0
"""The bound is nearest at one over this of what was planned: most of what is true is found before the end, and of
what is found at the end none is lost."""


def reach(progress: np.ndarray | float, risk: float) -> np.ndarray:
    """Return how many standard errors the bound is from the mean.

    Args:
        progress: information so far over what was planned, over 0: units over planned units.
        risk: that the mean is ever outside, on either side.
    """
    log = -2 * np.log(risk)
    known = EARLY * np.maximum(progress, 1e-12) * (log + np.log(log + 1))
    found: np.ndarray = np.sqrt(2 * (1 + 1 / known) * np.log(np.sqrt(known + 1) / risk))
    return found
