"""Why a model is to be trained again: the schedule, new rows, drift, lost quality, or somebody who asks."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hone.errors import RecipeError, UnavailableError, one_line
from hone.recipe import LoadedRecipe, RetrainSpec

from .journal import Journal, Run, now

WINDOW = timedelta(days=30)
"""That `retrain.runs` counts in."""


def spec_of(loaded: LoadedRecipe) -> RetrainSpec:
    """Return what a recipe says of retraining.

    Raises:
        RecipeError: nothing.
    """
    if loaded.recipe.retrain is None:
        raise RecipeError(f"{loaded.path}: retrain is missing: say how the model is trained, such as retrain.command")
    return loaded.recipe.retrain


def due(
    loaded: LoadedRecipe,
    journal: Journal,
    since: datetime,
    drifted: Callable[[str], str] = lambda name: "",
    degraded: Callable[[str], str] = lambda name: "",
) -> str:
    """Return why a run should begin now; empty when nothing asks for one, or when it is too early.

    Args:
        since: when the watch began: a schedule isn't behind from before that.
        drifted: says of a model in words that it has drifted; asked where `retrain.drift` is set.
        degraded: the same of quality that is lost; asked where `retrain.quality` is set.

    Raises:
        RecipeError: the schedule or the data file is wrong.
    """
    spec, last = spec_of(loaded), journal.last()
    if last is not None and not last.ended:
        return f"the run of {last.began} was cut off"
    if asked := journal.asked():
        return asked
    if rested(spec, journal.ended()):
        return (
            _scheduled(loaded, spec, last, since)
            or _grown(loaded, spec, last)
            or (drifted(loaded.recipe.name) if spec.drift else "")
            or (degraded(loaded.recipe.name) if spec.quality else "")
        )
    return ""


def rested(spec: RetrainSpec, past: list[Run], at: datetime | None = None) -> bool:
    """Return whether the last run is long enough ago, and those of the last month are few enough."""
    at = at or now()
    begun = [datetime.fromisoformat(run.began) for run in past]
    if begun and at - begun[-1] < timedelta(hours=spec.cooldown_h):
        return False
    own = [when for when, run in zip(begun, past, strict=True) if not run.by_hand and at - when < WINDOW]
    return len(own) < spec.runs


def next_time(loaded: LoadedRecipe, schedule: str, after: datetime) -> datetime:
    """Return when a schedule comes round next.

    Raises:
        RecipeError: it is none.
        UnavailableError: cronsim isn't installed.
    """
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise UnavailableError("cronsim is not installed", "pip install 'hone[ops]'") from None
    try:
        found: datetime = next(CronSim(schedule, after.astimezone(UTC)))
    except (CronSimError, StopIteration) as error:
        raise RecipeError(
            f"{loaded.path}: retrain.schedule: '{schedule}': {one_line(error) or 'never comes'}"
        ) from None
    return found


def _scheduled(loaded: LoadedRecipe, spec: RetrainSpec, last: Run | None, since: datetime) -> str:
    if spec.schedule is None:
        return ""
    after = max(since, datetime.fromisoformat(last.began)) if last else since
    return f"schedule {spec.schedule}" if next_time(loaded, spec.schedule, after) <= now() else ""


def _grown(loaded: LoadedRecipe, spec: RetrainSpec, last: Run | None) -> str:
    if spec.new_rows is None:
        return ""
    rows, before = count_rows(loaded), last.rows if last else 0
    return f"{rows - before} new rows in {spec.new_rows.file}" if rows - before >= spec.new_rows.rows else ""


def count_rows(loaded: LoadedRecipe) -> int:
    """Return how many rows the watched data file holds; 0 where none is watched.

    Raises:
        RecipeError: it isn't there, or is no such file.
    """
    watched = spec_of(loaded).new_rows
    if watched is None:
        return 0
    file = loaded.file(watched.file, "retrain.new_rows.file")
    try:
        return _rows_of(file)
    except (OSError, ValueError, zipfile.BadZipFile) as error:  # those of pyarrow are ValueErrors
        raise RecipeError(f"{loaded.path}: retrain.new_rows.file: {file}: {one_line(error)}") from None


def _rows_of(file: Path) -> int:
    if file.suffix == ".parquet":
        from pyarrow import parquet

        return int(parquet.read_metadata(file).num_rows)
    import numpy as np

    with np.load(file, allow_pickle=False) as arrays:
        return max((len(arrays[name]) for name in arrays.files if arrays[name].ndim), default=0)
