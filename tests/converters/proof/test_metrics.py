from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from hone.converters.proof import metrics
from hone.errors import RecipeError


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


def test_cosine_of_equal_opposite_and_zero_rows() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert metrics.cosine(rows, rows) == 1.0
    assert metrics.cosine(rows[:1], -rows[:1]) == -1.0
    assert metrics.cosine(rows[:1], rows[1:]) == 0.0


def test_cosine_of_one_value_a_row_is_refused_for_it_is_its_sign() -> None:
    values = np.array([[3.0], [70.0]])
    with pytest.raises(RecipeError, match=r"one value a row.*use likeness"):
        metrics.cosine(values / 100, values)


def test_likeness_is_the_share_of_the_sources_variance_that_is_explained() -> None:
    generator = np.random.default_rng(0)
    source = generator.normal(150, 60, size=(200, 1))
    noisy = source + generator.normal(0, 20, size=source.shape)
    assert metrics.likeness(noisy, source) == pytest.approx(reference.r2_score(source, noisy))
    assert metrics.likeness(source, source) == 1.0
    assert metrics.likeness(source / 100, source) < 0  # the same sign in every row, and useless
    assert metrics.likeness(np.full_like(source, source.mean()), source) == pytest.approx(0)
    assert metrics.likeness(np.array(["a", "b"]), np.array(["a", "c"])) == 0.5
    with pytest.raises(RecipeError, match="the same output for all 3"):
        metrics.likeness(np.ones((3, 2)), np.ones((3, 2)))


def test_top_k_of_all_classes_is_refused() -> None:
    with pytest.raises(RecipeError, match="5 of 3 classes always agree"):
        metrics.top_k_agreement(np.ones((4, 3)), np.ones((4, 3)), 5)


def test_errors_name_the_shapes_that_differ() -> None:
    with pytest.raises(RecipeError, match=r"\[4, 2, 3\], labels have \[4, 3, 2\]"):
        metrics.rmse(np.zeros((4, 2, 3)), np.zeros((4, 3, 2)))
    with pytest.raises(RecipeError, match="labels hold NaN"):
        metrics.mae(np.zeros(2), np.array([1.0, np.nan]))


def test_top_k_agreement_counts_shared_classes() -> None:
    source = np.array([[4.0, 3.0, 2.0, 1.0]])
    assert metrics.top_k_agreement(np.array([[4.0, 3.0, 2.0, 1.0]]), source, 2) == 1.0
    assert metrics.top_k_agreement(np.array([[4.0, 1.0, 3.0, 2.0]]), source, 2) == 0.5


def test_differences_are_over_all_outputs() -> None:
    source = {"a": np.zeros((2, 2)), "b": np.array(["x", "y"])}
    outputs = {"a": np.array([[0.0, 0.5], [0.0, 0.0]]), "b": np.array(["x", "z"])}
    assert metrics.differences(outputs, source) == (1.0, 1.5 / 6)
