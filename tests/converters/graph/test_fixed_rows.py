"""Graphs that are made for a number of rows go through the passes that quantize them by calibration rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, cosine

QUANTIZED: list[tuple[list[str], dict[str, Any]]] = [
    (["quantize_static"], {}),
    (["quantize_static"], {"method": "entropy"}),
    (["openvino", "quantize_nncf"], {"max_drop": 0.5}),
    (["openvino", "quantize_nncf"], {"model_type": "transformer"}),
    (["smooth"], {}),
    (["quantize_mixed"], {"max_loss": 5e-4, "max_float_share": 1.0}),
]


@pytest.mark.parametrize("rows", [1, 3, 100])
@pytest.mark.parametrize(("steps", "options"), QUANTIZED)
def test_answers_are_close(tmp_path: Path, steps: list[str], options: dict[str, Any], rows: int) -> None:
    if "quantize_nncf" in steps:
        pytest.importorskip("nncf")
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    model = perceptron()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = rows
    made = source = bench.artifact(model)
    for step in steps:
        made = bench.run(step, made, **(options if step == steps[-1] else {}))
    assert cosine(bench.outputs(made)["y"], bench.outputs(source)["y"]) > 0.99
