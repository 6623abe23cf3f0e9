"""Models of tables: scikit-learn, XGBoost, LightGBM; `NAME` is a recipe's loader, `NAME_rows` its data."""

from __future__ import annotations

import numpy as np

RANDOM = np.random.default_rng(1)
MATRIX = RANDOM.normal(size=(200, 6)).astype(np.float32)
CLASSES = (MATRIX[:, 0] > 0).astype(int) + (MATRIX[:, 1] > 0.5)
VALUES = MATRIX @ np.arange(6) + np.sin(MATRIX[:, 0])
NAMES = np.array(["low", "middle", "high"])


def forest():
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(8, random_state=0).fit(MATRIX, NAMES[CLASSES])


def scaled():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression()).fit(MATRIX, CLASSES > 0)


def neighbors():
    from sklearn.neighbors import KNeighborsRegressor

    return KNeighborsRegressor(3).fit(MATRIX, VALUES)


def boosted():
    from sklearn.ensemble import GradientBoostingRegressor

    return GradientBoostingRegressor(n_estimators=10, random_state=0).fit(MATRIX, VALUES)


def perceptron():
    from sklearn.neural_network import MLPClassifier

    return MLPClassifier((8,), max_iter=50, random_state=0).fit(MATRIX, CLASSES)


def anomalies():
    from sklearn.ensemble import IsolationForest

    return IsolationForest(n_estimators=8, random_state=0).fit(MATRIX)


def xgb_classes():
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=5, max_depth=3).fit(MATRIX, CLASSES)


def xgb_ranker():
    from xgboost import XGBRanker

    return XGBRanker(n_estimators=5, max_depth=3).fit(MATRIX, CLASSES, group=[100, 100])


def lgb_values():
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_estimators=5, verbose=-1).fit(MATRIX, VALUES)


def lgb_classes():
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=5, verbose=-1).fit(MATRIX, CLASSES)


def rows():
    return {"features": MATRIX}
