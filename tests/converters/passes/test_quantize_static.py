from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hone.errors import ArtifactError, PassError, RecipeError
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, cosine, details


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
@pytest.mark.parametrize("activation", ["quint8", "qint8"])
def test_every_layer_is_quantized_and_answers_stay(tmp_path: Path, method: str, activation: str) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(256))
    source = bench.artifact(perceptron())
    artifact = bench.run("quantize_static", source, method=method, activation_type=activation)
    assert details(artifact)["by_operator"] == {"MatMul": 3}
    assert cosine(bench.outputs(artifact)["y"], bench.outputs(source)["y"]) > 0.99
    kinds = {tensor.data_type for tensor in onnx.load(artifact.entry).graph.initializer}
    assert TensorProto.INT8 in kinds
    assert (TensorProto.UINT8 in kinds) == (activation == "quint8")


def test_symmetric_activations_have_no_zero_point(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    artifact = bench.run(
        "quantize_static", bench.artifact(perceptron()), activation_type="qint8", symmetric_activations=True
    )
    graph = onnx.load(artifact.entry).graph
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    zeros = [stored[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert zeros and all(zero == 0 for zero in zeros)


def test_excluded_node_stays_in_float(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    artifact = bench.run("quantize_static", bench.artifact(perceptron()), exclude=["second"])
    assert details(artifact)["left_in_float"] == ["second"]


@pytest.mark.parametrize("name", ["quantize_static", "smooth"])
def test_too_few_rows_are_refused(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows(3))
    with pytest.raises(PassError, match=rf"{name}: 3 calibration row.* give at least 8, .* in .*recipe\.yaml"):
        bench.run(name, bench.artifact(perceptron()))


def test_nan_in_calibration_names_the_row(tmp_path: Path) -> None:
    rows = perceptron_rows()
    rows["x"][5, 0] = np.nan
    bench = Bench(tmp_path, perceptron_signature(), rows)
    with pytest.raises(RecipeError, match=r"calibration: input 'x' has NaN or infinity in 1 rows, first in row 5"):
        bench.run("quantize_static", bench.artifact(perceptron()))


def test_graph_without_products_is_told_so(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 32]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Tanh", ["x"], ["y"])], "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    with pytest.raises(PassError, match="no operator of the graph could be quantized"):
        bench.run("quantize_static", bench.artifact(model))


def test_operator_without_a_kernel_is_named_with_a_remedy(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["narrow"], to=TensorProto.BFLOAT16),
        helper.make_node("Tanh", ["narrow"], ["bent"], name="bend"),
        helper.make_node("Cast", ["bent"], ["y"], to=TensorProto.FLOAT),
    ]
    values: list[Any] = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 32]) for n in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    with pytest.raises(ArtifactError, match=r"Tanh.*'bend'.* keep that operator in float"):
        bench.outputs(bench.artifact(model))
