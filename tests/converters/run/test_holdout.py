"""Rows that a search chose by and rows of the proof: none is both, and they are the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone.converters.context import Rows
from hone.converters.proof.subject import Subject
from hone.converters.run.holdout import split
from hone.converters.run.prepare import Prepared
from hone.data import Dataset, read_dataset, save_dataset
from hone.errors import RecipeError
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench


def prepared(folder: Path, rows: int) -> tuple[Prepared, Subject]:
    bench = Bench(folder, perceptron_signature(), perceptron_rows())
    numbers = np.arange(rows)
    dataset = Dataset({"x": perceptron_rows(rows)["x"]}, numbers, {"half": (numbers % 2).astype(str)})
    save_dataset(dataset, folder / "evaluation.npz")
    source = Subject("onnx", bench.artifact(perceptron()), _outputs={"y": numbers[:, None].astype(np.float32)})
    return Prepared(folder, Rows(folder / "evaluation.npz", None), "", "onnx"), source


def test_a_third_is_for_the_search_and_answers_go_with_their_rows(tmp_path: Path) -> None:
    whole = prepared(tmp_path, 90)
    halves = split(*whole, "recipe.yaml")
    labels = [read_dataset(half.prepared.evaluation).labels for half in halves]
    assert labels[0] is not None and labels[1] is not None
    assert [half.rows for half in halves] == [len(labels[0]), len(labels[1])] == [30, 60]
    assert sorted([*labels[0], *labels[1]]) == list(range(90))
    for half, numbers in zip(halves, labels, strict=True):
        assert (half.source.outputs["y"][:, 0] == numbers).all()
        assert (read_dataset(half.prepared.evaluation).slices["half"].astype(int) == numbers % 2).all()
    again = read_dataset(split(*whole, "recipe.yaml")[0].prepared.evaluation)
    assert (again.labels == labels[0]).all()


def test_too_few_rows_for_both_are_said(tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"recipe.yaml: evaluation: 20 rows are too few for --search.* give 24 or more"
    ):
        split(*prepared(tmp_path, 20), "recipe.yaml")
