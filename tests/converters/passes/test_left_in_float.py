"""Nodes that a recipe leaves out: found by name in every graph, whatever ONNX Runtime's tool calls them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hone.errors import PassError
from tests.models.perceptron import CLASSES, FEATURES, perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench, cosine, details, operators

QUANTIZERS = ["quantize_dynamic", "quantize_static", "quantize_weights"]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, perceptron_signature(), perceptron_rows())


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_products_are_left_out_by_their_own_names(bench: Bench, name: str, gemm: bool) -> None:
    source = bench.artifact(perceptron(gemm=gemm))
    facts = details(bench.run(name, source, exclude=["second"]))
    assert facts["quantized"] == 2 and facts["left_in_float"] == ["second"]


@pytest.mark.parametrize("gemm", [False, True])
@pytest.mark.parametrize("name", QUANTIZERS)
def test_nodes_without_names_are_left_out_by_those_that_they_get(bench: Bench, name: str, gemm: bool) -> None:
    source = bench.artifact(perceptron(gemm=gemm, named=False))
    for given in (source, bench.run("simplify", source)):
        facts = details(bench.run(name, given, exclude=["node_second_out"]))
        assert facts["quantized"] == 2 and facts["left_in_float"] == ["node_second_out"]


def test_simplify_names_nodes_and_no_name_twice(bench: Bench) -> None:
    model = perceptron(named=False)
    model.graph.node[-1].name = "node_first_out"
    names = [node.name for node in onnx.load(bench.run("simplify", bench.artifact(model)).entry).graph.node]
    assert names[0] == "node_first_out_1" and names[-1] == "node_first_out"
    assert all(names) and len(set(names)) == len(names)


@pytest.mark.parametrize("name", [*QUANTIZERS, "smooth"])
@pytest.mark.parametrize(
    ("exclude", "words"), [("secnd", "; did you mean 'second'"), ("/encoder/7", "; hone profile lists the nodes")]
)
def test_a_name_that_no_node_has_is_refused(bench: Bench, name: str, exclude: str, words: str) -> None:
    with pytest.raises(PassError, match=f"{name}: exclude: the model has no '{exclude}'{words}"):
        bench.run(name, bench.artifact(perceptron()), exclude=[exclude])


def product(model: onnx.ModelProto, weight: str) -> onnx.ModelProto:
    """Let the perceptron's first two layers be of one width, and its second one multiply by other weights."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    square = np.random.default_rng(5).normal(0, FEATURES**-0.5, (FEATURES, FEATURES)).astype(np.float32)
    last = np.random.default_rng(6).normal(0, FEATURES**-0.5, (CLASSES, FEATURES)).astype(np.float32)
    stored["first.weight"].CopyFrom(numpy_helper.from_array(square, "first.weight"))
    stored["third.weight"].CopyFrom(numpy_helper.from_array(last, "third.weight"))
    next(node for node in model.graph.node if node.name == "second").input[1] = weight
    model.graph.initializer.remove(stored["second.weight"])
    return model


@pytest.mark.parametrize("exclude", [[], ["first"], ["first", "second"]])
@pytest.mark.parametrize("name", ["quantize_dynamic", "quantize_weights"])
def test_weights_of_two_layers_stay_as_they_are(bench: Bench, name: str, exclude: list[str]) -> None:
    source = bench.artifact(product(perceptron(gemm=True), "first.weight"))
    made = bench.run(name, source, exclude=exclude)
    assert details(made)["left_in_float"] == exclude
    assert cosine(bench.outputs(made)["y"], bench.outputs(source)["y"]) > 0.995
    stored = [tensor for tensor in onnx.load(made.entry).graph.initializer if len(tensor.dims) > 1]
    assert len(stored) <= (3 if exclude == ["first"] else 2) + (name == "quantize_weights") * 2  # its scales


def test_a_product_that_is_computed_keeps_its_name(bench: Bench) -> None:
    model = product(perceptron(gemm=True, delicate=True), "square")
    model.graph.node.insert(0, helper.make_node("Gemm", ["x", "x"], ["square"], name="rows", transA=1))
    source = bench.artifact(model)
    made = bench.run("quantize_dynamic", source)
    assert details(made)["left_in_float"] == ["rows", "second"]
    assert operators(made).count("Transpose") == 1
    assert cosine(bench.outputs(made)["y"], bench.outputs(source)["y"]) > 0.99
    assert details(bench.run("quantize_mixed", source, max_loss=1.0))["layers"] == 2
