"""Exports of modules that are large for one file, or nearly so; the limits are lowered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hone.converters.graph import onnx_graph
from tests.sources import assert_agree, export, ingest, write_recipe

torch = pytest.importorskip("torch")

ROWS = {"x": np.random.default_rng(0).normal(size=(4, 32)).astype(np.float32)}
SIGNATURE = {"inputs": {"x": {"shape": ["batch", 32]}}, "outputs": ["y"]}
TORCH_LIMIT = "torch.onnx._internal.exporter._onnx_program._LARGE_MODEL_THRESHOLD"


@pytest.mark.parametrize(
    ("limit", "files"),
    [(onnx_graph.LIMIT, {"model.onnx"}), (1, {"model.onnx", "model.onnx.data"})],
    ids=["one file", "two files"],
)
def test_weights_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, files: set[str]) -> None:
    monkeypatch.setattr(TORCH_LIMIT, 0)
    monkeypatch.setattr(onnx_graph, "LIMIT", limit)
    (tmp_path / "net.py").write_text("import torch\n\ndef build():\n    return torch.nn.Linear(32, 64)\n")
    work = ingest(write_recipe(tmp_path, {"loader": "net:build"}, ROWS, signature=SIGNATURE), tmp_path / "source")
    made = export(work, tmp_path / "onnx")
    assert {file.name for file in made.path.iterdir() if file.name.startswith("model")} == files
    assert_agree(work, made, ROWS)
