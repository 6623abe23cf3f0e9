from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hone import runtimes
from hone.artifact import Artifact
from hone.converters.graph.quantized_graph import start_ranges_at_zero, store_weights_in_int8
from hone.converters.run.pass_task import PassTask, run_pass
from hone.converters.run.prepare import prepare
from hone.errors import PassError, RecipeError
from tests.later import later
from tests.models.sums import MODEL, write_project
from tests.passes import details, operators

later("torch")


@pytest.fixture
def qat(tmp_path: Path) -> Callable[[Path], Artifact]:
    def run(recipe: Path) -> Artifact:
        source = prepare(recipe, tmp_path / "source", tmp_path / "evaluation").source
        return Artifact.open(run_pass(PassTask("qat", {"epochs": 3}, source, tmp_path / "qat", recipe)))

    return run


def test_torch_model_is_trained_in_int8_and_exported_as_qdq(tmp_path: Path, qat: Callable[[Path], Artifact]) -> None:
    pytest.importorskip("torchao")
    artifact = qat(write_project(tmp_path / "project", train="network:train"))
    assert artifact.manifest.precision == "int8"
    assert details(artifact)["by_operator"] == {"Gemm": 2}
    assert details(artifact)["left_in_float"] == []
    kinds = operators(artifact)
    assert kinds.count("QuantizeLinear") >= 2
    rows = np.random.default_rng(3).normal(size=(256, 4)).astype(np.float32)
    answers = runtimes.load(artifact, 1).run({"features": rows})["scores"].argmax(axis=1)
    assert (answers == (rows.sum(axis=1) > 0)).mean() > 0.9


def test_module_that_takes_its_input_by_position(tmp_path: Path, qat: Callable[[Path], Artifact]) -> None:
    pytest.importorskip("torchao")
    code = (
        MODEL
        + """

def sequence():
    torch.manual_seed(0)
    return train(nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2)), 30)
"""
    )
    recipe = write_project(tmp_path / "project", code, source={"loader": "network:sequence"}, train="network:train")
    artifact = qat(recipe)
    assert artifact.signature.input_names == ["features"]
    assert details(artifact)["by_operator"] == {"Gemm": 2}


def test_qat_without_a_train_hook_names_the_field(tmp_path: Path, qat: Callable[[Path], Artifact]) -> None:
    pytest.importorskip("torchao")
    with pytest.raises(RecipeError, match=r"recipe\.yaml: train: is required by pass 'qat'"):
        qat(write_project(tmp_path / "project"))


def test_hook_that_returns_another_model_is_refused(tmp_path: Path, qat: Callable[[Path], Artifact]) -> None:
    pytest.importorskip("torchao")
    code = MODEL + "\n\ndef renew(model, epochs):\n    return Network()\n"
    with pytest.raises(PassError, match="network:renew must train the model it gets"):
        qat(write_project(tmp_path / "project", code, train="network:renew"))


def gemm(weights: np.ndarray) -> onnx.ModelProto:
    """Return x -> quantized and back -> MatMul with float weights."""
    scale, zero = numpy_helper.from_array(np.float32(0.02), "scale"), numpy_helper.from_array(np.uint8(128), "zero")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="product"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", weights.shape[0]])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", weights.shape[1]])],
        [scale, zero, numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.mark.parametrize("on_grid", [True, False])
def test_weights_on_the_grid_are_stored_without_loss(on_grid: bool) -> None:
    generator = np.random.default_rng(0)
    integers = generator.integers(-127, 128, (16, 8))
    integers[0, 0] = 127
    weights = (integers * 0.013).astype(np.float32)
    if not on_grid:
        weights = (generator.normal(size=(16, 8)) * np.geomspace(0.01, 1, 8)).astype(np.float32)
    model = gemm(weights)
    assert store_weights_in_int8(model) == 1
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert "w" not in stored
    back = stored["w_quantized"] * stored["w_scale"]
    if on_grid:
        assert stored["w_scale"].ndim == 0
        np.testing.assert_allclose(back, weights, rtol=1e-5)
    else:
        assert stored["w_scale"].shape == (8,)
        assert (np.abs(back - weights) <= stored["w_scale"] * 0.51).all()


def test_range_after_a_relu_begins_at_zero() -> None:
    model = gemm(np.ones((4, 2), np.float32))
    model.graph.node.insert(0, helper.make_node("Relu", ["x"], ["positive"]))
    model.graph.node[1].input[0] = "positive"
    del model.graph.initializer[1]
    model.graph.initializer.append(numpy_helper.from_array(np.uint8(5), "zero"))
    assert start_ranges_at_zero(model) == 1
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    quantize, dequantize = model.graph.node[1:3]
    assert quantize.input[1:] == dequantize.input[1:]
    assert stored[quantize.input[2]] == 0
    assert stored[quantize.input[1]] == pytest.approx(0.02 * 250 / 255)
    assert start_ranges_at_zero(model) == 0


def test_weights_beside_float_data_stay_in_float() -> None:
    model = gemm(np.ones((4, 2), np.float32))
    model.graph.node[2].input[0] = "x"
    assert store_weights_in_int8(model) == 0
