"""Labels in every form that people have them in, against every form of class outputs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from hone.converters.proof.labels import class_ids, pairs
from hone.errors import RecipeError
from tests.converters.proof.scores import score

CLASSES = np.array([0, 1, 2, 1, 0, 2, 2, 1])
SCORES = np.eye(3, dtype=np.float32)[CLASSES] * 4 - 1
BINARY = np.array([0, 1, 1, 0, 1, 0, 1, 1])
LOGIT = (BINARY * 6 - 3.0).astype(np.float32)[:, None]


@pytest.mark.parametrize(
    "labels",
    [
        CLASSES,
        CLASSES.astype(np.int8),
        CLASSES.astype(np.float64),
        CLASSES[:, None],
        CLASSES.astype(str),
        CLASSES.astype(float).astype(str),
        CLASSES.astype("S"),
        np.array(list(CLASSES), dtype=object),
        np.eye(3)[CLASSES],
        np.eye(3, dtype=bool)[CLASSES],
    ],
)
@pytest.mark.parametrize("output", [SCORES, CLASSES, CLASSES.astype(str), CLASSES.astype(str).astype(object)])
def test_equal_classes_are_equal_in_every_form(output: np.ndarray, labels: np.ndarray) -> None:
    wrong = np.roll(output, 1, axis=0)
    assert score("accuracy", output, labels) == 1.0 == score("f1", output, labels)
    assert score("accuracy", wrong, labels, output) == np.mean(np.roll(CLASSES, 1) == CLASSES)


@pytest.mark.parametrize("cast", [bool, float, str, lambda array: array.astype(bool).astype(str)])
def test_two_classes_by_one_score(cast: Callable[[np.ndarray], np.ndarray] | type) -> None:
    labels = BINARY.astype(cast) if isinstance(cast, type) else cast(BINARY)
    for output in (LOGIT, LOGIT[:, 0], 1 / (1 + np.exp(-LOGIT)), BINARY, BINARY.astype(bool)):
        assert score("accuracy", output, labels) == 1.0


def test_a_variant_is_read_as_the_source_is() -> None:
    """The source's logits are cut at zero; a variant's must not be cut at a half because they happen to be small."""
    labels = np.array([1, 1, 0, 0])
    source, variant = np.array([4.0, 3.0, -4.0, -3.0]), np.array([0.4, 0.3, 0.0, 0.0])
    assert score("accuracy", variant, labels, source) == 1.0


def test_segmentation_has_its_classes_on_axis_one_and_tokens_on_the_last() -> None:
    wanted = np.random.default_rng(0).integers(0, 3, (4, 5, 6))
    last = np.eye(3, dtype=np.float32)[wanted]
    assert score("accuracy", np.moveaxis(last, -1, 1), wanted) == 1.0
    assert score("accuracy", np.moveaxis(last, -1, 1), wanted[:, None]) == 1.0
    assert score("accuracy", last, wanted) == 1.0
    assert score("accuracy", np.moveaxis(last, -1, 1), np.moveaxis(last, -1, 1)) == 1.0
    mask = (wanted > 0).astype(np.float32)
    assert score("accuracy", mask[:, None] * 2 - 1, mask.astype(bool)) == 1.0


@pytest.mark.parametrize(
    ("output", "labels", "words"),
    [
        (SCORES, np.array(["cat", "dog", "cow", "dog", "cat", "cow", "cow", "dog"]), "are text .*'cat'.*numbers"),
        (SCORES, CLASSES + 1, r"labels hold 3, the model's classes are 0 to 2"),
        (LOGIT, np.where(BINARY == 1, 1, -1), r"labels hold -1, the model's classes are 0 to 1"),
        (SCORES, CLASSES + 0.5, "no whole numbers, such as"),
        (SCORES, np.where(CLASSES == 1, np.nan, CLASSES), "no whole numbers, such as nan"),
        (CLASSES, CLASSES + 7, "no label .* is ever predicted; the model gives 0, 1, 2"),
        (SCORES, np.zeros((8, 4)), r"shape \[8, 3\], so labels must have \[8\] or \[8, 3\] \(one-hot\)"),
        (np.zeros((8, 3, 4, 5)), np.zeros((8, 9)), r"must have \[8, 4, 5\] or \[8, 3, 4\]"),
        (np.zeros((8, 4, 4)), np.zeros((8, 4), int), "axis 1 or on the last"),
        (np.full((8, 3), np.nan), CLASSES, "holds NaN"),
    ],
)
def test_what_cannot_be_matched_is_an_error(output: np.ndarray, labels: np.ndarray, words: str) -> None:
    with pytest.raises(RecipeError, match=words) as error:
        score("accuracy", output, labels)
    assert "\n" not in str(error.value)


def test_outputs_of_another_shape_than_the_sources_are_an_error() -> None:
    with pytest.raises(RecipeError, match=r"\[8, 2\], the source's \[8, 3\]"):
        pairs(SCORES[:, :2], SCORES, CLASSES)


def test_class_of_one_score_is_its_sign_and_of_a_probability_its_half() -> None:
    assert class_ids(np.array([[-2.0], [3.0]])).tolist() == [0, 1]
    assert class_ids(np.array([0.2, 0.7])).tolist() == [0, 1]
    assert class_ids(np.array(["a", "b"])).tolist() == ["a", "b"]
    assert class_ids(SCORES).tolist() == CLASSES.tolist()
