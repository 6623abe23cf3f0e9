"""The RAND health insurance experiment, 20,190 years of people's lives, as it comes with statsmodels."""

from __future__ import annotations

from functools import cache

import numpy as np
import statsmodels.api as sm
from sklearn.model_selection import train_test_split

SEED = 7
COLUMNS = ["lncoins", "idp", "lpi", "fmde", "physlm", "disea", "hlthg", "hlthf", "hlthp"]
"""Coinsurance and deductible of the plan, payments, physical limits, chronic diseases, and health as people see it."""


@cache
def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training and evaluation rows [n, 9], and the visits of each."""
    frame = sm.datasets.randhie.load_pandas().data
    parts = train_test_split(
        frame[COLUMNS].to_numpy(np.float32), frame["mdvis"].to_numpy(np.float32), test_size=1000, random_state=SEED
    )
    return tuple(parts)


def evaluation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return 1,000 rows that the model was not fitted to, and how many visits there were."""
    _, rows, _, visits = split()
    return {"person": rows}, visits
