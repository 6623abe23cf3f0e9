"""Small models with golden rows, as the proof takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hone import runtimes
from hone.artifact import Artifact, Latency, Manifest, Measurements, Quality, seal
from hone.converters.proof.golden import Taken, Taker
from hone.converters.proof.judge import Judge
from hone.converters.proof.subject import Subject
from hone.data import Dataset, save_dataset
from hone.golden.rows import write_rows
from hone.hardware import host
from hone.signature import Signature, Tensors, TensorSpec

WORDS, LENGTH, WIDTH, FEATURES = 50, 6, 32, 32
SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="ids", dtype="int64", shape=("batch", LENGTH)),
        TensorSpec(name="x", dtype="float32", shape=("batch", FEATURES)),
    ),
    outputs=(
        TensorSpec(name="left", dtype="float32", shape=("batch", 8)),
        TensorSpec(name="right", dtype="float32", shape=("batch", 8)),
    ),
)


def network(seed: int = 0, *, large: bool = False) -> onnx.ModelProto:
    """Return a graph with a table of words, three layers of products and two outputs of one shape.

    Args:
        seed: of its weights.
        large: all weights of a layer are about as large, so that int8 uses its whole range.
    """
    generator = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> np.ndarray:
        values = generator.normal(0, rows**-0.5, (rows, columns))
        if large:
            values = np.abs(generator.uniform(0.8, 1, values.shape)) * np.sign(values + 0.3 * rows**-0.5) * rows**-0.5
        return values.astype(np.float32)

    weights = {
        "words": generator.normal(0, 1, (WORDS, WIDTH)).astype(np.float32),
        "first": matrix(WIDTH + FEATURES, 64),
        "second": matrix(64, 64),
        "third_left": matrix(64, 8),
        "third_right": matrix(64, 8),
    }
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["vectors"], name="look_up"),
        helper.make_node("ReduceMean", ["vectors", "middle"], ["mean"], name="mean", keepdims=0),
        helper.make_node("Concat", ["mean", "x"], ["both"], name="both", axis=1),
        helper.make_node("MatMul", ["both", "first"], ["one"], name="one"),
        helper.make_node("Relu", ["one"], ["one_relu"], name="one_relu"),
        helper.make_node("MatMul", ["one_relu", "second"], ["two"], name="two"),
        helper.make_node("Relu", ["two"], ["two_relu"], name="two_relu"),
        helper.make_node("MatMul", ["two_relu", "third_left"], ["left"], name="three_left"),
        helper.make_node("MatMul", ["two_relu", "third_right"], ["right"], name="three_right"),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", LENGTH]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", FEATURES]),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in ("left", "right")],
        [numpy_helper.from_array(value, name) for name, value in weights.items()]
        + [numpy_helper.from_array(np.array([1]), "middle")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def rows(count: int = 300, seed: int = 1) -> Tensors:
    generator = np.random.default_rng(seed)
    return {
        "ids": generator.integers(0, WORDS, (count, LENGTH)),
        "x": np.abs(generator.normal(size=(count, FEATURES))).astype(np.float32),
    }


def sealed(folder: Path, model: onnx.ModelProto, precision: str = "fp32", **changes: object) -> Artifact:
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    manifest = Manifest(
        name="small", variant=f"onnx-{precision}", runtime="onnx", precision=precision, entry="model.onnx",
        signature=SIGNATURE,
    )  # fmt: skip
    return seal(folder, manifest.model_copy(update=changes))


def proven(artifact: Artifact, data: Tensors, facts: dict[str, object] | None = None) -> Subject:
    """Return an artifact as it is when the proof is through with it."""
    quality = Quality(
        metric="likeness", value=1.0, source=1.0, drop=0.0, max_difference=0.0, mean_difference=0.0, rows=300
    )
    latency = Latency(batch=1, threads=1, p50=0.05, p95=0.1, p99=0.1, mean=0.05, rows_per_s=20000, calls=10)
    measured = Measurements(
        quality=quality, latency=(latency,), peak_rss_mb=1, load_ms=1, size_mb=1, host=facts or host()
    )
    outputs = runtimes.load(artifact, 1).run(data) if artifact.runtime == "onnx" else {}
    return Subject(artifact.manifest.variant, artifact, measurements=measured, _outputs=outputs)


def taken(artifact: Artifact, data: Tensors, scratch: Path, *, real: bool = True) -> Taken:
    """Take golden rows of an artifact, as a run does."""
    scratch.mkdir(parents=True, exist_ok=True)
    save_dataset(Dataset(data), scratch / "evaluation.npz")
    judge = Judge("likeness", True, lambda *_: 1.0)
    return Taker(scratch / "evaluation.npz", scratch, judge, real).take(proven(artifact, data))


def with_golden(folder: Path, artifact: Artifact, golden: Taken, **changes: object) -> Artifact:
    """Return a sealed copy of an artifact that holds golden rows."""
    assert golden.rows is not None, golden.reason
    folder.mkdir(parents=True)
    for name in artifact.manifest.files:
        (folder / name).write_bytes((artifact.path / name).read_bytes())
    write_rows(folder, golden.rows)
    return seal(folder, artifact.manifest.model_copy(update={"golden": golden.record, **changes}))
