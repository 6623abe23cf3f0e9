"""A small model with an embedding table."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hone.signature import Signature, TensorSpec


def embedding_bag() -> tuple[onnx.ModelProto, Signature]:
    """Return the mean of three looked-up rows, times a matrix; one row of the table is a hundred times the others."""
    generator = np.random.default_rng(0)
    table = generator.normal(size=(100, 32)).astype(np.float32)
    table[7] *= 100
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], name="lookup"),
        helper.make_node("ReduceMean", ["rows", "axes"], ["mean"], name="mean", keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["y"], name="dense"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 8])],
        [
            numpy_helper.from_array(table, "table"),
            numpy_helper.from_array(np.array([1]), "axes"),
            numpy_helper.from_array(generator.normal(size=(32, 8)).astype(np.float32), "w"),
        ],
    )
    signature = Signature(
        inputs=(TensorSpec(name="ids", dtype="int64", shape=("batch", 3)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 8)),),
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), signature
