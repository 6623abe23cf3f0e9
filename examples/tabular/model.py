"""Boosted trees for scikit-learn's breast cancer data: model and data for the recipe.

The 569 tumors are split once, by a fixed seed and with the same share of malignant ones in both parts, into 70 % for
training and 30 % for evaluation. The settings of the model were not tuned on the evaluation rows.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import xgboost
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

SEED = 7


@cache
def split() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training features, evaluation features, training labels and evaluation labels."""
    features, labels = load_breast_cancer(return_X_y=True)
    parts = train_test_split(
        features.astype(np.float32), labels.astype(np.int64), test_size=0.3, stratify=labels, random_state=SEED
    )
    return tuple(parts)


def load() -> xgboost.XGBClassifier:
    """Train on the training rows, in under a second, and return the model."""
    features, _, labels, _ = split()
    model = xgboost.XGBClassifier(n_estimators=200, max_depth=4, learning_rate=0.1, subsample=0.8, random_state=SEED)
    return model.fit(features, labels)


def evaluation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the evaluation rows, 30 measurements of each tumor, and their labels: 0 malignant, 1 benign."""
    _, features, _, labels = split()
    return {"features": features}, labels
