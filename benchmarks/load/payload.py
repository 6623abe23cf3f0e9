"""Rows to send: of a file, of the artifact where this host has it, of the service's documentation, or made up."""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hone.artifact import EXAMPLE, Artifact
from hone.errors import HoneError, did_you_mean, one_line
from hone.signature import Signature, TensorSpec

from .target import Target

POOL_ROWS = 64
REQUESTS = 16
MOST_VALUES = 100_000_000
"""Of rows that are made up: a service says how large they are."""

Pool = dict[str, np.ndarray]


def rows_for(target: Target, file: Path | None = None, artifact: Artifact | None = None, seed: int = 0) -> Pool:
    """Return the rows that requests are drawn from, by input.

    Args:
        target: the model; its signature decides names, dtypes and shapes.
        file: `.npz` with an array an input, or `.json` (`{"inputs": {name: rows}}`).
        artifact: what is served, where this host has it: it keeps some real rows.
        seed: of rows that have to be made up.

    Raises:
        HoneError: the file can't be read, or its rows don't fit the model.
    """
    if file is not None:
        return _fit(_read(file), target.signature, str(file))
    if artifact is not None and EXAMPLE in artifact.manifest.files:
        return _fit(json.loads((artifact.path / EXAMPLE).read_text())["inputs"], target.signature, EXAMPLE)
    if target.example:
        return _fit(target.example, target.signature, f"{target.url}/docs.json")
    generator = np.random.default_rng(seed)
    for spec in target.signature.inputs:
        if POOL_ROWS * math.prod(axis for axis in spec.shape if isinstance(axis, int)) > MOST_VALUES:
            raise HoneError(f"{target.url}: input '{spec.name}' is {spec.describe()}, too large to make rows of it up")
    return {spec.name: _random(spec, generator) for spec in target.signature.inputs}


def requests(pool: Pool, signature: Signature, rows: int, seed: int = 0, count: int = REQUESTS) -> list[Pool]:
    """Return the inputs of different requests, each of so many rows drawn from the pool.

    A model whose inputs don't all have the batch axis first takes the pool as it is.

    Raises:
        HoneError: several rows for a model that takes one thing at a time.
    """
    if not all(spec.batchable for spec in signature.inputs):
        if rows > 1:
            raise HoneError("the model has no batch axis: --rows must be 1")
        return [pool]
    generator = np.random.default_rng(seed)
    available = len(next(iter(pool.values())))
    drawn = (generator.integers(0, available, rows) for _ in range(count))
    return [{name: values[index] for name, values in pool.items()} for index in drawn]


def _read(file: Path) -> Mapping[str, Any]:
    try:
        if file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        content = json.loads(file.read_text())
        inputs = content["inputs"]
    except FileNotFoundError:
        raise HoneError(f"{file}: no such file") from None
    except KeyError:
        raise HoneError(f'{file}: no "inputs"; write {{"inputs": {{name: rows}}}}') from None
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise HoneError(f"{file}: can't be read as .npz or .json: {one_line(error)}") from None
    if not isinstance(inputs, dict):
        raise HoneError(f'{file}: "inputs" must be an object: {{name: rows}}')
    return inputs


def _fit(arrays: Mapping[str, Any], signature: Signature, where: str) -> Pool:
    fitted = {}
    for spec in signature.inputs:
        if spec.name not in arrays:
            raise HoneError(f"{where}: no rows for input '{spec.name}'{did_you_mean(spec.name, arrays)}")
        try:
            array = np.asarray(arrays[spec.name], spec.numpy_dtype)
        except (ValueError, TypeError) as error:
            raise HoneError(f"{where}: input '{spec.name}' is {spec.describe()}: {one_line(error)}") from None
        wrong = array.ndim != len(spec.shape) or any(
            isinstance(axis, int) and axis != size for axis, size in zip(spec.shape, array.shape, strict=True)
        )
        if wrong or not array.size:
            raise HoneError(f"{where}: input '{spec.name}' has shape {list(array.shape)}, the model {spec.describe()}")
        fitted[spec.name] = array
    if len({len(array) for array in fitted.values()}) > 1 and signature.batchable:
        counts = ", ".join(f"{name} {len(array)}" for name, array in fitted.items())
        raise HoneError(f"{where}: the inputs have different numbers of rows: {counts}")
    return fitted


def _random(spec: TensorSpec, generator: np.random.Generator) -> np.ndarray:
    shape, dtype = spec.example(POOL_ROWS).shape, spec.numpy_dtype
    if dtype.kind == "O":
        return np.full(shape, "a", dtype=object)
    if dtype.kind == "b":
        return generator.random(shape) < 0.5
    if dtype.kind == "f":
        return np.round(generator.random(shape), 4).astype(dtype)
    return generator.integers(0, 4, shape).astype(dtype)
