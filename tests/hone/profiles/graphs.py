"""Small graphs that ONNX Runtime runs in one way or another, as artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from hone.artifact import Artifact, Manifest, seal
from hone.profiles.measure import Asked
from hone.profiles.rows import batch_of
from hone.signature import Signature, TensorSpec

WIDTH = 16


def artifact(path: Path, graph: str, weights: dict[str, np.ndarray], *axes: int, **manifest: Any) -> Artifact:
    """Return a graph as an artifact.

    Args:
        path: a folder that is not there.
        graph: in ONNX's text form, from `x` to `y`; weights are left out.
        weights: by name.
        axes: of `x` and `y` beside the batch.
        manifest: fields of the manifest.
    """
    parsed = onnx.parser.parse_graph(graph)
    for index, node in enumerate(parsed.node):
        node.name = f"{node.op_type.lower()}_{index}"
    parsed.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    opsets = [onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid("com.microsoft", 1)]
    path.mkdir()
    onnx.save(onnx.helper.make_model(parsed, opset_imports=opsets, ir_version=10), path / "model.onnx")
    specs = [(TensorSpec(name=name, shape=("batch", *axes)),) for name in ("x", "y")]
    facts = {"name": "m", "runtime": "onnx", "precision": "fp32", "entry": "model.onnx", **manifest}
    return seal(path, Manifest(signature=Signature(inputs=specs[0], outputs=specs[1]), **facts))


def matrix(seed: int = 0, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, width**-0.5, (width, width)).astype(np.float32)


def asked(made: Artifact, batch: int = 4, runs: int = 5) -> Asked:
    """Return what to profile: one thread, a few runs."""
    inputs, source = batch_of(made, batch)
    return Asked("m:v", made, 1, "as asked for", inputs, source, batch, runs)
