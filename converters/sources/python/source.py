"""Python code as a model: packed, started in a process of its own, and asked what a graph never has to be asked."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from hone import runtimes
from hone.apart.requirements import missing_here, to_install, versions_here
from hone.artifact import Artifact
from hone.errors import HoneError, PassError, RecipeError, one_line
from hone.recipe import LoadedRecipe
from hone.runtimes.base import Runtime
from hone.runtimes.python import CODE
from hone.signature import Signature, Tensors

from ...context import Built, PassContext
from ..base import Source, register
from .packing import pack

NEAR, NEAR_ZERO = 1e-3, 1e-5
"""Rows alone are summed in another order than in a batch: answers may be so far apart, relatively or of the largest."""


@register("python")
class PythonSource(Source):
    suffixes = ()
    tools = ("numpy",)
    multiplies = False

    def owns(self, model: Any) -> bool:
        return False  # a recipe says so: `source.python`

    def refuses(self, file: Path) -> str:
        if file.suffix != ".py":
            return ""
        return (
            f"{file}: is Python code; where no graph can express it, a recipe of your own names its function, "
            f"source: {{python: '{file.stem}:predict'}}; see docs/python.md"
        )

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        spec, field = loaded.recipe.source.python, f"{loaded.path}: source.python"
        assert spec is not None
        if loaded.recipe.signature is None:
            raise RecipeError(f"{loaded.path}: signature: is required, code doesn't tell its inputs; name them")
        if lines := missing_here(spec.requirements):
            raise RecipeError(f"{field}: needs {'; '.join(lines)}; {to_install(spec.requirements)}")
        entry = pack(loaded.root, spec.call, spec.files, out / CODE, field, loaded.newer)
        options = {
            "form": "predict" if spec.predict else "load",
            "call": spec.call,
            "requirements": list(spec.requirements),
            "versions": versions_here(spec.requirements),
        }
        return Built(f"{CODE}/{entry}", "fp32", loaded.recipe.signature.to_signature(), options)

    def check(self, model: Artifact, context: PassContext) -> None:
        """The same rows twice, and each alone, must get the same answers: else no proof of them would hold."""
        field, rows = f"{context.loaded.path}: source.python", context.sample.inputs
        call = model.manifest.runtime_options["call"]
        try:
            with closing(runtimes.load(model)) as runtime:
                problem = _problem(runtime, model.signature, rows)
        except HoneError as error:
            raise RecipeError(f"{field}: {one_line(error)}") from None
        if problem:
            raise RecipeError(f"{field}: {call} {problem}")

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        raise PassError("export: Python code has no graph; its only variant is 'python-process'")

    def inspect(self, file: Path) -> Signature | None:
        return None


def _problem(runtime: Runtime, signature: Signature, rows: Tensors) -> str:
    """Return what is wrong with a model's answers to rows, in words that follow its name; empty: nothing."""
    first, again = runtime.run(rows), runtime.run(rows)
    for name, array in first.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            return f"returned NaN or infinity in '{name}'"
        if not _alike(array, again[name]):
            return f"gives other answers to the same rows: '{name}' differs; set the seeds of what is random in it"
    if not signature.inputs[0].batchable:
        return ""
    for row in range(len(rows[signature.inputs[0].name])):
        alone = runtime.run({name: array[row : row + 1] for name, array in rows.items()})
        for name, array in first.items():
            if not _alike(array[row : row + 1], alone[name]):
                return (
                    f"answers a row alone otherwise than among others: '{name}' differs; callers' rows are joined to "
                    "batches, so each row's answer must depend on that row"
                )
    return ""


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind != "f":
        return bool((one == other).all())
    most = float(np.abs(one).max(initial=0))
    return bool(np.allclose(one, other, rtol=NEAR, atol=NEAR_ZERO * most))
