from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from hone.converters.graph.execution import BATCH_ROWS, equal_batches, run_rows
from hone.data import Dataset
from hone.errors import PassError
from tests.models.dense import FEATURES, dense_onnx

ROWS = Dataset({"features": np.random.default_rng(0).normal(size=(2 * BATCH_ROWS + 3, FEATURES)).astype(np.float32)})


def test_every_row_is_answered_in_order(tmp_path: Path) -> None:
    file = dense_onnx(tmp_path / "dense.onnx")
    batches = [outputs["scores"] for outputs in run_rows(file, ROWS, "smooth")]
    assert [len(batch) for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 3]
    alone = [next(run_rows(file, ROWS.slice(row, row + 1), "smooth"))["scores"] for row in (0, ROWS.rows - 1)]
    np.testing.assert_allclose(np.concatenate(batches)[[0, -1]], np.concatenate(alone), rtol=1e-5)


def test_graph_that_fails_is_an_error_of_the_step(tmp_path: Path) -> None:
    file = dense_onnx(tmp_path / "dense.onnx")
    with pytest.raises(PassError, match=r"^smooth: the graph fails on the calibration rows: .*features"):
        list(run_rows(file, Dataset({"features": np.zeros((2, FEATURES + 1), np.float32)}), "smooth"))


def test_equal_batches_leave_out_what_is_over() -> None:
    assert [len(batch["features"]) for batch in equal_batches(ROWS)] == [BATCH_ROWS, BATCH_ROWS]
    assert [len(batch["features"]) for batch in equal_batches(ROWS.head(5))] == [5]


def fixed_to(rows: int, folder: Path) -> Path:
    """Write a model that is made for a number of rows, and resists to take any other."""
    file = dense_onnx(folder / "dense.onnx")
    model = onnx.load(file)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = rows
    onnx.save(model, file)
    return file


@pytest.mark.parametrize("size", [1, 2, 50])
def test_a_graph_for_a_number_of_rows_gets_so_many(tmp_path: Path, size: int) -> None:
    (tmp_path / "free").mkdir()
    free = run_rows(dense_onnx(tmp_path / "free" / "dense.onnx"), ROWS, "smooth")
    file = fixed_to(size, tmp_path)
    found = np.concatenate([outputs["scores"] for outputs in run_rows(file, ROWS, "smooth")])
    np.testing.assert_allclose(found, np.concatenate([outputs["scores"] for outputs in free]), rtol=1e-5)
    batches = [batch["features"] for batch in equal_batches(ROWS, file)]
    assert [len(batch) for batch in batches] == [size] * max(1, ROWS.rows // size)
    np.testing.assert_array_equal(np.concatenate(batches)[: ROWS.rows], ROWS.inputs["features"][: len(batches) * size])
