"""`hone init`: a commented recipe for a model file, and a stub of the data module that it names."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hone.errors import RecipeError, UnavailableError
from hone.files import atomic_stream, atomic_write
from hone.names import is_name
from hone.recipe import PICKLE_SUFFIXES, load_recipe
from hone.recipe.columns import read_columns
from hone.signature import Signature, as_text

from .. import sources
from .data_module import data_file, data_module
from .first_recipe import NOTHING, UNKNOWN, Asked, recipe_text, too_few
from .rows_file import RowsFile, evaluation_rows, split_rows


@dataclass(frozen=True)
class Written:
    """What `write_recipe` wrote: a recipe, and the data module that it names."""

    recipe: Path
    data: Path | None
    """None: a file has all rows."""
    kept_data: bool
    """The data module was there already, from an earlier recipe of this name with these inputs."""
    notes: tuple[str, ...] = ()
    """What is to be known before it is run: who got which rows, and whether they are enough."""


@dataclass(frozen=True)
class Given:
    """What there is beside a model.

    Attributes:
        evaluation: a file of evaluation rows: the budget is one that they can prove.
        data: a file of rows that are split: some for calibration, the others judge.
        labels: array or column of `data` that holds the right answers; None: variants are compared with the source.
        asked: limits.
    """

    evaluation: Path | None = None
    data: Path | None = None
    labels: str | None = None
    asked: Asked = NOTHING


def write_recipe(
    model: Path,
    target: Path | None,
    *,
    name: str | None = None,
    overwrite: bool = False,
    given: Given | None = None,
) -> Written:
    """Write a recipe for a model file, and a stub of its data module beside it where no file has the rows.

    The module is `data.py`, or has a name of its own where `data.py` is another model's.

    Args:
        model: a model file in a format that tells its framework and runs no code when it is read.
        target: the recipe's file or folder; default `recipe.yaml` beside the model.
        name: the model's name in the store; default: made from the file's name.
        overwrite: replace an existing recipe; a data module is never replaced.
        given: rows and limits.

    Raises:
        RecipeError: a file is missing, unreadable or of an unknown kind, the rows are not what the model takes, the
            name is not valid, or the recipe exists.
    """
    given = given or Given()
    source = source_of(model)
    recipe = _target(model, target)
    if recipe.exists() and not overwrite:
        raise RecipeError(f"{recipe}: exists already; give another file with --out, or remove it")
    if name is not None and not is_name(name):
        raise RecipeError(
            f"--name: '{name}' must be 1-40 of a-z, 0-9, '.', '_', '-', starting and ending with a-z, 0-9"
        )
    signature = _signature(source, model)
    name = name or default_name(model)
    inputs = signature or UNKNOWN
    rows = _rows(source, model, signature, given, recipe)
    stub = "" if rows and rows.split else data_module(recipe.name, source, inputs, evaluation=rows is None)
    data = data_file(recipe, name, stub, inputs)
    kept = data.exists()
    text = recipe_text(name, _from(recipe, model), source, signature, recipe, data, rows, given.asked)
    if stub and not kept:
        atomic_write(data, stub)
    atomic_write(recipe, text)
    return Written(recipe, data if stub else None, kept, _notes(recipe, source, rows))


def _rows(
    source: sources.Source, model: Path, signature: Signature | None, given: Given, recipe: Path
) -> RowsFile | None:
    if given.data is None:
        if given.labels is not None:
            raise RecipeError("--labels: names an array of --data, which is missing")
        return None if given.evaluation is None else evaluation_rows(given.evaluation, _from(recipe, given.evaluation))
    if given.evaluation is not None:
        raise RecipeError("--data and --evaluation: give one of them; --data is split, --evaluation is not")
    if signature is None:
        raise RecipeError(
            f"{model}: tells no inputs, so --data can't be checked against it; hone init {model} writes a recipe to "
            "fill in"
        )
    file = _without_texts(source, model, given.data, given.labels, recipe)
    values = signature.outputs[0].shape[-1] if signature.outputs else 0
    return split_rows(
        file,
        _from(recipe, file),
        signature,
        given.labels,
        calibrates=source.multiplies,
        outputs=values if isinstance(values, int) else 0,
    )


def _without_texts(source: sources.Source, model: Path, file: Path, labels: str | None, recipe: Path) -> Path:
    """Return a file of rows, or where it holds texts and the model has a tokenizer, one of tokens beside the recipe."""
    columns = read_columns(file, "--data")
    texts = [name for name, array in columns.items() if array.dtype.kind in "UOS" and name != labels]
    if len(texts) != 1 or columns[texts[0]].ndim != 1:
        return file
    rows = source.rows_from_texts(model, columns[texts[0]], f"--data: {file}")
    if rows is None:
        return file
    kept = {labels: as_text(columns[labels])} if labels in columns and labels is not None else {}
    target = recipe.parent / f"{file.stem}-tokens.npz"
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_stream(target) as stream:
        np.savez(stream, allow_pickle=False, **rows, **kept)
    return target


def _notes(recipe: Path, source: sources.Source, rows: RowsFile | None) -> tuple[str, ...]:
    """Return who gets which rows, and how many would be enough where these can't prove the budget."""
    if rows is None or not rows.split:
        return ()
    written = load_recipe(recipe).recipe
    notes = [f"all {rows.rows:,} rows of {rows.path.name} judge variants"]
    if rows.calibration:
        whole = rows.calibration + rows.rows
        notes = [f"of {whole:,} rows of {rows.path.name} {rows.calibration:,} calibrate, the other {rows.rows:,} judge"]
    metric, loss = written.quality.metric, written.budget.quality_drop
    against = f"the labels '{rows.labels}'" if rows.labels else "the source's own answers"
    shown = loss if isinstance(loss, str) else f"{loss:g}"
    notes.append(f"metric {metric} against {against}; a loss of {shown} is allowed")
    lack = too_few(source, rows, metric, loss)
    return (*notes, lack) if lack else tuple(notes)


def _from(recipe: Path, file: Path) -> Path:
    """Return a file's path as the recipe is to name it."""
    return Path(os.path.relpath(file.resolve(), recipe.parent.resolve()))


def source_of(model: Path) -> sources.Source:
    """Return the framework of a model file.

    Raises:
        RecipeError: it is missing, of an unknown kind, or one that runs code when it is read.
    """
    if not model.exists():
        raise RecipeError(f"{model}: no such file; give a model file")
    if problem := sources.refused(model):
        raise RecipeError(problem)
    if model.name.endswith(PICKLE_SUFFIXES):
        raise RecipeError(
            f"{model}: a pickle, and loading a pickle runs code that it contains; save the model as .safetensors, "
            ".pt2, .keras, .onnx, .skops or .ubj, or write a recipe with 'trust_pickle: true' if you made it"
        )
    source = sources.for_file(model)
    if source is None and model.is_dir():
        raise RecipeError(sources.not_a_model(model))
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


def default_name(model: Path) -> str:
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
