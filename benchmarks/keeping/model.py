"""A model whose inference costs next to nothing, so that what is kept of its traffic weighs most."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hone import store
from hone.artifact import Manifest, Selection, seal
from hone.signature import Signature, TensorSpec
from hone.sketches.reference import FILE, make_references

NAME = "keeping"
FEATURES, CLASSES = 50, 10
PROOF_ROWS = 3000


def rows(count: int) -> np.ndarray:
    """Return rows, always the same."""
    return np.random.default_rng(0).normal(size=(count, FEATURES)).astype(np.float32)


def store_small_model(folder: Path) -> str:
    """Put a softmax of 50 features into a store of its own, with a reference of its proof's rows; return its tag."""
    (folder / "home" / "models").mkdir(parents=True)
    os.environ["BENTOML_HOME"] = str(folder / "home")
    made = folder / "model"
    made.mkdir()
    weights = np.random.default_rng(1).normal(size=(FEATURES, CLASSES)).astype(np.float32)
    onnx.save(_softmax(weights), made / "model.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", FEATURES)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", CLASSES)),),
    )
    known = rows(PROOF_ROWS)
    powers = np.exp(known @ weights)
    references = make_references(
        signature, {"x": known}, {"y": powers / powers.sum(axis=1, keepdims=True)}, private=False
    )
    assert references is not None
    (made / FILE).write_text(references.model_dump_json())
    manifest = Manifest(
        name=NAME, variant="onnx-fp32", runtime="onnx", precision="fp32", entry="model.onnx", signature=signature,
        drift=FILE, selection=Selection(run="20260101-000000-0000", rank=0, eligible=True),
    )  # fmt: skip
    return store.put(seal(made, manifest), NAME, "onnx-fp32").tag


def _softmax(weights: np.ndarray) -> onnx.ModelProto:
    sides = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
        for name, width in (("x", FEATURES), ("y", CLASSES))
    ]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Softmax", ["h"], ["y"], axis=1)]
    graph = helper.make_graph(nodes, NAME, sides[:1], sides[1:], [numpy_helper.from_array(weights, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
