"""A metric that can't tell good answers from bad ones is found out on the source's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.converters.proof.judge import Judge, make_judge
from hone.converters.proof.sanity import check_metric
from hone.errors import RecipeError
from hone.recipe import load_recipe
from tests.models.sums import write_project

GENERATOR = np.random.default_rng(0)
LABELS = GENERATOR.integers(0, 3, 100)
GOOD = {"scores": np.eye(3, dtype=np.float32)[LABELS] * 3 + GENERATOR.normal(size=(100, 3)).astype(np.float32)}

OWN = """
import numpy as np

def right(outputs, labels):
    return np.mean(outputs["scores"].argmax(1) == labels)

def wrong(outputs, labels):
    return float(np.mean(outputs["scores"].argmax(1) != labels))

def nothing(outputs, labels):
    pass

def array(outputs, labels):
    return outputs["scores"].mean(axis=1)

def nan(outputs, labels):
    return float("nan")

def text(outputs, labels):
    return "good"

def fails(outputs, labels):
    assert outputs.shape == labels.shape

def average(outputs, labels):
    return outputs["scores"].mean()

def greedy(outputs, labels):
    outputs["scores"][:] = 0
    labels[:] = 0
    return 1.0
"""


def metric(folder: Path, name: str, *, labels: bool = True, **quality: Any) -> Judge:
    file = write_project(folder, quality={"metric": name, **quality})
    (folder / "own.py").write_text(OWN)
    return make_judge(load_recipe(file), ["scores"], has_labels=labels)


@pytest.mark.parametrize("name", ["accuracy", "f1", "own:right", "likeness", "cosine", "top_k_agreement"])
def test_a_good_source_passes(tmp_path: Path, name: str) -> None:
    score = check_metric(metric(tmp_path, name, k=1), GOOD, LABELS)
    assert score > 0.8


def test_an_error_that_is_said_to_be_one_passes(tmp_path: Path) -> None:
    assert check_metric(metric(tmp_path, "own:wrong", higher_is_better=False), GOOD, LABELS) < 0.2


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own:nothing", "own:nothing returned NoneType; return one number"),
        ("own:array", r"returned ndarray of shape \[100\]; return one number"),
        ("own:nan", "returned nan; return a finite number"),
        ("own:text", "returned str; return one number"),
        ("own:fails", r"own:fails failed \(own.py:\d+\): AttributeError: 'dict'"),
        ("own:average", "the same when its rows are shuffled"),
        ("own:wrong", "no worse, when its rows are shuffled .* quality.higher_is_better: false"),
    ],
)
def test_a_metric_that_tells_nothing_is_an_error(tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        check_metric(metric(tmp_path, name), GOOD, LABELS)
    assert str(error.value).startswith(f"{tmp_path}/recipe.yaml: quality.metric") and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "words"),
    [
        ("accuracy", np.roll(GOOD["scores"], 1, axis=1), LABELS, "is no better than answering 1 to every row"),
        ("accuracy", GOOD["scores"], np.where(LABELS == 2, 1, 0), "is no better than answering 0 to every row"),
        ("accuracy", GOOD["scores"], np.zeros(100), "is no better than answering 0 to every row"),
        ("rmse", np.full((100, 1), 5.0), LABELS, "no better than answering the mean of the labels"),
        ("rmse", LABELS[:, None] + 9.0, LABELS, "no better than answering the mean of the labels"),
        ("mae", LABELS[:, None] + 9.0, LABELS, "no better than answering the median of the labels"),
        ("likeness", np.ones((100, 1)), None, "the same output for all 100"),
        ("cosine", np.ones((100, 4)), None, "the same when its rows are shuffled"),
    ],
)
def test_a_source_no_better_than_a_constant_is_an_error(
    tmp_path: Path, name: str, outputs: np.ndarray, labels: np.ndarray | None, words: str
) -> None:
    chosen = metric(tmp_path, name)
    with pytest.raises(RecipeError, match=words):
        check_metric(chosen, {"scores": outputs}, labels)


def test_a_common_label_that_is_never_predicted_is_an_error(tmp_path: Path) -> None:
    """An outlier detector gives -1 and 1; labels of 0 and 1 are half right by accident."""
    outputs = {"scores": np.where(LABELS == 2, -1, 1)}
    with pytest.raises(RecipeError, match=r"label 0 \(\d+ of 100\) is never predicted; the source gives -1, 1"):
        check_metric(metric(tmp_path, "accuracy"), outputs, np.where(LABELS == 2, 0, 1))


def test_few_rows_say_nothing_and_a_recipe_may_skip_the_checks(tmp_path: Path) -> None:
    few = {"scores": GOOD["scores"][:4]}
    assert check_metric(metric(tmp_path, "own:average"), few, LABELS[:4]) == pytest.approx(few["scores"].mean())
    assert check_metric(metric(tmp_path, "own:average"), GOOD, LABELS, skip=True)
    with pytest.raises(RecipeError, match="return a finite number"):
        check_metric(metric(tmp_path, "own:nan"), GOOD, LABELS, skip=True)


def test_a_metric_that_changes_its_arguments_changes_nothing_else(tmp_path: Path) -> None:
    before = GOOD["scores"].copy(), LABELS.copy()
    check_metric(metric(tmp_path, "own:greedy"), GOOD, LABELS, skip=True)
    np.testing.assert_array_equal(GOOD["scores"], before[0])
    np.testing.assert_array_equal(LABELS, before[1])
