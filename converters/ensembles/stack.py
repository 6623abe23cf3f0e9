"""A linear model of several models' outputs, fitted on labels that none of them was judged by."""

from __future__ import annotations

import numpy as np

from hone.errors import RecipeError, UnavailableError

from .merge import Linear

RIDGE = 1e-3
"""Of the mean square of an output: members' outputs are nearly the same, and their plain least squares are wild."""


def fitted(outputs: np.ndarray, labels: np.ndarray, width: int, where: str) -> Linear:
    """Return the linear model that tells labels from outputs best.

    Args:
        outputs: of all models side by side, [rows, models * width].
        labels: a class (0 to width - 1) or a value a row.
        width: outputs of one model; over 1 with whole labels, these are classes, and the answer is their logits.
        where: the labels are from, for messages.

    Raises:
        RecipeError: labels that are neither.
        UnavailableError: scikit-learn, which fits classes, isn't installed.
    """
    if labels.ndim != 1 or labels.dtype.kind not in "iubf":
        raise RecipeError(f"{where}: a stacked ensemble needs one number a row as label, a class or a value")
    if width > 1 and labels.dtype.kind in "iub":
        return _classes(outputs, labels.astype(np.int64), width, where)
    if width > 1:
        raise RecipeError(f"{where}: labels are values, but each model has {width} outputs")
    mean, target = outputs.mean(axis=0), labels.astype(np.float64)
    centered = outputs - mean
    penalty = RIDGE * len(outputs) * np.eye(centered.shape[1]) * max(np.square(centered).mean(), 1e-12)
    weights = np.linalg.solve(centered.T @ centered + penalty, centered.T @ (target - target.mean()))
    return Linear(weights[:, None].astype(np.float32), np.array([target.mean() - mean @ weights], np.float32))


def _classes(outputs: np.ndarray, labels: np.ndarray, width: int, where: str) -> Linear:
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise UnavailableError(
            "a stacked ensemble of classes needs scikit-learn", "pip install 'hone[trees]'"
        ) from None
    if labels.min() < 0 or labels.max() >= width or len(np.unique(labels)) < 2:
        raise RecipeError(f"{where}: labels must be classes from 0 to {width - 1}, of which two at least are there")
    scale = outputs.std(axis=0) + 1e-12
    model = LogisticRegression(max_iter=1000).fit(outputs / scale, labels)
    weights, bias = np.zeros((outputs.shape[1], width)), np.full(width, -1e3)  # a class that has no label is never told
    if len(model.classes_) == 2:  # one row of coefficients, for the second class
        first, second = model.classes_
        weights[:, second], bias[first], bias[second] = model.coef_[0] / scale, 0.0, model.intercept_[0]
    else:
        weights[:, model.classes_], bias[model.classes_] = (model.coef_ / scale).T, model.intercept_
    return Linear(weights.astype(np.float32), bias.astype(np.float32))
