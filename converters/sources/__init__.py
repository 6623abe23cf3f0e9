"""Sources: the frameworks that trained models come from, one file each."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from pathlib import Path

from hone.errors import RecipeError, did_you_mean
from hone.recipe import LoadedRecipe

from .base import Source, call_loader, registered

__all__ = ["Source", "all_sources", "for_file", "for_recipe", "get", "not_a_model", "refused"]


@cache
def all_sources() -> dict[str, Source]:
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base":
            importlib.import_module(f"{__name__}.{module.name}")
    return {name: cls() for name, cls in sorted(registered().items())}


def get(name: str) -> Source:
    return all_sources()[name]


def for_file(file: Path) -> Source | None:
    """Return the source whose format a file's ending, or what is in a folder, belongs to."""
    if file.is_dir():
        return next((source for source in all_sources().values() if source.owns_folder(file)), None)
    return next((source for source in all_sources().values() if file.name.endswith(source.suffixes)), None)


def not_a_model(folder: Path) -> str:
    """Say of a folder what would make it a model."""
    return (
        f"{folder}: is a folder, and no model: one of Hugging Face has config.json, with a model_type, and "
        "model.safetensors"
    )


def refused(file: Path) -> str:
    """Say what to do with a model's file that no source reads; empty for any other."""
    return next((said for source in all_sources().values() if (said := source.refuses(file))), "")


def for_recipe(loaded: LoadedRecipe) -> Source:
    """Return the source of a recipe's model: as stated, by the file's ending, or by what the loader returns.

    Raises:
        RecipeError: when none of these tells the framework.
    """
    spec = loaded.recipe.source
    field = f"{loaded.path}: source"
    if spec.python:
        return all_sources()["python"]
    if spec.framework:
        frameworks = all_sources()
        if spec.framework not in frameworks:
            unknown = f"unknown framework '{spec.framework}'{did_you_mean(spec.framework, frameworks)}"
            raise RecipeError(f"{field}.framework: {unknown}")
        return frameworks[spec.framework]
    if spec.file and not spec.loader and (problem := refused(loaded.root / spec.file)):
        raise RecipeError(f"{field}.file: {problem}")
    if spec.file:
        source = for_file(loaded.root / spec.file)
        if source:
            return source
        suffix = Path(spec.file).suffix
        if (loaded.root / spec.file).is_dir() and spec.loader is None:
            raise RecipeError(f"{field}.file: {not_a_model(loaded.root / spec.file)}")
        known = [suffix for source in all_sources().values() for suffix in source.suffixes]
        if spec.loader is None:
            raise RecipeError(
                f"{field}.file: '{suffix}' doesn't tell the framework{did_you_mean(suffix, known)}; "
                "set source.framework"
            )
    model = call_loader(loaded, keep=True)
    for source in all_sources().values():
        if source.owns(model):
            return source
    raise RecipeError(
        f"{field}.loader: {spec.loader} returned {type(model).__module__}.{type(model).__qualname__}, "
        f"which is no model of {', '.join(all_sources())}; set source.framework if it is one"
    )
