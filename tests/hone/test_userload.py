"""Users' modules: what a name means is decided by the folder of the recipe, in a process that reads several recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.errors import RecipeError
from hone.userload import load_function


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("package", "more"), [("shelf", {"shelf/__init__.py": ""}), ("plain_folder", {})])
def test_packages_of_one_name_are_told_apart_by_the_recipes_folder(
    tmp_path: Path, package: str, more: dict[str, str]
) -> None:
    code = f"from {package}.parts import part\n\n\ndef load():\n    return part"
    for name in ("one", "two", "one"):
        parts = {f"{package}/features.py": code, f"{package}/parts.py": f"part = {name!r}"}
        root = write(tmp_path / name, {**parts, **more})
        assert load_function(f"{package}.features:load", root, "source.loader")() == name


def test_module_beside_the_recipe_stays_loaded(tmp_path: Path) -> None:
    root = write(tmp_path, {"counted.py": "def load():\n    return load"})
    assert load_function("counted:load", root, "x")() is load_function("counted:load", root, "x")()


def test_module_of_a_package_that_is_not_there_is_named(tmp_path: Path) -> None:
    for name, files in (("full", {"rack/features.py": "def load(): ..."}), ("bare", {})):
        write(tmp_path / name, {"rack/__init__.py": "", **files})
    load_function("rack.features:load", tmp_path / "full", "source.loader")
    with pytest.raises(RecipeError, match=r"source.loader: no module 'rack.features' in .*bare"):
        load_function("rack.features:load", tmp_path / "bare", "source.loader")
