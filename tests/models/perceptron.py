"""A perceptron of three layers as an ONNX graph, which passes change, and rows for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hone.signature import Signature, TensorSpec

FEATURES, CLASSES = 32, 8


def perceptron_signature() -> Signature:
    return Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", FEATURES)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", CLASSES)),),
    )


def perceptron(
    *, delicate: bool = False, normalized: bool = False, gemm: bool = False, named: bool = True
) -> onnx.ModelProto:
    """Return x -> dense -> relu -> dense -> relu -> dense, nodes named first, second and third.

    Args:
        delicate: the second layer's weights hold one huge value per column, which int8 has no room beside.
        normalized: a LayerNormalization stands before each layer.
        gemm: layers are Gemm with turned weights, as PyTorch exports them, in the place of MatMul.
        named: nodes have names.
    """
    generator = np.random.default_rng(0)
    widths = [FEATURES, 64, 64, CLASSES]
    nodes: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []
    value = "x"
    for index, name in enumerate(("first", "second", "third")):
        matrix = generator.normal(0, widths[index] ** -0.5, (widths[index], widths[index + 1])).astype(np.float32)
        if delicate and name == "second":
            matrix[0] = 60.0
        stored = np.ascontiguousarray(matrix.T) if gemm else matrix
        weights.append(numpy_helper.from_array(stored, f"{name}.weight"))
        if normalized:
            scale = generator.uniform(0.05, 5, widths[index]).astype(np.float32)
            weights.append(numpy_helper.from_array(scale, f"{name}.scale"))
            weights.append(numpy_helper.from_array(scale * 0.1, f"{name}.shift"))
            places = [value, f"{name}.scale", f"{name}.shift"]
            nodes.append(helper.make_node("LayerNormalization", places, [f"{name}_normal"], name=f"{name}_norm"))
            value = f"{name}_normal"
        output = "y" if name == "third" else f"{name}_out"
        operator: dict[str, Any] = {"op_type": "Gemm", "transB": 1} if gemm else {"op_type": "MatMul"}
        nodes.append(helper.make_node(inputs=[value, f"{name}.weight"], outputs=[output], name=name, **operator))
        if name != "third":
            nodes.append(helper.make_node("Relu", [output], [f"{name}_relu"], name=f"{name}_relu"))
        value = f"{name}_relu"
    for node in nodes:
        node.name = node.name if named else ""
    graph = helper.make_graph(
        nodes,
        "perceptron",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def perceptron_rows(count: int = 64) -> dict[str, np.ndarray]:
    rows = np.random.default_rng(1).normal(size=(count, FEATURES)).astype(np.float32)
    return {"x": rows}
