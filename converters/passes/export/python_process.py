"""How Python code is served: in how many processes, and within which limits."""

from __future__ import annotations

import shutil
from pathlib import Path

from hone.artifact import Artifact
from hone.runtimes.python import CODE, Limits

from ...context import Built, PassContext
from ...registry import PassOptions, register


class Options(PassOptions, Limits):
    """Python code as it is, in processes of its own: nothing about it gets faster."""


@register("python_process", consumes="python", produces="python", options=Options, runtime="python")
def python_process(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Copy the code; the artifact carries the limits to every host."""
    shutil.copytree(model.path / CODE, out / CODE)
    runtime_options = {**model.manifest.runtime_options, **options.model_dump()}
    return Built(model.manifest.entry, runtime_options=runtime_options)
