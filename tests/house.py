"""The house as its code stands: every file, and what it imports, at its top, in its functions and for types only."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("services", "converters", "benchmarks", "k8s", "lifecycle")
"""Folders at the top that are installed inside `hone`."""

ELSEWHERE = "benchmarks/peers/scripts/"
"""Scripts that run in environments of their own, and import nothing of Hone."""


@dataclass(frozen=True)
class Import:
    """One import.

    Attributes:
        file: that imports, relative to the repository.
        line: of it.
        name: the module, `services.routes.paths` for one, whether it is written so, relative or with `hone.` in front.
        inside: of a function: it is imported when that runs.
    """

    file: str
    line: int
    name: str
    inside: bool

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.name}"


@cache
def files() -> dict[str, ast.Module]:
    """Return every Python file of the house, parsed, by its path."""
    folders = ("hone", *ROOMS)
    found = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    places = ((path.relative_to(ROOT).as_posix(), path) for path in found if not path.name.endswith("_pb2.py"))
    linked = tuple(f"hone/{room}/" for room in ROOMS)
    with no_search():
        return {place: ast.parse(path.read_text()) for place, path in places if not place.startswith(linked)}


@contextmanager
def no_search() -> Iterator[None]:
    """Make objects that stay: to look for garbage among them again and again takes longer than to make them."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@cache
def modules() -> dict[str, str]:
    """Return the files by the names that they are imported by."""
    return {place.removesuffix(".py").removesuffix("/__init__").replace("/", "."): place for place in files()}


@cache
def imports() -> tuple[Import, ...]:
    """Return every import of the house's files, of its own modules and of others'."""
    with no_search():
        return tuple(found for file, tree in files().items() for found in _imports(file, tree))


def target(found: Import) -> str | None:
    """Return the file of the house that an import names; None for another package."""
    return modules().get(found.name)


def _imports(file: str, tree: ast.Module) -> Iterator[Import]:
    in_functions = {
        id(inner)
        for outer in ast.walk(tree)
        if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for inner in ast.walk(outer)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _base(file, node)
            names = [_deepest(f"{base}.{alias.name}", base) for alias in node.names]
        else:
            continue
        for name in dict.fromkeys(_plain(name) for name in names):
            yield Import(file, node.lineno, name, id(node) in in_functions)


def _base(file: str, node: ast.ImportFrom) -> str:
    """Return the module that names are taken from, written out when it is relative."""
    if not node.level:
        return _plain(node.module or "")
    package = file.split("/")[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def _deepest(name: str, base: str) -> str:
    return name if name in modules() else base


def _plain(name: str) -> str:
    """Return a module's name from the repository's top: `hone.services` is the folder `services`."""
    rest = name.removeprefix("hone.")
    return rest if rest.split(".")[0] in ROOMS else name
