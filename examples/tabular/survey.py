"""A pipeline with text and number columns on statsmodels' survey of 6,366 marriages (Fair 1978)."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import statsmodels.api as sm
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

SEED = 7
OCCUPATIONS = ("student", "unskilled", "white-collar", "skilled", "managerial", "professional")
RELIGIOUS = ("not", "mildly", "fairly", "strongly")
TEXTS = ["occupation", "religious"]
NUMBERS = ["age", "years_married", "children", "rating"]


@cache
def split() -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray, np.ndarray]:
    """Return training and evaluation columns, training and evaluation labels (1: had an affair)."""
    frame = sm.datasets.fair.load_pandas().data
    columns = pd.DataFrame(
        {
            "occupation": [OCCUPATIONS[int(code) - 1] for code in frame["occupation"]],
            "religious": [RELIGIOUS[int(code) - 1] for code in frame["religious"]],
            "age": frame["age"].astype(np.float32),
            "years_married": frame["yrs_married"].astype(np.float32),
            "children": frame["children"].astype(np.float32),
            "rating": frame["rate_marriage"].astype(np.float32),
        }
    )
    labels = (frame["affairs"] > 0).to_numpy().astype(np.int64)
    parts = train_test_split(columns, labels, test_size=0.3, stratify=labels, random_state=SEED)
    return tuple(parts)


def load() -> Pipeline:
    """Fit encoders and a logistic regression to the training rows."""
    columns, _, labels, _ = split()
    encode = make_column_transformer((OneHotEncoder(), TEXTS), (StandardScaler(), NUMBERS))
    return make_pipeline(encode, LogisticRegression(max_iter=1000)).fit(columns, labels)


def evaluation() -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return each evaluation column as [rows, 1], texts as strings, and the labels."""
    _, columns, _, labels = split()
    inputs = {name: columns[name].to_numpy().astype(str)[:, None] for name in TEXTS}
    return {**inputs, **{name: columns[name].to_numpy()[:, None] for name in NUMBERS}}, labels
