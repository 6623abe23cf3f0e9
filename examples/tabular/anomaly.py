"""An isolation forest on the rows of model.py: fitted to benign tumors, it tells the malignant ones apart."""

from __future__ import annotations

import model
import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


def load() -> Pipeline:
    """Fit to the benign training rows and return scaler and forest."""
    features, _, labels, _ = model.split()
    forest = IsolationForest(n_estimators=100, contamination=0.05, random_state=model.SEED)
    return make_pipeline(StandardScaler(), forest).fit(features[labels == 1])


def evaluation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return the evaluation rows and what the forest should say: 1 benign, -1 malignant."""
    inputs, labels = model.evaluation()
    return inputs, np.where(labels == 1, 1, -1)
