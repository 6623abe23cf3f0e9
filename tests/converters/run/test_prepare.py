"""What a run reads once: data functions, though a source asks for rows to read its model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

from hone.converters.run.prepare import prepare
from hone.data import read_dataset
from tests.models.perceptron import CLASSES, FEATURES, perceptron

DATA = f"""
from pathlib import Path

import numpy as np


def rows():
    with (Path(__file__).parent / "calls").open("a") as calls:
        calls.write("called\\n")
    return {{"x": np.random.default_rng().normal(size=(20, {FEATURES})).astype(np.float32)}}
"""


def fixed_graph(folder: Path) -> dict[str, Any]:
    model = perceptron()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, folder / "net.onnx")
    return {"file": "net.onnx"}


def pickled(folder: Path) -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(FEATURES, CLASSES), folder / "net.pt")
    return {"file": "net.pt", "trust_pickle": True}


@pytest.mark.parametrize("save", [fixed_graph, pickled])
def test_a_data_function_is_called_once_for_each_field(tmp_path: Path, save: Any) -> None:
    (tmp_path / "data.py").write_text(DATA)
    signature = {"inputs": {"x": {"shape": ["batch", FEATURES]}}, "outputs": ["y"]}
    content = {"name": "net", "source": save(tmp_path), "evaluation": "data:rows", "signature": signature}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    prepare(recipe, tmp_path / "sources", tmp_path / "evaluation.npz")
    assert (tmp_path / "calls").read_text().count("called") == 1
    recipe.write_text(yaml.safe_dump({**content, "calibration": "data:rows"}))
    prepared = prepare(recipe, tmp_path / "sources", tmp_path / "evaluation.npz")
    assert (tmp_path / "calls").read_text().count("called") == 3
    assert prepared.rows.calibration is not None
    calibration, evaluation = (read_dataset(file) for file in (prepared.rows.calibration, prepared.evaluation))
    assert calibration.digest != evaluation.digest
