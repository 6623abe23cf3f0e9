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
from hone.runtimes.torch.calls import Calling, calling, named_tensors
from hone.runtimes.torch.runtime import load_module

PACKAGE_LINES = 5
"""Export, compile, load: as torch's documentation of AOTInductor has it."""


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


def package(source: Artifact, recipe: Path, file: Path, *, bfloat16: bool) -> int:
    """Compile a source ahead of time by AOTInductor into a `.pt2` with a library for this processor; return the lines
    that its user would write.

    Args:
        source: a model of torch.
        recipe: of the example.
        file: to write.
        bfloat16: it computes in bfloat16, as torch's autocast chooses.

    Raises:
        HoneError: it is no model of torch, or can't be traced.
        RuntimeError: no C++ compiler is here, or torch can't compile it.
    """
    import torch
    from torch._inductor import aoti_compile_and_package

    _check(source)
    names = tuple(source.signature.input_names)
    module = load_module(source)
    how = calling(module, names)
    context = PassContext(load_recipe(recipe), source.signature, lambda _: None)
    example = example_rows(module, source.signature, context)

    class InOrder(torch.nn.Module):
        """Takes tensors in the signature's order, and gives them by name."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                found = named_tensors(how.call(self.module, dict(zip(names, tensors, strict=True))))
            return {
                name: tensor.float() if tensor.dtype == torch.bfloat16 else tensor for name, tensor in found.items()
            }

    with torch.inference_mode():
        program = trace(InOrder().eval(), Calling(names, "members"), source.signature, example)
        aoti_compile_and_package(program, package_path=str(file), inductor_configs={"freezing": True})
    return PACKAGE_LINES


def _check(source: Artifact) -> None:
    if source.runtime != "torch":
        raise HoneError(f"it takes models of torch, and this one is of {source.runtime}")
