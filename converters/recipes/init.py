"""`hone init`: a commented recipe for a model file, and a stub of the data module that it names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from hone.data import read_columns
from hone.errors import RecipeError, UnavailableError
from hone.files import atomic_write
from hone.names import is_name
from hone.recipe import PICKLE_SUFFIXES
from hone.signature import Signature

from .. import sources
from ..proof.verdicts.loss import FEWEST_ROWS
from .data_module import data_file, data_module
from .first_recipe import UNKNOWN, EvaluationFile, recipe_text


@dataclass(frozen=True)
class Written:
    """What `write_recipe` wrote: a recipe, and the data module that it names."""

    recipe: Path
    data: Path | None
    """None: a file has all rows."""
    kept_data: bool
    """The data module was there already, from an earlier recipe of this name with these inputs."""


def write_recipe(
    model: Path,
    target: Path | None,
    *,
    name: str | None = None,
    overwrite: bool = False,
    evaluation: Path | None = None,
) -> Written:
    """Write a recipe for a model file, and a stub of its data module beside it.

    The module is `data.py`, or has a name of its own where `data.py` is another model's.

    Args:
        model: a model file in a format that tells its framework and runs no code when it is read.
        target: the recipe's file or folder; default `recipe.yaml` beside the model.
        name: the model's name in the store; default: made from the file's name.
        overwrite: replace an existing recipe; a data module is never replaced.
        evaluation: an .npz or .parquet file of evaluation rows: the budget is one that they can prove.

    Raises:
        RecipeError: a file is missing, unreadable or of an unknown kind, the name is not valid, or the recipe exists.
    """
    source = _source(model)
    recipe = _target(model, target)
    if recipe.exists() and not overwrite:
        raise RecipeError(f"{recipe}: exists already; give another file with --out, or remove it")
    if name is not None and not is_name(name):
        raise RecipeError(
            f"--name: '{name}' must be 1-40 of a-z, 0-9, '.', '_', '-', starting and ending with a-z, 0-9"
        )
    signature = _signature(source, model)
    name = name or _name(model)
    inputs = signature or UNKNOWN
    rows = None if evaluation is None else _evaluation(evaluation, recipe)
    stub = data_module(recipe.name, source, inputs, evaluation=rows is None)
    data = data_file(recipe, name, stub, inputs)
    kept = data.exists()
    text = recipe_text(name, _from(recipe, model), source, signature, recipe, data, rows)
    if stub and not kept:
        atomic_write(data, stub)
    atomic_write(recipe, text)
    return Written(recipe, data if stub else None, kept)


def _from(recipe: Path, file: Path) -> Path:
    """Return a file's path as the recipe is to name it."""
    return Path(os.path.relpath(file.resolve(), recipe.parent.resolve()))


def _evaluation(file: Path, recipe: Path) -> EvaluationFile:
    if file.suffix not in (".npz", ".parquet"):
        raise RecipeError(
            f"--evaluation: {file}: give an .npz or .parquet file; a function goes into the recipe by hand"
        )
    columns = read_columns(file, "--evaluation")
    rows = min((len(column) if column.ndim else 0 for column in columns.values()), default=0)
    if rows < FEWEST_ROWS:
        raise RecipeError(
            f"--evaluation: {file}: {rows} row(s) are too few to tell anything; give {FEWEST_ROWS} or more"
        )
    return EvaluationFile(_from(recipe, file), rows)


def _source(model: Path) -> sources.Source:
    if not model.is_file():
        raise RecipeError(f"{model}: no such file; give a model file")
    if model.name.endswith(PICKLE_SUFFIXES):
        raise RecipeError(
            f"{model}: a pickle, and loading a pickle runs code that it contains; save the model as .safetensors, "
            ".pt2, .keras, .onnx, .skops or .ubj, or write a recipe with 'trust_pickle: true' if you made it"
        )
    source = sources.for_file(model)
    if source is None:
        known = {suffix for each in sources.all_sources().values() for suffix in each.suffixes} - {*PICKLE_SUFFIXES}
        raise RecipeError(
            f"{model}: '{model.suffix}' tells no framework; known: {', '.join(sorted(known - {'.pickle'}))}. "
            "Any other model goes through source.loader in a recipe of your own"
        )
    return source


def _target(model: Path, target: Path | None) -> Path:
    if target is None:
        return model.parent / "recipe.yaml"
    return target / "recipe.yaml" if target.is_dir() else target


def _name(model: Path) -> str:
    """Make a valid name of the file's; a bare `model` takes the folder's instead, which says more."""
    stem = model.stem if model.stem != "model" else model.resolve().parent.name
    text = re.sub(r"[^a-z0-9._-]+", "-", stem.lower())[:40].strip("._-")
    return text if is_name(text) else "model"


def _signature(source: sources.Source, model: Path) -> Signature | None:
    try:
        return source.inspect(model)
    except UnavailableError:
        # The recipe can be written without the framework; only the inputs then have to be filled in by hand.
        return None
