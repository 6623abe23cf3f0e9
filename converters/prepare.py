"""Prepare a run: the source model as an artifact with a full signature, and the evaluation rows as a file."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from converters import sources
from converters.passes.base import Built, PassContext, Rows
from hone import __version__, runtimes
from hone.artifact import Artifact, Manifest, seal
from hone.cache import check_own
from hone.data import load_dataset, save_dataset
from hone.errors import HoneError, RecipeError, one_line
from hone.hardware import tool_versions
from hone.recipe import LoadedRecipe, load_recipe
from hone.runtimes.base import Runtime
from hone.signature import BATCH, Signature, TensorSpec


@dataclass(frozen=True)
class Prepared:
    """The inputs of a run, as paths, so that it can travel between processes."""

    source: Path
    rows: Rows
    calibration_digest: str
    framework: str
    note: str = ""
    """What the user should know about how the source was read."""

    @property
    def evaluation(self) -> Path:
        return self.rows.evaluation


def prepare(recipe: Path, sources_dir: Path, evaluation: Path) -> Prepared:
    """Write the source artifact to `sources_dir/DIGEST` and the evaluation rows to the file `evaluation`.

    The source is read anew each run, because what a user's loader reads can't be known from outside, and once a run:
    a loader may train. Data functions are called once, too. Everything after that is cached by the digest of what
    they gave.
    """
    loaded = load_recipe(recipe)
    source = sources.for_recipe(loaded)
    runtimes.runtime_class(source.name).require()
    sources_dir.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".incoming.", suffix=".partial", dir=sources_dir))
    try:
        built = source.ingest(loaded, partial)
        assert built.signature is not None
        rows, digest = _save_rows(loaded, built.signature, evaluation)
        context = PassContext(loaded, built.signature, lambda _: None, rows)
        artifact = _adopt(partial, source, built, context, sources_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Prepared(artifact.path, rows, digest, source.name, str(built.details.get("note", "")))


def _save_rows(loaded: LoadedRecipe, signature: Signature, evaluation: Path) -> tuple[Rows, str]:
    """Write the recipe's data, checked against the signature; return where, and the digest of the calibration rows."""
    recipe, calibration, digest = loaded.recipe, None, ""
    if recipe.calibration:
        dataset = load_dataset(loaded, "calibration", recipe.calibration, signature)
        calibration, digest = evaluation.with_name(f"{evaluation.stem}-calibration.npz"), dataset.digest
        save_dataset(dataset, calibration)
    save_dataset(load_dataset(loaded, "evaluation", recipe.evaluation, signature), evaluation)
    return Rows(evaluation, calibration), digest


def _adopt(partial: Path, source: sources.Source, built: Built, context: PassContext, sources_dir: Path) -> Artifact:
    """Give the source artifact its outputs, and move it to a folder named after its digest."""
    loaded, signature = context.loaded, context.signature
    manifest = Manifest(
        name=loaded.recipe.name,
        variant=source.name,
        runtime=source.name,
        precision=built.precision or "fp32",
        entry=built.entry,
        signature=signature,
        runtime_options=built.runtime_options or {},
        requires=built.requires or {},
        tools={**tool_versions(*source.tools), "hone": __version__},
    )
    names = loaded.recipe.signature.outputs if loaded.recipe.signature else ()
    outputs = find_outputs(seal(partial, manifest), context, names)
    complete = manifest.model_copy(update={"signature": signature.model_copy(update={"outputs": outputs})})
    target = sources_dir / seal(partial, complete).digest
    if not target.exists():
        partial.chmod(0o755)
        partial.rename(target)
    return Artifact.open(check_own(target))


def find_outputs(artifact: Artifact, context: PassContext, names: tuple[str, ...]) -> tuple[TensorSpec, ...]:
    """Find the outputs' dtypes and shapes by running the model on sample rows of different sizes.

    An output axis that grows with a dynamic axis of the inputs gets that axis's name.

    Raises:
        RecipeError: the model can't run on the sample, which means that signature and model disagree.
    """
    inputs = context.sample.inputs
    if len(next(iter(inputs.values()))) < 2:
        inputs = {name: np.concatenate([array, array]) for name, array in inputs.items()}
    where = f"{context.loaded.path}: signature"
    draft = artifact.with_manifest(
        signature=artifact.signature.model_copy(
            update={"outputs": tuple(TensorSpec(name=name, shape=(BATCH,)) for name in names)}
        )
    )
    try:
        runtime = runtimes.load(draft)
        whole = runtime.run(inputs)
        shapes: dict[str, list[int | str]] = {name: list(array.shape) for name, array in whole.items()}
        for axis in artifact.signature.dynamic_axes:
            _mark_axis(runtime, artifact.signature, inputs, axis, whole, shapes)
    except HoneError as error:
        raise RecipeError(f"{where}: {one_line(error)}") from error
    except Exception as error:
        given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items())
        raise RecipeError(f"{where}: the model fails on {given}: {type(error).__name__}: {one_line(error)}") from error
    return tuple(
        TensorSpec(name=name, dtype=_dtype_name(array), shape=tuple(shapes[name])) for name, array in whole.items()
    )


def _mark_axis(
    runtime: Runtime,
    signature: Signature,
    inputs: dict[str, np.ndarray],
    axis: str,
    whole: dict[str, np.ndarray],
    shapes: dict[str, list[int | str]],
) -> None:
    """Run with one index less on an axis; output axes that shrink along carry its name."""
    smaller = {}
    for spec in signature.inputs:
        array = inputs[spec.name]
        for position, name in enumerate(spec.shape):
            if name == axis and array.shape[position] > 1:
                array = np.take(array, range(array.shape[position] - 1), axis=position)
        smaller[spec.name] = np.ascontiguousarray(array) if array.dtype != object else array
    for name, array in runtime.run(smaller).items():
        for position, (old, new) in enumerate(zip(whole[name].shape, array.shape, strict=True)):
            if new != old:
                shapes[name][position] = axis


def _dtype_name(array: np.ndarray) -> str:
    return "string" if array.dtype.kind in "OUS" else str(array.dtype)
