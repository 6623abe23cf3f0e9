"""Passes: one file a pass. A module here registers its pass; frameworks are imported inside the function."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from converters.passes.base import Built, Pass, PassContext, PassOptions, Rows, register, registered

__all__ = ["Built", "Pass", "PassContext", "PassOptions", "Rows", "all_passes", "register"]


@cache
def all_passes() -> dict[str, Pass]:
    """Return every pass by name."""
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base":
            importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(registered().items()))
