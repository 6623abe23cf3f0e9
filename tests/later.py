"""Frameworks that a file's tests use, imported when one runs.

Each of the processes that share a run collects all tests: what a file imports at its top is imported by all of them,
TensorFlow's five seconds for one.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest


class Later:
    """A module that is imported when something of it is asked for."""

    def __init__(self, name: str) -> None:
        self._name = self.__name__ = name

    def __getattr__(self, name: str) -> Any:
        # pytest looks for `__wrapped__` in everything that a file holds, when it collects.
        if name.startswith("_") and name != "__version__":
            raise AttributeError(name)
        module = import_module(self._name)
        return import_module(f"{self._name}.{name}") if not hasattr(module, name) else getattr(module, name)


def later(name: str) -> Any:
    """Return a module as `pytest.importorskip` does, not imported yet; the file's tests are skipped without it."""
    if find_spec(name.partition(".")[0]) is None:
        pytest.skip(f"no {name}", allow_module_level=True)
    return Later(name)
