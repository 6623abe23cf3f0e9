"""Rows to send: of a file, of the store where this host has the artifact, of what the service shows, or made up."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hone.data import read_columns
from hone.errors import HoneError, did_you_mean, one_line
from hone.signature import Signature, TensorSpec
from hone.store import Entry
from hone.store.rows import read_given, read_rows

from .target import Target

POOL_ROWS = 64
MOST_VALUES = 100_000_000
"""Of rows that are made up: a service says how large they are."""

Pool = dict[str, np.ndarray]


@dataclass(frozen=True)
class Rows:
    """Rows that requests are made of.

    Attributes:
        pool: by input, a row on axis 0; empty where requests are as they were recorded.
        source: where they are from, in words.
        distinct: how many of them differ.
    """

    pool: Pool
    source: str
    distinct: int

    @classmethod
    def of(cls, pool: Pool, source: str) -> Rows:
        return cls(pool, source, count_distinct([pool]))

    @property
    def words(self) -> str:
        return f"{self.distinct:,} distinct row{'s' if self.distinct != 1 else ''}: {self.source}"


def count_distinct(pools: list[Pool]) -> int:
    """Return how many rows differ from all others before them."""
    seen = set()
    for pool in pools:
        rows = min(len(array) if array.ndim else 1 for array in pool.values())
        for row in range(rows):
            seen.add(hash(tuple(_content(array[row] if array.ndim else array) for array in pool.values())))
    return len(seen)


def _content(value: Any) -> bytes:
    array = np.asarray(value)
    return repr(array.tolist()).encode() if array.dtype == object else array.tobytes()


def rows_for(target: Target, file: Path | None = None, entry: Entry | None = None, seed: int = 0) -> Rows:
    """Return the rows that requests are made of.

    Args:
        target: the model; its signature decides names, dtypes and shapes.
        file: `.npz`, `.parquet`, `.csv` (see `hone.data.read_columns`), or `.json` (`{"inputs": {name: rows}}`).
        entry: what is served, where this host's store has it: rows of the evaluation set lie beside it.
        seed: of rows that have to be made up.

    Raises:
        HoneError: the file can't be read, or its rows don't fit the model.
    """
    signature = target.signature
    if file is not None:
        return Rows.of(fit(_read(file, signature), signature, str(file)), str(file))
    if entry is not None and (kept := _kept(entry, signature)) is not None:
        return Rows.of(fit(kept, signature, "stored rows"), f"of the evaluation set, from the store's {entry.tag}")
    if target.example:
        where = f"{target.url}/docs.json"
        return Rows.of(fit(target.example, signature, where), "the service's examples; give more: --data or --traffic")
    generator = np.random.default_rng(seed)
    for spec in signature.inputs:
        if POOL_ROWS * math.prod(axis for axis in spec.shape if isinstance(axis, int)) > MOST_VALUES:
            raise HoneError(f"{target.url}: input '{spec.name}' is {spec.describe()}, too large to make rows of it up")
    made = {spec.name: _random(spec, generator) for spec in signature.inputs}
    return Rows.of(made, "made up; give real ones: --data or --traffic")


def _kept(entry: Entry, signature: Signature) -> Mapping[str, Any] | None:
    """Return the stored rows that have the inputs that the service asks for: its callers', where it has steps."""
    both = [read_given(entry.path), read_rows(entry.path)]
    return next((kept for kept in both if kept and {*signature.input_names} <= kept.keys()), None)


def _read(file: Path, signature: Signature) -> Mapping[str, Any]:
    if file.suffix != ".json":
        return _grouped(read_columns(file, str(file)), signature)
    try:
        inputs = json.loads(file.read_text())["inputs"]
    except FileNotFoundError:
        raise HoneError(f"{file}: no such file") from None
    except KeyError:
        raise HoneError(f'{file}: no "inputs"; write {{"inputs": {{name: rows}}}}') from None
    except (ValueError, TypeError, OSError) as error:
        raise HoneError(f"{file}: can't be read as .json: {one_line(error)}") from None
    if not isinstance(inputs, dict):
        raise HoneError(f'{file}: "inputs" must be an object: {{name: rows}}')
    return inputs


def _grouped(columns: dict[str, np.ndarray], signature: Signature) -> Mapping[str, Any]:
    """Return a table's columns as the one input of a model that takes its rows whole, where they are as many."""
    (spec, *others) = signature.inputs
    whole = not others and len(spec.shape) == 2 and spec.name not in columns
    if not whole or any(array.ndim > 1 for array in columns.values()):
        return columns
    named = [array for name, array in columns.items() if name != "label"]
    return {spec.name: np.column_stack(named)} if len(named) == spec.shape[1] else columns


def fit(arrays: Mapping[str, Any], signature: Signature, where: str) -> Pool:
    """Return rows as a model takes them.

    Raises:
        HoneError: there are none, or they are of another model.
    """
    fitted = {}
    for spec in signature.inputs:
        if spec.name not in arrays:
            raise HoneError(f"{where}: no rows for input '{spec.name}'{did_you_mean(spec.name, arrays)}")
        try:
            array = np.asarray(arrays[spec.name], spec.numpy_dtype)
        except (ValueError, TypeError) as error:
            raise HoneError(f"{where}: input '{spec.name}' is {spec.describe()}: {one_line(error)}") from None
        if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] == 1:
            array = array[:, None]
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
