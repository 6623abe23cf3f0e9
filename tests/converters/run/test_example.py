"""The rows that go with an artifact, for the documentation of its service."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hone import runtimes
from hone.artifact import EXAMPLE
from hone.converters.context import PassContext
from hone.recipe import load_recipe
from hone.services.models.examples import example_inputs
from hone.signature import Signature, TensorSpec
from tests import goldens
from tests.passes import Bench

KEPT, NOT_COPIED = {"from": "rows.npz"}, {"from": "rows.npz", "keep_rows": False}


@pytest.mark.parametrize("field", ["evaluation", "calibration"])
def test_rows_that_must_not_be_copied_are_in_no_artifact(tmp_path: Path, field: str) -> None:
    bench = Bench(tmp_path, goldens.SIGNATURE, goldens.rows(), **{field: NOT_COPIED})
    made = bench.run("quantize_dynamic", bench.artifact(goldens.network()))
    example = example_inputs(made)
    assert [(array.dtype, array.shape) for array in example.values()] == [
        (np.int64, (2, goldens.LENGTH)),
        (np.float32, (2, goldens.FEATURES)),
    ]
    assert example["ids"].min() >= 0 and example["ids"].max() < goldens.WORDS
    for name, array in example.items():
        assert not any(np.allclose(row, real) for row in array for real in bench.rows[name])
    assert all(np.isfinite(array).all() for array in runtimes.load(made, 1).run(example).values())


def test_rows_that_may_be_copied_are_real(tmp_path: Path) -> None:
    bench = Bench(tmp_path, goldens.SIGNATURE, goldens.rows(), evaluation=KEPT)
    made = bench.run("quantize_dynamic", bench.artifact(goldens.network()))
    assert np.array_equal(example_inputs(made)["ids"], bench.rows["ids"][:2])
    assert json.loads((made.path / EXAMPLE).read_text())["inputs"]["ids"] == bench.rows["ids"][:2].tolist()


def test_no_text_is_made_up(tmp_path: Path) -> None:
    signature = Signature(inputs=(TensorSpec(name="text", dtype="string", shape=("batch",)),))
    rows = {"text": np.array(["a secret", "another"])}
    bench = Bench(tmp_path, signature, rows, evaluation=NOT_COPIED)
    assert PassContext(load_recipe(bench.recipe), signature, lambda _: None).example(2) is None
