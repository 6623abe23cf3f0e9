"""The files of a model in Python: its module, the modules beside it that it imports, and those that a recipe names."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

from hone.errors import RecipeError, did_you_mean, one_line

SKIPPED = "__pycache__"


def pack(root: Path, reference: str, files: tuple[str, ...], out: Path, field: str, newer: Path | None = None) -> str:
    """Copy a model's files to `out`, in the places that they have beside the recipe; return its module's file.

    Args:
        root: the recipe's folder.
        reference: `module:function`.
        files: that the recipe names, or folders.
        out: a folder; it may not be there yet.
        field: of the recipe, for messages.
        newer: folder with those of the files, or folders, that take the place of the recipe's.

    Raises:
        RecipeError: one is missing, lies elsewhere, or is no Python.
    """
    module = reference.partition(":")[0]
    entry = _file_of(root, module)
    if entry is None:
        hint = did_you_mean(module, [file.stem for file in root.glob("*.py")])
        raise RecipeError(f"{field}: no module '{module}' in {root}{hint}")
    wanted = dict.fromkeys(_with_imports(root, module.partition(".")[0], field), root)
    for name in files:
        base = newer if newer is not None and (newer / name).exists() else root
        wanted |= dict.fromkeys(_named(base / name, field), base)
    for file, base in sorted(wanted.items()):
        if not file.resolve().is_relative_to(base.resolve()):
            raise RecipeError(f"{field}: {file} is a link out of {base}; copy it there")
        target = out / file.relative_to(base)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return entry.relative_to(root).as_posix()


def _named(place: Path, field: str) -> list[Path]:
    if not place.exists():
        raise RecipeError(f"{field}.files: {place} does not exist")
    found = [place] if place.is_file() else [file for file in _files_in(place) if file.suffix != ".pyc"]
    if not found:
        raise RecipeError(f"{field}.files: {place} has no files")
    return found


def _file_of(root: Path, module: str) -> Path | None:
    place = root.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _with_imports(root: Path, module: str, field: str) -> set[Path]:
    """Return the files of a module or package in a folder, and of those there that they import, and so on."""
    found: set[Path] = set()
    left, seen = [module], set()
    while left:
        name = left.pop()
        if name in seen:
            continue
        seen.add(name)
        for file in _module_files(root, name):
            found.add(file)
            left += _imported(file, field)
    return found


def _module_files(root: Path, name: str) -> list[Path]:
    if (root / name).is_dir():
        files = [file for file in _files_in(root / name) if file.suffix == ".py"]
        if files:
            return files
    file = root / f"{name}.py"
    return [file] if file.is_file() else []


def _files_in(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and SKIPPED not in file.parts]


def _imported(file: Path, field: str) -> Iterator[str]:
    """Yield the first parts of the names that a module imports; those of its own package come with the package."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise RecipeError(f"{field}: {file.name}{line}: {one_line(error)}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
