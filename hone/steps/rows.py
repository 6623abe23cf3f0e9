"""Data sets as callers have them: what the steps make of a recipe's rows, and whether they still do elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from hone.errors import HoneError, RecipeError, did_you_mean, one_line
from hone.signature import Signature, Tensors, TensorSpec
from hone.steps.base import BYTES, Columns
from hone.steps.pipeline import ReadySteps
from hone.steps.record import Steps

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Of floats that steps make; whole numbers and names must be equal."""


def tensors_of(
    steps: Steps,
    root: Path,
    arrays: Mapping[str, np.ndarray],
    signature: Signature,
    cast: Callable[[np.ndarray, TensorSpec, str], np.ndarray],
    where: str,
) -> tuple[Tensors, Columns]:
    """Return what a recipe's steps make of rows as callers have them, and those; nothing of the model's own tensors.

    Args:
        steps: of the recipe.
        root: that their files are named from.
        arrays: the rows, by name.
        signature: of the source model.
        cast: makes an array of a spec's dtype.
        where: they are from, for messages.

    Raises:
        RecipeError: what the steps take isn't there, or they fail on it.
    """
    if not steps.preprocess:
        return {}, {}
    try:
        before = steps.model_copy(update={"postprocess": ()})
        pipeline = ReadySteps(before, Signature(inputs=signature.inputs), root)
        missing = [name for name in pipeline.inputs if name not in arrays]
        if missing and all(name in arrays for name in signature.input_names):
            return {}, {}
        if missing:
            near = did_you_mean(missing[0], arrays)
            raise RecipeError(f"{where}: no array '{missing[0]}', which the steps take{near}")
        raw = {
            name: _files(arrays[name], name, where) if spec.dtype == BYTES else cast(arrays[name], spec, where)
            for name, spec in pipeline.inputs.items()
        }
        if len({len(array) for array in raw.values()}) > 1:
            raise RecipeError(f"{where}: {', '.join(f'{name} has {len(array)} rows' for name, array in raw.items())}")
        return pipeline.before(raw)[0], raw
    except RecipeError:
        raise
    except HoneError as error:
        raise RecipeError(f"{where}: {error}") from None


def _files(array: np.ndarray, name: str, where: str) -> np.ndarray:
    array = array.astype(object)
    if array.ndim != 1 or not all(isinstance(item, bytes) for item in array):
        raise RecipeError(f"{where}: '{name}' must hold the bytes of a file a row")
    return array


def strayed(pipeline: ReadySteps, raw: Columns, inputs: Tensors, outputs: Tensors, answers: Tensors) -> str:
    """Return how steps do otherwise here than in the proof, in words, or an empty string.

    Args:
        pipeline: made ready here.
        raw: rows as callers have them.
        inputs: the tensors that the proof's steps made of them.
        outputs: the model's answers in the proof.
        answers: what the proof's steps made of those.
    """
    try:
        made, _ = pipeline.tensors(raw) if raw else ({}, None)
        said = pipeline.after(outputs) if answers else {}
    except Exception as error:  # noqa: BLE001 - whatever it is, it isn't what the proof's steps did
        return f"its steps fail: {one_line(error)}"
    for name, array in made.items():
        if not _same(array, inputs[name]):
            return f"its steps make another '{name}' of the same rows than in its proof"
    for name, array in answers.items():
        if name not in said or not _same(said[name], array):
            return f"its steps make another '{name}' of the same outputs than in its proof"
    return ""


def _same(got: np.ndarray, known: np.ndarray) -> bool:
    """Return whether arrays are alike where both have values; fewer rows may be filled up to a shorter longest one."""
    if got.ndim != known.ndim or len(got) > len(known):
        return False
    known = known[tuple(slice(size) for size in got.shape)]
    if got.shape != known.shape:
        return False
    if got.dtype.kind == "f" or known.dtype.kind == "f":
        return bool(np.allclose(got.astype(np.float64), known.astype(np.float64), equal_nan=True, **CLOSE))
    return bool((got.astype(str) == known.astype(str)).all()) if got.dtype.kind in "OUS" else bool((got == known).all())
