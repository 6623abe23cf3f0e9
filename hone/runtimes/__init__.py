"""Runtimes: load an artifact, run a batch. One file a runtime; proof, services and benchmarks all use these.

A module of this package defines one `Runtime` subclass decorated with `@register`. Modules import their framework
inside the methods that need it, so listing the runtimes costs nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from hone.artifact import Artifact
from hone.errors import ArtifactError, did_you_mean
from hone.runtimes.base import Availability, Runtime, registered

__all__ = ["Availability", "Runtime", "all_runtimes", "load", "runtime_class"]


@cache
def all_runtimes() -> dict[str, type[Runtime]]:
    """Return every runtime by name, importing the modules of this package (not their frameworks)."""
    for module in pkgutil.iter_modules(__path__):
        if module.name != "base":
            importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(registered().items()))


def runtime_class(name: str) -> type[Runtime]:
    runtimes = all_runtimes()
    if name not in runtimes:
        raise ArtifactError(f"unknown runtime '{name}'{did_you_mean(name, runtimes)}")
    return runtimes[name]


def load(artifact: Artifact, threads: int | None = None) -> Runtime:
    """Load an artifact with its runtime.

    Args:
        artifact: an opened (and verified) artifact.
        threads: intra-op threads; None leaves the runtime's default, which is all cores.

    Raises:
        UnavailableError: this host has no such runtime, or not the hardware the artifact needs.
        ArtifactError: the runtime can't load the files.
    """
    runtime = runtime_class(artifact.runtime)
    runtime.require()
    return runtime(artifact, threads)
