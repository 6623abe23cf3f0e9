"""Source models of torch for other tools: as they are, or exported."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hone.artifact import EXAMPLE, MANIFEST, Artifact
from hone.converters.context import PassContext
from hone.converters.sources.torch.export import example_rows, trace
from hone.errors import HoneError
from hone.recipe import load_recipe
from hone.runtimes.torch.calls import calling
from hone.runtimes.torch.runtime import load_module


def copied(source: Artifact, folder: Path) -> dict[str, Any]:
    """Copy a source's files, and return the options that its runtime loads them with.

    Raises:
        HoneError: it is no model of torch.
    """
    _check(source)
    for file in source.path.iterdir():
        if file.name not in (MANIFEST, EXAMPLE):
            shutil.copyfile(file, folder / file.name)
    return source.manifest.runtime_options


def export(source: Artifact, recipe: Path, file: Path) -> None:
    """Write a source as an exported program (`.pt2`), its dynamic axes free.

    Raises:
        HoneError: it is no model of torch, or can't be traced.
    """
    import torch

    _check(source)
    module = load_module(source)
    context = PassContext(load_recipe(recipe), source.signature, lambda _: None)
    how = calling(module, source.signature.input_names)
    torch.export.save(trace(module, how, source.signature, example_rows(module, source.signature, context)), file)


def _check(source: Artifact) -> None:
    if source.runtime != "torch":
        raise HoneError(f"it takes models of torch, and this one is of {source.runtime}")
