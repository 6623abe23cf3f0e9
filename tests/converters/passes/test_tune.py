from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hone.converters.passes.export import tune
from hone.signature import Signature, TensorSpec
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, details


def shifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Add a bias after the last layer: ONNX Runtime fuses the two to a Gemm."""
    model.graph.node[-1].output[0] = "unshifted"
    model.graph.initializer.append(numpy_helper.from_array(np.ones(8, np.float32), "shift"))
    model.graph.node.append(helper.make_node("Add", ["unshifted", "shift"], ["y"], name="shift"))
    return model


def test_measured_choice_keeps_the_graph_and_its_answers(tmp_path: Path) -> None:
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    source = bench.artifact(shifted(perceptron()))
    made = bench.run("tune", source, rounds=3)
    assert made.entry.read_bytes() == source.entry.read_bytes()
    assert set(details(made)["saved_by_each"]) == {"MatMulAddFusion"}
    np.testing.assert_allclose(bench.outputs(made)["y"], bench.outputs(source)["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("together", "left_out"), [(0.8, ["MatMulAddFusion"]), (0.99, [])])
def test_an_optimizer_is_left_out_when_that_pays_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: float, left_out: list[str]
) -> None:
    def timed(choices: dict[str, list[str]], *_: object) -> dict[str, list[float]]:
        seconds = {"": 1.0, "MatMulAddFusion": 0.8, "chosen": together}
        return {name: [seconds[name]] * 9 for name in choices}

    monkeypatch.setattr(tune, "_time", timed)
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    made = bench.run("tune", bench.artifact(shifted(perceptron())))
    assert details(made)["left_out"] == left_out
    assert made.manifest.runtime_options.get("disabled_optimizers", []) == left_out
    assert bench.outputs(made)["y"].shape == (64, 8)


def test_an_optimizer_that_finds_nothing_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    plain = tune._time

    def timed(choices: dict[str, list[str]], *arguments: object) -> dict[str, list[float]]:
        seen.append(list(choices))
        return plain(choices, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tune, "_time", timed)
    bench = Bench(tmp_path, perceptron_signature(), perceptron_rows())
    made = bench.run("tune", bench.artifact(perceptron()), rounds=3)
    assert seen == [[""]]
    assert details(made)["nothing_to_do_for"] == list(tune.SUSPECTS)


def convolutions() -> onnx.ModelProto:
    """Five convolutions with a ReLU each: of the suspects only the fusion of these two has anything to do."""
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for index in range(5):
        width = 3 if index == 0 else 16
        kernel = generator.normal(0, 0.1, (16, width, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(helper.make_node("Conv", [value, f"w{index}"], [f"c{index}"], pads=[1, 1, 1, 1]))
        value = "y" if index == 4 else f"r{index}"
        nodes.append(helper.make_node("Relu", [f"c{index}"], [value]))
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 16, 16, 16])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.slow
def test_a_saving_that_is_not_there_is_not_reported(tmp_path: Path) -> None:
    """Whatever else runs on the host: leaving out a fusion that pays, or that finds nothing, is no saving."""
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 3, 16, 16)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 16, 16, 16)),),
    )
    rows = np.random.default_rng(1).normal(size=(16, 3, 16, 16)).astype(np.float32)
    bench = Bench(tmp_path, signature, {"x": rows})
    source = bench.artifact(convolutions())
    for _ in range(20):
        made = bench.run("tune", source)
        assert details(made)["left_out"] == [] and details(made)["saved"] == 0
