"""Small real models for tests, built as ONNX graphs and sealed as artifacts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hone.artifact import Artifact, Manifest, Selection, seal
from hone.signature import Signature, TensorSpec

FEATURES, CLASSES = 4, 3


def weights(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return (
        generator.normal(size=(FEATURES, CLASSES)).astype(np.float32),
        generator.normal(size=CLASSES).astype(np.float32),
    )


def dense_onnx(path: Path, seed: int = 0) -> Path:
    """Write `scores = features @ W + b` with a dynamic batch axis."""
    matrix, bias = weights(seed)
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["features", "W", "b"], ["scores"], name="dense")],
        "dense",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(matrix, "W"), numpy_helper.from_array(bias, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


def dense_signature(*, allow_nan: bool = False) -> Signature:
    return Signature(
        inputs=(TensorSpec(name="features", dtype="float32", shape=("batch", FEATURES), allow_nan=allow_nan),),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=("batch", CLASSES)),),
    )


def dense_answer(features: np.ndarray, seed: int = 0) -> np.ndarray:
    matrix, bias = weights(seed)
    return features @ matrix + bias


def dense_artifact(
    path: Path,
    *,
    name: str = "dense",
    variant: str = "onnx-fp32",
    run: str = "20260101-000000-0000",
    rank: int = 0,
    eligible: bool = True,
    seed: int = 0,
    allow_nan: bool = False,
) -> Artifact:
    """Return a sealed ONNX artifact of the dense model."""
    path.mkdir(parents=True)
    dense_onnx(path / "model.onnx", seed)
    return seal(
        path,
        Manifest(
            name=name,
            variant=variant,
            runtime="onnx",
            precision="fp32",
            entry="model.onnx",
            signature=dense_signature(allow_nan=allow_nan),
            selection=Selection(run=run, rank=rank, eligible=eligible),
        ),
    )
