"""A model that is slow on purpose: two cores can send several times what it holds, which no small model allows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hone import store
from hone.artifact import Manifest, Selection, seal
from hone.signature import Signature, TensorSpec

NAME = "overload"
FEATURES, WIDTH = 16, 256
LAYERS = 300
"""Products of WIDTH x WIDTH, one after the other: about 40 million operations a row."""


def store_slow_model(folder: Path, layers: int = LAYERS) -> store.Entry:
    """Put a slow model into the store: a chain of layers that share one matrix, so that its file is small.

    Args:
        folder: where it is made; must not be there yet.
        layers: products of a row.
    """
    folder.mkdir(parents=True)
    onnx.save(_chain(layers), folder / "model.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", FEATURES)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", FEATURES)),),
    )
    manifest = Manifest(
        name=NAME, variant="onnx-fp32", runtime="onnx", precision="fp32", entry="model.onnx", signature=signature,
        selection=Selection(run="20260101-000000-0000", rank=0, eligible=True),
    )  # fmt: skip
    return store.put(seal(folder, manifest), NAME, "onnx-fp32")


def _chain(layers: int) -> onnx.ModelProto:
    random = np.random.default_rng(0)
    shapes = {"first": (FEATURES, WIDTH), "middle": (WIDTH, WIDTH), "last": (WIDTH, FEATURES)}
    weights = [
        numpy_helper.from_array((random.normal(size=shape) / shape[0] ** 0.5).astype(np.float32), name)
        for name, shape in shapes.items()
    ]
    nodes = [helper.make_node("MatMul", ["x", "first"], ["h0"])]
    for layer in range(layers):
        nodes += [
            helper.make_node("MatMul", [f"h{layer}", "middle"], [f"m{layer}"]),
            helper.make_node("Tanh", [f"m{layer}"], [f"h{layer + 1}"]),
        ]
    nodes.append(helper.make_node("MatMul", [f"h{layers}", "last"], ["y"]))
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", FEATURES]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, NAME, sides[:1], sides[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
