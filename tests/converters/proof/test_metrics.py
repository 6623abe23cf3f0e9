from __future__ import annotations

import numpy as np
import pytest

from hone.converters.proof.differences import differences
from hone.converters.proof.metrics import Metric, all_metrics, stand_in
from hone.converters.proof.metrics.registry import register
from hone.errors import RecipeError
from tests.converters.proof.scores import score
from tests.later import later

reference = later("sklearn.metrics")

GENERATOR = np.random.default_rng(0)
CLASS_SCORES, CLASSES = GENERATOR.normal(size=(200, 5)), GENERATOR.integers(0, 4, 200)
VALUES, WANTED = GENERATOR.normal(size=(200, 1)), GENERATOR.normal(size=200)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", lambda wanted, got: reference.accuracy_score(wanted, got)),
        ("balanced_accuracy", lambda wanted, got: reference.balanced_accuracy_score(wanted, got)),
        ("f1", lambda wanted, got: reference.f1_score(wanted, got, average="macro")),
        ("precision", lambda wanted, got: reference.precision_score(wanted, got, average="macro", zero_division=0)),
        ("recall", lambda wanted, got: reference.recall_score(wanted, got, average="macro", zero_division=0)),
    ],
)
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_metrics_of_classes_agree_with_scikit_learn(name: str, expected: object) -> None:
    """The fifth class is predicted and never right."""
    assert callable(expected)
    assert score(name, CLASS_SCORES, CLASSES) == pytest.approx(expected(CLASSES, CLASS_SCORES.argmax(1)))
    names = np.array(["ant", "bee", "cat", "dog"])[CLASSES]
    assert score(name, np.roll(names, 7), names) == pytest.approx(expected(names, np.roll(names, 7)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("rmse", lambda wanted, got: reference.root_mean_squared_error(wanted, got)),
        ("mae", lambda wanted, got: reference.mean_absolute_error(wanted, got)),
        ("r2", lambda wanted, got: reference.r2_score(wanted, got)),
    ],
)
def test_metrics_of_values_agree_with_scikit_learn(name: str, expected: object) -> None:
    assert callable(expected)
    assert score(name, VALUES, WANTED) == pytest.approx(expected(WANTED, VALUES.reshape(-1)))


def test_metrics_of_probabilities_agree_with_scikit_learn() -> None:
    """Of scores, which become probabilities as in a softmax, and of one score a row."""
    scores = CLASS_SCORES[:, :4]
    shares = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    several = reference.roc_auc_score(CLASSES, shares, multi_class="ovr")
    assert score("roc_auc", scores, CLASSES) == pytest.approx(several)
    assert score("log_loss", scores, CLASSES) == pytest.approx(reference.log_loss(CLASSES, shares))
    assert score("log_loss", shares, CLASSES) == pytest.approx(reference.log_loss(CLASSES, shares))
    two, one = (CLASSES > 1).astype(int), np.round(CLASS_SCORES[:, 0], 1)  # with ties
    assert score("roc_auc", one, two) == pytest.approx(reference.roc_auc_score(two, one))
    assert score("roc_auc", 1 / (1 + np.exp(-one)), two) == pytest.approx(reference.roc_auc_score(two, one))
    with pytest.raises(RecipeError, match="all 200 labels are of one class"):
        score("roc_auc", one, np.ones(200, int))


def test_calibration_error_is_how_far_off_the_probability_is() -> None:
    labels = np.array([0] * 70 + [1] * 30)
    shares = np.tile([0.7, 0.3], (100, 1))
    assert score("calibration_error", shares, labels) == pytest.approx(0)
    assert score("calibration_error", np.tile([0.9, 0.1], (100, 1)), labels) == pytest.approx(0.2)


def test_rank1_is_whether_the_nearest_other_row_is_of_the_same_kind() -> None:
    near = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1], [1, 0.05]])
    assert score("rank1", near, np.array(["a", "a", "b", "b", "c"])) == pytest.approx(0.4)
    with pytest.raises(RecipeError, match="vectors"):
        score("rank1", near[:, 0], CLASSES[:5])


