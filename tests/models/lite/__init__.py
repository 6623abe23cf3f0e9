"""Small models of LiteRT as files, so that tests of it need no TensorFlow.

`dense.tflite`: a dense layer of 32 with ReLU and one of 3, from `x` [batch, 16] to `y`; `pairs.tflite`: the same for
two rows at a time. `embedding.tflite`: a table of five rows for `ids` [batch, 6]. All are of the pass `litert`.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from hone.artifact import Artifact, Manifest, seal
from hone.signature import Signature, TensorSpec

DENSE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 16)),),
    outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 3)),),
)
IDS = Signature(inputs=(TensorSpec(name="ids", dtype="int32", shape=("batch", 6)),))


def lite_artifact(folder: Path, name: str, signature: Signature = DENSE) -> Artifact:
    """Return one of the models as an artifact in a folder that is not there."""
    folder.mkdir(parents=True)
    shutil.copyfile(Path(__file__).with_name(f"{name}.tflite"), folder / "model.tflite")
    facts = {"name": "small", "runtime": "litert", "precision": "fp32", "entry": "model.tflite"}
    return seal(folder, Manifest(signature=signature, **facts))


def lite_rows(rows: int = 64) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(rows, 16)).astype(np.float32)}
