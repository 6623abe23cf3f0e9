"""Quantiles and probabilities of distributions, from SciPy, which is imported when the first is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from hone.errors import UnavailableError


def beta_quantile(a: float, b: float, probability: float) -> float:
    """Return the quantile of the beta distribution."""
    return float(_scipy().special.betaincinv(a, b, probability))


def beta_quantiles(a: np.ndarray, b: np.ndarray, probability: float) -> np.ndarray:
    """Return the quantile of each beta distribution."""
    return np.asarray(_scipy().special.betaincinv(a, b, probability))


def chi_square_above(statistic: float, degrees: float) -> float:
    """Return how likely a chi-square value is above another."""
    return float(_scipy().special.chdtrc(degrees, statistic))


def normal_quantile(probability: float) -> float:
    """Return the quantile of the normal distribution."""
    return float(_scipy().special.ndtri(probability))


def normal_below(value: float) -> float:
    """Return how likely a normal value is below another."""
    return float(_scipy().special.ndtr(value))


def normals_below(values: np.ndarray) -> np.ndarray:
    """Return how likely a normal value is below each of others."""
    return np.asarray(_scipy().special.ndtr(values))


def log_gamma(values: np.ndarray) -> np.ndarray:
    """Return the logarithm of the gamma function."""
    return np.asarray(_scipy().special.gammaln(values))


def student(degrees: float, probability: float) -> float:
    """Return the quantile of Student's distribution."""
    return float(_scipy().special.stdtrit(degrees, probability))


def binomial_below(counts: np.ndarray, trials: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Return how likely counts as large, or smaller, are in so many trials."""
    surely = counts >= trials
    some = _scipy().special.betainc(np.where(surely, 1, trials - counts), counts + 1, 1 - chance)
    below: np.ndarray = np.where(surely, 1.0, some)
    return below


def binomial_share(counts: np.ndarray, trials: int, chance: np.ndarray) -> np.ndarray:
    """Return how likely each count is in so many trials."""
    special = _scipy().special
    logs = special.xlogy(counts, chance) + special.xlog1py(trials - counts, -chance)
    ways = special.gammaln(trials + 1) - special.gammaln(counts + 1) - special.gammaln(trials - counts + 1)
    shares: np.ndarray = np.exp(logs + ways)
    return shares


def _scipy() -> Any:
    """Return SciPy: proofs and load tests need it, and a serving image is without it.

    Raises:
        UnavailableError: it is not installed.
    """
    try:
        import scipy.special
    except ImportError:
        raise UnavailableError("scipy is not installed", "pip install scipy") from None
    return scipy
