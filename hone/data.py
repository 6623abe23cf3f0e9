"""Calibration and evaluation data: arrays by input name, from the user's function, an .npz, .csv or .parquet file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import RecipeError, SignatureError, did_you_mean, one_line
from hone.recipe import DataSpec, LoadedRecipe
from hone.recipe.columns import read_columns
from hone.signature import Signature, TensorSpec, as_objects, as_text
from hone.steps.packing import packed_columns, unpacked_columns
from hone.steps.rows import tensors_of
from hone.userload import call, load_function

DEFAULT_LABELS = "label"
SHARE_SEED = 0

_given: ContextVar[dict[tuple[str, str], Any] | None] = ContextVar("given", default=None)
"""What data functions gave, by field and name."""


@dataclass(frozen=True)
class Dataset:
    """Rows to run a model on: inputs by name, each with the rows on axis 0, labels where there are any, columns whose
    values tell rows apart, and what the inputs were made of by the recipe's steps."""

    inputs: dict[str, np.ndarray]
    labels: np.ndarray | None = None
    slices: dict[str, np.ndarray] = field(default_factory=dict)
    raw: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    def head(self, rows: int) -> Dataset:
        return self.slice(0, rows)

    def slice(self, start: int, stop: int) -> Dataset:
        return self.of(np.s_[start:stop])

    def of(self, rows: Any) -> Dataset:
        """Return these rows: their numbers, or a slice of them."""
        labels = None if self.labels is None else self.labels[rows]
        parts = (self.inputs, self.slices, self.raw)
        inputs, slices, raw = ({name: array[rows] for name, array in one.items()} for one in parts)
        return Dataset(inputs, labels, slices, raw)

    def batches(self, size: int) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, self.rows, size):
            yield self.slice(start, start + size).inputs

    @property
    def digest(self) -> str:
        """sha256 over names, dtypes, shapes and bytes: the identity of the data for the pass cache."""
        digest = hashlib.sha256()
        labels = {} if self.labels is None else {DEFAULT_LABELS: self.labels}
        for name, array in {**self.inputs, **labels}.items():
            digest.update(f"{name}{array.dtype}{array.shape}".encode())
            digest.update(repr(array.tolist()).encode() if array.dtype == object else np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_dataset(loaded: LoadedRecipe, field: str, spec: DataSpec, signature: Signature | None) -> Dataset:
    """Load a data set and check it against the signature.

    Args:
        loaded: the recipe; files and modules are looked up beside it.
        field: the recipe field (`calibration`, `evaluation`), for messages.
        spec: what the recipe says about the data.
        signature: the model's inputs; None takes every array as it is.

    Raises:
        RecipeError: the data is missing, or doesn't fit the signature.
    """
    where = f"{loaded.path}: {field}"
    if spec.is_file:
        path = loaded.file(spec.source, f"{field}.from")
        arrays = _grouped(read_columns(path, where), spec, f"{where}: {path.name}")
        labels_key = spec.labels or DEFAULT_LABELS
    else:
        arrays, labels_key = _from_function(_called(spec.source, loaded.root, where), spec, where)
    labels = arrays.pop(labels_key, None)
    if labels is None and spec.labels:
        raise RecipeError(f"{where}: no labels '{spec.labels}'{did_you_mean(spec.labels, arrays)}")
    made, raw = tensors_of(loaded.recipe.steps, loaded.root, arrays, signature, _cast, where) if signature else ({}, {})
    slices = _slices(arrays, spec, signature, where)
    inputs = fit_inputs({**arrays, **made}, signature, where) if signature else arrays
    _check_rows(inputs, labels, slices, where)
    dataset = _part(Dataset(inputs, labels, slices, raw), spec, where)
    return dataset.head(spec.limit) if spec.limit else dataset


def _part(dataset: Dataset, spec: DataSpec, where: str) -> Dataset:
    """Return the share of the rows that a recipe asks for, in the order of the file."""
    if spec.share is None:
        return dataset
    start, stop = (round(part * dataset.rows) for part in spec.share)
    if start == stop:
        raise RecipeError(f"{where}.share: {list(spec.share)} of {dataset.rows} rows is none")
    return dataset.of(np.sort(np.random.default_rng(SHARE_SEED).permutation(dataset.rows)[start:stop]))


def _slices(
    arrays: dict[str, np.ndarray], spec: DataSpec, signature: Signature | None, where: str
) -> dict[str, np.ndarray]:
    """Take the columns that tell rows apart out of the arrays; an input of the model stays there, too."""
    for name in spec.slices:
        if name not in arrays:
            raise RecipeError(f"{where}.slices: no column '{name}'{did_you_mean(name, arrays)}")
        if arrays[name].ndim != 1:
            raise RecipeError(f"{where}.slices: '{name}' has shape {list(arrays[name].shape)}; give one value a row")
    kept = {one.name for one in signature.inputs} if signature else set()
    return {name: arrays[name] if name in kept else arrays.pop(name) for name in spec.slices}


@contextmanager
def called_once() -> Iterator[None]:
    """In here a function gives the rows of a field once: who asks again gets the same."""
    token = _given.set({})
    try:
        yield
    finally:
        _given.reset(token)


def _called(source: str, root: Path, where: str) -> Any:
    """Return what a data function gives; `where` has the recipe's path and field."""
    given = _given.get()
    if given is not None and (where, source) in given:
        return given[where, source]
    value = call(load_function(source, root, where), source, where)
    if given is not None:
        given[where, source] = value
    return value


def _from_function(value: Any, spec: DataSpec, where: str) -> tuple[dict[str, np.ndarray], str]:
    """Accept what users return: a dict of arrays, or (inputs, labels)."""
    labels_key = spec.labels or DEFAULT_LABELS
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], Mapping):
        value = {**value[0], labels_key: value[1]}
    if not isinstance(value, Mapping):
        raise RecipeError(
            f"{where}: {spec.source} returned {type(value).__name__}; return a dict of arrays by input name, "
            "or a tuple (that dict, labels)"
        )
    if value.get(labels_key, labels_key) is None:
        value = {name: array for name, array in value.items() if name != labels_key}
    return {str(name): _as_array(array, f"{where}: '{name}'") for name, array in value.items()}, labels_key


