"""Load the user's own Python objects, `module:function`, from the folder of the recipe that names them."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hone.errors import RecipeError, did_you_mean, one_line

REFERENCE = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""A `module:function`, as a pattern."""


def load_function(reference: str, root: Path, field: str) -> Callable[..., Any]:
    """Return the function that `module:function` names; the module is looked up in `root` first.

    Args:
        reference: `module:function`.
        root: the folder of the recipe.
        field: the recipe field that holds the reference, for messages.

    Raises:
        RecipeError: no such module or function, or the module fails to import.
    """
    module_name, _, name = reference.partition(":")
    module = _import(module_name, root, field)
    function = getattr(module, name, None)
    if function is None:
        names = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise RecipeError(f"{field}: module '{module_name}' has no '{name}'{did_you_mean(name, names)}")
    if not callable(function):
        raise RecipeError(f"{field}: '{reference}' is a {type(function).__name__}, not a function")
    return function


def call(function: Callable[..., Any], reference: str, field: str, *arguments: Any) -> Any:
    """Call a user's function; an error in it is reported with the line of the user's code that raised it."""
    try:
        return function(*arguments)
    except Exception as error:
        raise RecipeError(
            f"{field}: {reference} failed{deepest_line(error)}: {type(error).__name__}: {one_line(error)}"
        ) from error


def module_file(reference: str, root: Path) -> Path | None:
    """Return the file of the module that a reference names, without importing it; None when it can't be told."""
    module_name = reference.partition(":")[0]
    candidate = _candidate(module_name, root)
    if candidate:
        return candidate
    try:
        spec = importlib.util.find_spec(module_name)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin else None


def code_digest(reference: str, root: Path) -> str:
    """Return a hash over the module that a reference names and the other Python files of its folder.

    A function's behavior depends on the modules it imports; those beside it are the ones that users edit.
    """
    file = module_file(reference, root)
    if file is None or not file.is_file():
        return reference
    digest = hashlib.sha256(reference.encode())
    beside = sorted(file.parent.glob("*.py")) if file.is_relative_to(root) else [file]
    for path in beside:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _candidate(module_name: str, root: Path) -> Path | None:
    base = root.joinpath(*module_name.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def _import(module_name: str, root: Path, field: str) -> Any:
    package = module_name.partition(".")[0]
    beside = bool(_candidate(module_name, root) or _candidate(package, root))
    if beside and str(root) not in sys.path:
        sys.path.insert(0, str(root))
    if beside and _loaded_from_elsewhere(module_name, root):
        # Another recipe's module or package of the same name: recipes in one process must not see each other's code.
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]
        sys.path.remove(str(root))
        sys.path.insert(0, str(root))
    importlib.invalidate_caches()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            files = [path.stem for path in root.glob("*.py")]
            hint = did_you_mean(module_name, files)
            raise RecipeError(f"{field}: no module '{module_name}' in {root}{hint}") from None
        raise RecipeError(f"{field}: module '{module_name}' needs '{error.name}', which is not installed") from error
    except Exception as error:
        raise RecipeError(
            f"{field}: module '{module_name}' fails to import{deepest_line(error)}: "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error


def _loaded_from_elsewhere(module_name: str, root: Path) -> bool:
    """True when a module, or a package that it is in, is loaded, and not from `root`."""
    parts = module_name.split(".")
    for depth in range(1, len(parts) + 1):
        loaded = sys.modules.get(".".join(parts[:depth]))
        if loaded is None:
            return False
        place, file = root.joinpath(*parts[:depth]).resolve(), getattr(loaded, "__file__", None)
        # A folder without __init__.py is a package without a file.
        places = [Path(file)] if file else [Path(folder) / "__init__.py" for folder in getattr(loaded, "__path__", ())]
        if not {place.with_suffix(".py"), place / "__init__.py"} & {found.resolve() for found in places}:
            return True
    return False


def deepest_line(error: BaseException) -> str:
    """Return ` (file:line)` of the innermost frame that is not in an installed package."""
    trace, place = error.__traceback__, ""
    while trace:
        filename = trace.tb_frame.f_code.co_filename
        if filename != __file__ and "site-packages" not in filename and not filename.startswith("<"):
            place = f" ({Path(filename).name}:{trace.tb_lineno})"
        trace = trace.tb_next
    return place
