"""Runtimes: load an artifact, run a batch. One file a runtime; proof, services and benchmarks all use these.

A module of this package defines one `Runtime` subclass decorated with `@register`. Modules import their framework
inside the methods that need it, so listing the runtimes costs nothing.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from pydantic import ValidationError

from hone.artifact import MANIFEST, Artifact, Manifest
from hone.errors import ArtifactError, did_you_mean
from hone.runtimes.base import Availability, Runtime, registered
from hone.steps.ready import code_in_steps

__all__ = [
    "Availability",
    "Runtime",
    "all_runtimes",
    "check_options",
    "code_in",
    "load",
    "remark",
    "runtime_class",
    "version_here",
]


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


def check_options(artifact: Artifact) -> None:
    """Check that an artifact asks its runtime for nothing that the runtime doesn't know.

    Raises:
        ArtifactError: naming the runtime, or the option.
    """
    where = artifact.path / MANIFEST
    options = runtime_class(artifact.runtime).options
    try:
        options.model_validate(artifact.manifest.runtime_options)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(["runtime_options", *(str(part) for part in first["loc"])])
        unknown = first["type"] == "extra_forbidden"
        known = did_you_mean(str(first["loc"][-1]), options.model_fields) if unknown else ""
        message = f"the {artifact.runtime} runtime knows no such option{known}" if unknown else first["msg"]
        raise ArtifactError(f"{where}: {field}: {message.removeprefix('Value error, ')}") from None


def version_here(name: str) -> str:
    """Return a runtime and its version on this host, as a proof notes them among the facts of its host."""
    return f"{name} {runtime_class(name).availability().version}"


def code_in(artifact: Artifact) -> str:
    """Return what code an artifact runs beyond its runtime's own, in words that follow 'it', or an empty string.

    Raises:
        ArtifactError: as `check_options`.
    """
    check_options(artifact)
    code = (runtime_class(artifact.runtime).code_in(artifact), code_in_steps(artifact))
    return ", and ".join(filter(None, code))


def remark(manifest: Manifest) -> str:
    """Return what people should know of a model's runtime, with what its proof measured; empty: nothing."""
    found = runtime_class(manifest.runtime).remark
    measured, judged = manifest.measurements, manifest.selection
    if not found or measured is None or judged is None or not (judged.batch and judged.threads):
        return found
    latency = measured.at(judged.batch, judged.threads)
    rows = "a row" if judged.batch == 1 else f"{judged.batch} rows"
    return f"{found}; {latency.p50:.3g} ms for {rows} in its proof" if latency else found


def load(artifact: Artifact, threads: int | None = None) -> Runtime:
    """Load an artifact with its runtime.

    Args:
        artifact: an opened (and verified) artifact.
        threads: intra-op threads; None leaves the runtime's default, which is all cores.

    Raises:
        UnavailableError: this host has no such runtime, or not the hardware the artifact needs.
        ArtifactError: the runtime can't load the files, or knows not what the artifact asks of it.
    """
    check_options(artifact)
    runtime = runtime_class(artifact.runtime)
    runtime.require()
    return runtime(artifact, threads)
