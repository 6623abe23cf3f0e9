"""Request bodies: real rows of the artifact where it keeps some, else random ones of its signature."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from hone.artifact import Artifact
from hone.signature import TensorSpec

EXAMPLE = "example.json"
POOL_ROWS = 64


def bodies(artifact: Artifact, rows: int, seed: int = 0, count: int = 16) -> list[bytes]:
    """Return different JSON bodies for `/predict`, each with this many rows.

    Args:
        artifact: its signature decides names, dtypes and shapes.
        rows: on the batch axis of every input.
        seed: of the choice of rows.
        count: how many bodies.
    """
    generator = np.random.default_rng(seed)
    pool = _pool(artifact, generator)
    made = []
    for _ in range(count):
        index = generator.integers(0, len(next(iter(pool.values()))), rows)
        inputs = {name: [values[i] for i in index] for name, values in pool.items()}
        made.append(json.dumps({"inputs": inputs}).encode())
    return made


def _pool(artifact: Artifact, generator: np.random.Generator) -> dict[str, list[Any]]:
    file = artifact.path / EXAMPLE
    if EXAMPLE in artifact.manifest.files:
        inputs: dict[str, list[Any]] = json.loads(file.read_text())["inputs"]
        return inputs
    return {spec.name: _random(spec, generator) for spec in artifact.signature.inputs}


def _random(spec: TensorSpec, generator: np.random.Generator) -> list[Any]:
    shape = spec.example(POOL_ROWS).shape
    kind = spec.numpy_dtype.kind
    if kind == "O":
        return np.full(shape, "a", dtype=object).tolist()
    if kind == "b":
        return (generator.random(shape) < 0.5).tolist()
    if kind == "f":
        return np.round(generator.random(shape), 4).tolist()
    return generator.integers(0, 4, shape).tolist()