@pytest.mark.parametrize("metric", all_metrics().values(), ids=lambda metric: metric.name)
def test_every_metric_keeps_what_it_is_registered_with(metric: Metric) -> None:
    """The best number for right answers, worse and within bounds for others, and no loss between equal ones."""
    right = np.eye(5)[CLASSES] if metric.reads != "values" else WANTED[:, None]
    labels = WANTED if metric.reads == "values" else CLASSES
    others = np.roll(right, 1, axis=0) + GENERATOR.normal(0, 0.1, right.shape)
    best, worse = (score(metric.name, output, labels, right, k=2) for output in (right, others))
    assert best == pytest.approx(metric.best)
    assert worse < best if metric.higher_is_better else worse > best
    low, high = metric.bounds
    assert low <= worse <= high
    assert metric.loss.of(right, right) == pytest.approx(0) and metric.loss.of(others, right) > 0
    assert metric.summary.endswith(".") and "\n" not in metric.summary


def test_a_metric_has_its_name_alone() -> None:
    with pytest.raises(ValueError, match="'accuracy' is registered twice"):
        register(all_metrics()["accuracy"])


def test_users_function_is_stood_in_for_by_the_default_metric() -> None:
    assert stand_in("own:score") is all_metrics()["likeness"]
    assert stand_in("rmse") is all_metrics()["rmse"]


def test_cosine_of_equal_opposite_and_zero_rows() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 0.0]])
    assert score("cosine", rows, None) == 1.0
    assert score("cosine", rows[:1], None, -rows[:1]) == -1.0
    assert score("cosine", rows[:1], None, rows[1:]) == 0.0


def test_cosine_of_one_value_a_row_is_refused_for_it_is_its_sign() -> None:
    values = np.array([[3.0], [70.0]])
    with pytest.raises(RecipeError, match=r"one value a row.*use likeness"):
        score("cosine", values / 100, None, values)


def test_likeness_is_the_share_of_the_sources_variance_that_is_explained() -> None:
    generator = np.random.default_rng(0)
    source = generator.normal(150, 60, size=(200, 1))
    noisy = source + generator.normal(0, 20, size=source.shape)
    assert score("likeness", noisy, None, source) == pytest.approx(reference.r2_score(source, noisy))
    assert score("likeness", source, None) == 1.0
    assert score("likeness", source / 100, None, source) < 0  # the same sign in every row, and useless
    assert score("likeness", np.full_like(source, source.mean()), None, source) == pytest.approx(0)
    assert score("likeness", np.array(["a", "b"]), None, np.array(["a", "c"])) == 0.5
    with pytest.raises(RecipeError, match="the same output for all 3"):
        score("likeness", np.ones((3, 2)), None)


def test_top_k_of_all_classes_is_refused() -> None:
    with pytest.raises(RecipeError, match="5 of 3 classes always agree"):
        score("top_k_agreement", np.ones((4, 3)), None)


def test_errors_name_the_shapes_that_differ() -> None:
    with pytest.raises(RecipeError, match=r"\[4, 2, 3\], labels have \[4, 3, 2\]"):
        score("rmse", np.zeros((4, 2, 3)), np.zeros((4, 3, 2)))
    with pytest.raises(RecipeError, match="labels hold NaN"):
        score("mae", np.zeros(2), np.array([1.0, np.nan]))
    with pytest.raises(RecipeError, match="the same in all 3 row"):
        score("r2", np.zeros(3), np.ones(3))


def test_top_k_agreement_counts_shared_classes() -> None:
    source = np.array([[4.0, 3.0, 2.0, 1.0]])
    assert score("top_k_agreement", source, None, k=2) == 1.0
    assert score("top_k_agreement", np.array([[4.0, 1.0, 3.0, 2.0]]), None, source, k=2) == 0.5


def test_differences_are_over_all_outputs() -> None:
    source = {"a": np.zeros((2, 2)), "b": np.array(["x", "y"])}
    outputs = {"a": np.array([[0.0, 0.5], [0.0, 0.0]]), "b": np.array(["x", "z"])}
    assert differences(outputs, source) == (1.0, 1.5 / 6)
