"""One pass in a worker process: what it writes is checked before it takes its place in the cache."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hone import __version__, runtimes
from hone.artifact import EXAMPLE, Artifact, Manifest, PassRecord, seal
from hone.errors import PassError, one_line
from hone.files import atomic_directory
from hone.hardware import tool_versions
from hone.recipe import load_recipe
from hone.runtimes.base import Runtime
from hone.signature import TensorSpec

from ..passes import Built, Pass, PassContext, Rows, all_passes
from .workers import report

EXAMPLE_ROWS = 2
EXAMPLE_BYTES = 64_000
"""Rows that are longer than so much as JSON are no example."""


@dataclass(frozen=True)
class PassTask:
    """One pass to run: its input and where its output goes."""

    name: str
    options: dict[str, Any]
    parent: Path
    target: Path
    recipe: Path
    rows: Rows | None = None
    """The data of the run; None asks the recipe's data functions."""


def run_pass(task: PassTask) -> Path:
    """Run one pass, check what it wrote and move it to its place in the cache."""
    definition = all_passes()[task.name]
    parent = Artifact.open(task.parent)
    loaded = load_recipe(task.recipe)
    context = PassContext(loaded, parent.signature, lambda text: report(f"{task.name}: {text}"), task.rows)
    options = definition.options.model_validate(task.options)
    started = time.perf_counter()
    with _named_disk(task), atomic_directory(task.target) as out:
        built = definition.function(parent, options, out, context)
        seconds = round(time.perf_counter() - started, 3)
        record = PassRecord(
            name=task.name, options=task.options, parent=parent.digest, seconds=seconds, details=built.details
        )
        after = context
        if built.signature and built.signature.inputs != parent.signature.inputs:
            after = PassContext(loaded, built.signature, context.progress, task.rows)
        if definition.output_of(parent.runtime) != parent.runtime or parent.runtime in ("onnx", "python"):
            _write_example(after, out)
        check_runs(seal(out, _manifest(parent, definition, built, record)), after)
    return task.target


def _manifest(parent: Artifact, definition: Pass, built: Built, record: PassRecord) -> Manifest:
    """Return the manifest of what a pass built: the parent's, but for what the pass changed."""
    old = parent.manifest
    return old.model_copy(
        update={
            "runtime": definition.output_of(parent.runtime),
            "precision": built.precision or old.precision,
            "entry": built.entry,
            "signature": built.signature or old.signature,
            "runtime_options": old.runtime_options if built.runtime_options is None else built.runtime_options,
            "requires": old.requires if built.requires is None else built.requires,
            "lineage": (*old.lineage, record),
            "tools": {**old.tools, **tool_versions(*definition.tools), "hone": __version__},
        }
    )


@contextlib.contextmanager
def _named_disk(task: PassTask) -> Iterator[None]:
    """A full or read-only disk is reported with its folder: the operating system's error often names no file."""
    try:
        yield
    except OSError as error:
        place = error.filename or task.target.parent
        raise PassError(f"{task.name}: {place}: {error.strerror or one_line(error)}") from error


def _write_example(context: PassContext, out: Path) -> None:
    """Keep a few rows beside the model: they are the example in the service's documentation."""
    example = context.example(EXAMPLE_ROWS)
    if example is None:
        return
    rows = {
        name: array.tolist() if array.dtype.kind != "f" else np.round(array.astype(float), 6).tolist()
        for name, array in example.items()
    }
    text = json.dumps({"inputs": rows})
    if len(text) <= EXAMPLE_BYTES:
        (out / EXAMPLE).write_text(text)


def check_runs(artifact: Artifact, context: PassContext) -> None:
    """Load what a pass wrote and run sample rows of two batch sizes: an export can pass and still be unloadable.

    Raises:
        PassError: it doesn't load, or its outputs don't have the signature's names, dtypes and shapes.
    """
    runtime = runtimes.load(artifact)
    try:
        for rows in (1, context.sample.rows):
            _check_outputs(runtime, artifact, context.sample.head(rows).inputs)
    finally:
        runtime.close()


def _check_outputs(runtime: Runtime, artifact: Artifact, inputs: dict[str, np.ndarray]) -> None:
    name = artifact.manifest.lineage[-1].name if artifact.manifest.lineage else artifact.runtime
    try:
        outputs = runtime.run({spec.name: inputs[spec.name] for spec in artifact.signature.inputs})
    except Exception as error:
        rows = len(next(iter(inputs.values())))
        raise PassError(f"{name}: the result loads but fails on {rows} row(s): {one_line(error)}") from error
    for spec in artifact.signature.outputs:
        array = outputs.get(spec.name)
        if array is None:
            raise PassError(f"{name}: the result has no output '{spec.name}', it has {list(outputs)}")
        _check_output(name, spec, array, len(next(iter(inputs.values()))))


def _check_output(name: str, spec: TensorSpec, array: np.ndarray, rows: int) -> None:
    if array.dtype.kind not in "OUS" and array.dtype != spec.numpy_dtype:
        raise PassError(f"{name}: output '{spec.name}' is {array.dtype}, the source model gives {spec.dtype}")
    fits = array.ndim == len(spec.shape) and all(
        size == axis for axis, size in zip(spec.shape, array.shape, strict=False) if isinstance(axis, int)
    )
    if not fits or (spec.batchable and len(array) != rows):
        raise PassError(
            f"{name}: output '{spec.name}' has shape {list(array.shape)} for {rows} row(s), expected {spec.describe()}"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise PassError(f"{name}: output '{spec.name}' holds NaN or infinity on sample rows; the precision is too low")
