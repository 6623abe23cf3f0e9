"""Whether units were dealt to arms as they were meant to be: a test of the sample ratio that may be looked at always.

An arm with more or fewer units than its weight says has lost some, or has been given others': what is compared then
are different units, and no difference of their figures means anything (Fabijan et al., Diagnosing sample ratio
mismatch in online controlled experiments, KDD 2019). The bet is that of Lindon and Malek (Anytime-valid inference for
multinomial count data, NeurIPS 2022): on weights drawn from a Dirichlet distribution around those that were meant,
here from several of them, some near and some wide."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ..distributions import log_gamma

RISK = 0.01
"""That this is ever said of units that were dealt as they were meant."""

NEARNESS = np.geomspace(1.0, 100_000.0, 6)
"""Of the distributions: units that each is worth."""


def misdealt_by(counts: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the logarithm of what is won by betting against the weights.

    Args:
        counts: [..., arms] units so far.
        weights: [arms] shares that were meant, over 0, together 1.
    """
    counts = np.asarray(counts, np.float64)[..., None, :]
    prior = NEARNESS[:, None] * np.asarray(weights, np.float64)
    won = log_gamma(NEARNESS) - log_gamma(NEARNESS + counts.sum(axis=-1))
    won = won + (log_gamma(prior + counts) - log_gamma(prior) - counts * np.log(weights)).sum(axis=-1)
    most = won.max(axis=-1, keepdims=True)
    found: np.ndarray = most[..., 0] + np.log(np.exp(won - most).mean(axis=-1))
    return found


def is_misdealt(stages: Sequence[tuple[Sequence[float], Sequence[float]]], risk: float = RISK) -> bool:
    """Return whether units were beyond doubt not dealt by the weights.

    Args:
        stages: (units, weights) of the arms, of each time in which weights stood still; an arm of weight 0 is left out.
    """
    won = 0.0
    for units, weights in stages:
        kept = np.array([weight > 0 for weight in weights])
        if kept.sum() > 1:
            meant = np.array(weights, np.float64)[kept]
            won += float(misdealt_by(np.array(units)[kept], meant / meant.sum()))
    return won >= math.log(1 / risk)