def _as_array(value: Any, where: str) -> np.ndarray:
    try:
        return np.asarray(value)
    except Exception as error:  # rows of several lengths, tensors that can't leave their library
        raise RecipeError(f"{where} is no array: {one_line(error)}") from error


def _grouped(columns: dict[str, np.ndarray], spec: DataSpec, where: str) -> dict[str, np.ndarray]:
    """Put a table's columns side by side where they make up one input."""
    for names in spec.columns.values():
        for name in names:
            if name not in columns:
                raise RecipeError(f"{where} has no column '{name}'{did_you_mean(name, columns)}")
    grouped = {key: np.column_stack([columns[name] for name in names]) for key, names in spec.columns.items()}
    used = {name for names in spec.columns.values() for name in names}
    return {**grouped, **{name: array for name, array in columns.items() if name not in used}}


def fit_inputs(arrays: Mapping[str, np.ndarray], signature: Signature, where: str) -> dict[str, np.ndarray]:
    """Pick the model's inputs out of the arrays, in signature order, cast where nothing is lost but precision.

    Args:
        arrays: by name.
        signature: the model's inputs.
        where: the arrays are from, for messages.

    Raises:
        RecipeError: naming the input that is missing, or whose array has another dtype, shape or number of rows.
    """
    fitted = {}
    for spec in signature.inputs:
        if spec.name not in arrays:
            has = ", ".join(arrays) or "nothing else"
            near = did_you_mean(spec.name, arrays)
            raise RecipeError(
                f"{where}: no array for input '{spec.name}'{near + ' It' if near else '; it'} is {spec.describe()}, "
                f"and the data has {has}"
            )
        fitted[spec.name] = _cast(arrays[spec.name], spec, where)
    try:
        return signature.check(fitted)
    except SignatureError as error:
        raise RecipeError(f"{where}: {error}") from None


