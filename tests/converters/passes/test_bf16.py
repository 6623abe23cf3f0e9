"""bfloat16 graphs run on GPUs; here ONNX's reference implementation computes them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from hone.converters.passes.quantize.bf16 import KEEP_FLOAT, Options, _as_bfloat16, to_bfloat16
from hone.errors import PassError
from hone.hardware import gpu_name
from tests.models.perceptron import perceptron, perceptron_rows
from tests.passes import cosine


def test_graph_computes_in_bfloat16_between_float_ends() -> None:
    model = perceptron()
    (wanted,) = ReferenceEvaluator(model).run(None, perceptron_rows())
    assert to_bfloat16(model, KEEP_FLOAT) == 3
    onnx.checker.check_model(model, full_check=True)
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.BFLOAT16}
    assert model.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    assert len(casts) == 2
    (got,) = ReferenceEvaluator(model).run(None, perceptron_rows())
    assert got.dtype == np.float32
    assert 0.999 < cosine(got, wanted) < 1


def test_operator_that_stays_in_float_gets_casts_and_keeps_its_own_weights() -> None:
    model = perceptron(normalized=True)
    to_bfloat16(model, {*KEEP_FLOAT, "LayerNormalization"})
    onnx.checker.check_model(model, full_check=True)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["first.weight"] == TensorProto.BFLOAT16
    assert kinds["first.scale"] == TensorProto.FLOAT
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    types = {value.name: value.type.tensor_type.elem_type for value in inferred.graph.value_info}
    norms = [node for node in model.graph.node if node.op_type == "LayerNormalization"]
    assert {types[node.output[0]] for node in norms} == {TensorProto.FLOAT}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert {types[node.input[0]] for node in products} == {TensorProto.BFLOAT16}


def test_constants_and_casts_inside_follow() -> None:
    nodes = [
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Cast", ["ids"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["numbers", "half"], ["product"]),
        helper.make_node("Add", ["product", "x"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch"]),
              helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch"])]  # fmt: skip
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    to_bfloat16(model, KEEP_FLOAT)
    onnx.checker.check_model(model, full_check=True)
    rows = {"ids": np.array([2, 4]), "x": np.array([1.0, -1.0], np.float32)}
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, rows)[0], [2.0, 1.0])


def test_rounding_is_to_nearest_even_and_keeps_infinities() -> None:
    values = np.array([1.0, 1.00390625, 1.01171875, -3e38, np.inf, -np.inf, np.nan], np.float32)
    tensor = _as_bfloat16(numpy_helper.from_array(values, "w"))
    back = numpy_helper.to_array(tensor).astype(np.float32)
    np.testing.assert_array_equal(back[:3], np.float32([1.0, 1.0, 1.015625]))
    assert np.isinf(back[4]) and np.isinf(back[5]) and np.isnan(back[6])
    assert back[3] == pytest.approx(-3e38, rel=0.01)


def test_graph_inside_a_node_is_named() -> None:
    branch = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "b", [],
                               [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)])  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], name="choice", then_branch=branch, else_branch=branch)
    graph = helper.make_graph([node], "g", [], [])
    with pytest.raises(PassError, match=r"node 'choice' \(If\) has a graph inside"):
        to_bfloat16(helper.make_model(graph), KEEP_FLOAT)


@pytest.mark.skipif(gpu_name() is not None, reason="this host has a GPU")
def test_host_without_gpu_skips_the_variant() -> None:
    missing = Options().missing("onnx")
    assert missing is not None
    assert "CUDA provider, which this host lacks" in str(missing)
