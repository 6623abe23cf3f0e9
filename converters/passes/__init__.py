"""Passes: one file a pass. A module here registers its pass; frameworks are imported inside the function."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from ..context import Built, PassContext, Rows
from ..registry import Pass, PassOptions, register, registered

__all__ = ["Built", "Pass", "PassContext", "PassOptions", "Rows", "all_passes", "register"]


@cache
def all_passes() -> dict[str, Pass]:
    """Return every pass by name."""
    for module in pkgutil.walk_packages(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    return dict(sorted(registered().items()))
