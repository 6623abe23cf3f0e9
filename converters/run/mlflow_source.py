"""A source in MLflow's model registry: `source: {file: "models:/NAME@ALIAS"}`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from hone.artifact import MANIFEST, Artifact
from hone.errors import RecipeError, one_line
from hone.recipe import LoadedRecipe
from hone.recipe.model import MLFLOW_MODEL, PICKLE_SUFFIXES
from hone.store.mlflow_client import VERSION, Place, asked

from ..ensembles.source import merged_source

MLMODEL = "MLmodel"

FILES = {
    "onnx": "data",
    "xgboost": "data",
    "lightgbm": "data",
    "sklearn": "pickled_model",
    "keras": "data",
    "tensorflow": "data",
    "pytorch": "model_data",
}
"""MLflow's flavors that Hone has a source for, with the key of MLmodel that names the model's file or folder."""

NAMES = {"model.lgb": "model.txt", "model.xgb": "model.ubj"}
"""Files that other tools know by another ending."""


@contextmanager
def local_source(loaded: LoadedRecipe) -> Iterator[tuple[LoadedRecipe, str]]:
    """Give a recipe whose source is a file on this host for as long as the context lasts, and say where that is from.

    A recipe that names neither a model of MLflow nor an ensemble is given as it is. MLflow is where MLFLOW_TRACKING_URI
    says, or beside the store.

    Raises:
        RecipeError: there is no such model or alias, or it has no file that Hone reads.
        HoneError: MLflow can't be reached, or refuses.
    """
    name = loaded.recipe.source.file or ""
    if not name.startswith(MLFLOW_MODEL):
        with merged_source(loaded) as given:
            yield given
        return
    field = f"{loaded.path}: source.file"
    with TemporaryDirectory(prefix="hone-mlflow-") as scratch:
        file, words = asked(Place.from_environment(), lambda client: _fetch(client, name, Path(scratch), field))
        if file.name.endswith(PICKLE_SUFFIXES) and not loaded.recipe.source.trust_pickle:
            raise RecipeError(
                f"{field}: {name} is a pickle ({file.name}), and loading a pickle runs code that it contains; set "
                "'trust_pickle: true' if you made it, or log the model as ONNX, skops or .pt2"
            )
        yield loaded.with_source(file), words


def _fetch(client: Any, address: str, scratch: Path, field: str) -> tuple[Path, str]:
    """Download a version; return the model's file, and a line of what it is."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    matched = re.fullmatch(rf"{MLFLOW_MODEL}([^/@]+)(?:@([^/@]+)|/(\d+))", address)
    if matched is None:
        raise RecipeError(f"{field}: '{address}' is not models:/NAME@ALIAS or models:/NAME/NUMBER")
    name, alias, number = matched.groups()
    try:
        version = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, number)
    except MlflowException as error:
        raise RecipeError(f"{field}: MLflow has no {address}: {one_line(error)}") from None
    place = client.get_model_version_download_uri(name, version.version)
    folder = Path(download_artifacts(artifact_uri=place, dst_path=str(scratch)))
    told = f"the source is version {version.version} of MLflow's '{name}'"
    if VERSION in version.tags:
        return _own(folder, address, field), f"{told}, Hone's {name}:{version.tags[VERSION]}"
    return _of_flavor(folder, address, field), told


def _own(folder: Path, address: str, field: str) -> Path:
    """Return the graph of a version that Hone put there, after the check of its hashes."""
    if not (folder / MANIFEST).is_file():
        raise RecipeError(f"{field}: {address} has no {MANIFEST}, although Hone registered it")
    artifact = Artifact.open(folder)
    if artifact.runtime != "onnx":
        raise RecipeError(f"{field}: {address} runs with {artifact.runtime}; only ONNX graphs can be optimized further")
    return artifact.entry


def _of_flavor(folder: Path, address: str, field: str) -> Path:
    """Return the file of a model that MLflow saved."""
    try:
        content = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf-8"))
        flavors: Mapping[str, Any] = content["flavors"]
    except (OSError, yaml.YAMLError, TypeError, KeyError) as error:
        raise RecipeError(f"{field}: {address} has no readable {MLMODEL}: {one_line(error)}") from None
    for flavor, key in FILES.items():
        named = str((flavors.get(flavor) or {}).get(key, ""))
        if not named:
            continue
        found = _file(folder, named)
        if found is not None:
            return found
        raise RecipeError(f"{field}: {address} is of flavor {flavor}, and {named} holds no file that Hone reads")
    have = ", ".join(flavors) or "none"
    raise RecipeError(f"{field}: {address} has the flavors {have}; Hone reads {', '.join(FILES)}")


def _file(folder: Path, named: str) -> Path | None:
    """Return the model's file inside a downloaded folder, under an ending that sources know."""
    root, place = folder.resolve(), (folder / named).resolve()
    if not place.is_relative_to(root):
        return None
    if place.is_dir():
        inner = sorted(path for path in place.glob("model.*") if path.is_file())
        place = inner[0] if inner else place
    if not place.is_file():
        return None
    return place.rename(place.with_name(NAMES[place.name])) if place.name in NAMES else place