def _cast(array: np.ndarray, spec: TensorSpec, where: str) -> np.ndarray:
    _check_axes(array, f"{where}: input '{spec.name}'")
    wanted = spec.numpy_dtype
    if wanted.kind == "O":
        array = array.astype(str).astype(object) if array.dtype.kind in "US" else array
    elif array.dtype != wanted:
        whole = wanted.kind == "f" and array.dtype.kind in "iu"  # as tables hold them; checked below
        if array.dtype.kind != wanted.kind and not whole and not np.can_cast(array.dtype, wanted, "safe"):
            raise RecipeError(f"{where}: input '{spec.name}' has dtype {array.dtype}, expected {spec.dtype}")
        with np.errstate(over="ignore"):
            cast = array.astype(wanted)
        lost = cast != array if whole or wanted.kind in "iu" else np.isinf(cast) & np.isfinite(array)
        if wanted.kind in "iuf" and np.any(lost):
            raise RecipeError(f"{where}: input '{spec.name}' has {array.dtype} values that don't fit {spec.dtype}")
        array = cast
    if spec.source_axes and array.ndim == len(spec.source_axes):
        array = np.ascontiguousarray(array.transpose(spec.source_axes))
    if array.ndim == 1 and len(spec.shape) == 2 and spec.shape[1] == 1:
        array = array[:, None]
    if array.size and array.dtype.kind == "f" and not spec.allow_nan:
        bad = ~np.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if bad.any():
            raise RecipeError(
                f"{where}: input '{spec.name}' has NaN or infinity in {int(bad.sum())} rows, first in row "
                f"{int(np.argmax(bad))}; clean the data, or set allow_nan on the input if the model takes them"
            )
    return np.ascontiguousarray(array) if array.dtype != object else array


def _check_axes(array: np.ndarray, where: str) -> None:
    if not array.ndim:
        raise RecipeError(f"{where} is one value; give an array with the rows on axis 0")


def _check_rows(
    inputs: dict[str, np.ndarray], labels: np.ndarray | None, slices: dict[str, np.ndarray], where: str
) -> None:
    if not inputs:
        raise RecipeError(f"{where}: the data holds no arrays")
    columns = {**inputs, **slices, **({} if labels is None else {"labels": labels})}
    for name, array in columns.items():
        _check_axes(array, f"{where}: {name}")
    counts = {name: len(array) for name, array in columns.items()}
    if len(set(counts.values())) > 1:
        raise RecipeError(f"{where}: rows differ: {', '.join(f'{name} {count}' for name, count in counts.items())}")
    if not next(iter(counts.values())):
        raise RecipeError(f"{where}: the data holds no rows")


def save_dataset(dataset: Dataset, file: Path) -> None:
    """Write a data set as .npz without pickles: strings are kept as fixed-width text."""
    arrays = {f"input.{name}": as_text(array) for name, array in dataset.inputs.items()}
    arrays |= {f"slice.{name}": as_text(array) for name, array in dataset.slices.items()}
    arrays |= packed_columns(dataset.raw, "raw.")
    if dataset.labels is not None:
        arrays["labels"] = as_text(dataset.labels)
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def read_dataset(file: Path) -> Dataset:
    """Read what `save_dataset` wrote."""
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    inputs, slices = (
        {name.removeprefix(kind): array for name, array in arrays.items() if name.startswith(kind)}
        for kind in ("input.", "slice.")
    )
    inputs = {name: as_objects(array) for name, array in inputs.items()}
    return Dataset(inputs, arrays.get("labels"), slices, unpacked_columns(arrays, "raw."))
