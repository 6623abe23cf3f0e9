from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from converters import metrics


def test_metrics_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.normal(size=(200, 5)), generator.integers(0, 5, 200)
    predicted = scores.argmax(1)
    assert metrics.accuracy(scores, labels) == pytest.approx(reference.accuracy_score(labels, predicted))
    assert metrics.f1(scores, labels) == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
    values, wanted = generator.normal(size=(200, 1)), generator.normal(size=200)
    flat = values.reshape(-1)
    assert metrics.rmse(values, wanted) == pytest.approx(reference.root_mean_squared_error(wanted, flat))
    assert metrics.mae(values, wanted) == pytest.approx(reference.mean_absolute_error(wanted, flat))


def test_class_of_one_score_is_its_sign_and_of_a_probability_its_half() -> None:
    assert metrics.classes(np.array([[-2.0], [3.0]])).tolist() == [0, 1]
    assert metrics.classes(np.array([0.2, 0.7])).tolist() == [0, 1]
    assert metrics.classes(np.array(["a", "b"])).tolist() == ["a", "b"]


def test_cosine_of_equal_opposite_and_zero_rows() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert metrics.cosine(rows, rows) == 1.0
    assert metrics.cosine(rows[:1], -rows[:1]) == -1.0
    assert metrics.cosine(rows[:1], rows[1:]) == 0.0


def test_top_k_agreement_counts_shared_classes() -> None:
    source = np.array([[4.0, 3.0, 2.0, 1.0]])
    assert metrics.top_k_agreement(np.array([[4.0, 3.0, 2.0, 1.0]]), source, 2) == 1.0
    assert metrics.top_k_agreement(np.array([[4.0, 1.0, 3.0, 2.0]]), source, 2) == 0.5


def test_differences_are_over_all_outputs() -> None:
    source = {"a": np.zeros((2, 2)), "b": np.array(["x", "y"])}
    outputs = {"a": np.array([[0.0, 0.5], [0.0, 0.0]]), "b": np.array(["x", "z"])}
    assert metrics.differences(outputs, source) == (1.0, 1.5 / 6)
