"""Prepare a run: the source model as an artifact with a full signature, and the evaluation rows as a file."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hone import __version__, runtimes
from hone.artifact import Artifact, DataRecord, Manifest, seal
from hone.cache import check_own
from hone.data import called_once, load_dataset, save_dataset
from hone.errors import HoneError, RecipeError, one_line
from hone.hardware import tool_versions
from hone.recipe import LoadedRecipe, load_recipe
from hone.runtimes.base import Runtime
from hone.signature import BATCH, Signature, TensorSpec
from hone.steps.base import StepError
from hone.steps.pipeline import ReadySteps
from hone.userload import code_digest

from .. import sources
from ..context import Built, PassContext, Rows
from .mlflow_source import local_source


@dataclass(frozen=True)
class Prepared:
    """The inputs of a run, as paths, so that it can travel between processes."""

    source: Path
    rows: Rows
    calibration_digest: str
    framework: str
    note: str = ""
    """What the user should know about how the source was read."""
    data: tuple[DataRecord, ...] = ()
    """The recipe's data, for the manifests of what is made with it."""

    @property
    def evaluation(self) -> Path:
        return self.rows.evaluation


def prepare(recipe: Path, sources_dir: Path, evaluation: Path, file: Path | None = None) -> Prepared:
    """Write the source artifact to `sources_dir/DIGEST` and the evaluation rows to the file `evaluation`.

    The source is read anew each run, because what a user's loader reads can't be known from outside, and once a run:
    a loader may train. Data functions are called once, too. Everything after that is cached by the digest of what
    they gave. `file` stands in the place of the recipe's `source.file`.
    """
    with local_source(load_recipe(recipe).with_source(file)) as (loaded, told):
        return _prepare(loaded, told, sources_dir, evaluation)


def _prepare(loaded: LoadedRecipe, told: str, sources_dir: Path, evaluation: Path) -> Prepared:
    source = sources.for_recipe(loaded)
    runtimes.runtime_class(source.name).require()
    sources_dir.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".incoming.", suffix=".partial", dir=sources_dir))
    try:
        with called_once():  # a source may need rows to read its model
            built = source.ingest(loaded, partial)
            assert built.signature is not None
            rows, data = _save_rows(loaded, built.signature, evaluation)
        context = PassContext(loaded, built.signature, lambda _: None, rows)
        artifact = _adopt(partial, source, built, context, sources_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    digest = next((record.sha256 for record in data if record.role == "calibration"), "")
    note = "; ".join(filter(None, (told, str(built.details.get("note", "")))))
    return Prepared(artifact.path, rows, digest, source.name, note, data)


def _save_rows(loaded: LoadedRecipe, signature: Signature, evaluation: Path) -> tuple[Rows, tuple[DataRecord, ...]]:
    """Write the recipe's data, checked against the signature; return where, and what it is told again by."""
    recipe, calibration = loaded.recipe, None
    records: list[DataRecord] = []
    if recipe.calibration:
        dataset = load_dataset(loaded, "calibration", recipe.calibration, signature)
        calibration = evaluation.with_name(f"{evaluation.stem}-calibration.npz")
        save_dataset(dataset, calibration)
        source = recipe.calibration.source
        records.append(DataRecord(role="calibration", source=source, rows=dataset.rows, sha256=dataset.digest))
    dataset = load_dataset(loaded, "evaluation", recipe.evaluation, signature)
    save_dataset(dataset, evaluation)
    source = recipe.evaluation.source
    records.append(DataRecord(role="evaluation", source=source, rows=dataset.rows, sha256=dataset.digest))
    if recipe.train:
        code = hashlib.sha256(code_digest(recipe.train, loaded.root).encode()).hexdigest()
        records.append(DataRecord(role="training", source=recipe.train, sha256=code))
    return Rows(evaluation, calibration), tuple(records)


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
    draft = _with_outputs(seal(partial, manifest), names)
    source.check(draft, context)
    outputs = find_outputs(draft, context)
    _check_steps(loaded, Signature(inputs=signature.inputs, outputs=outputs))
    complete = manifest.model_copy(update={"signature": signature.model_copy(update={"outputs": outputs})})
    target = sources_dir / seal(partial, complete).digest
    if not target.exists():
        partial.chmod(0o755)
        partial.rename(target)
    return Artifact.open(check_own(target))


def _check_steps(loaded: LoadedRecipe, signature: Signature) -> None:
    """Raise RecipeError when the recipe's steps don't fit the model, or their files can't be used."""
    try:
        ReadySteps(loaded.recipe.steps, signature, loaded.root)
    except StepError as error:
        raise RecipeError(f"{loaded.path}: {error}") from None


def _with_outputs(artifact: Artifact, names: tuple[str, ...]) -> Artifact:
    """Return an artifact with outputs of which only the names are known."""
    outputs = tuple(TensorSpec(name=name, shape=(BATCH,)) for name in names)
    return artifact.with_manifest(signature=artifact.signature.model_copy(update={"outputs": outputs}))


def find_outputs(
    artifact: Artifact, context: PassContext, names: tuple[str, ...] | None = None
) -> tuple[TensorSpec, ...]:
    """Find the outputs' dtypes and shapes by running the model on sample rows of different sizes.

    An output axis that grows with a dynamic axis of the inputs gets that axis's name.

    Raises:
        RecipeError: the model can't run on the sample, which means that signature and model disagree.
    """
    inputs = context.sample.inputs
    if len(next(iter(inputs.values()))) < 2:
        inputs = {name: np.concatenate([array, array]) for name, array in inputs.items()}
    where = f"{context.loaded.path}: signature"
    draft = artifact if names is None else _with_outputs(artifact, names)
    try:
        with closing(runtimes.load(draft)) as runtime:
            whole = runtime.run(inputs)
            shapes: dict[str, list[int | str]] = {name: list(array.shape) for name, array in whole.items()}
            for axis in artifact.signature.dynamic_axes:
                _mark_axis(runtime, artifact.signature, inputs, axis, whole, shapes)
    except HoneError as error:
        raise RecipeError(f"{where}: {one_line(error)}") from error
    except Exception as error:
        given = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in inputs.items())
        raise RecipeError(f"{where}: the model fails on {given}: {type(error).__name__}: {one_line(error)}") from error
    _check_rows(whole, f"{where}.outputs")
    return tuple(
        TensorSpec(name=name, dtype=_dtype_name(array), shape=tuple(shapes[name])) for name, array in whole.items()
    )


def _check_rows(outputs: dict[str, np.ndarray], where: str) -> None:
    """An output that is one number for all rows together can't be told apart by row.

    Raises:
        RecipeError: naming it, and what to write.
    """
    single = [name for name, array in outputs.items() if array.ndim == 0]
    if single:
        rest = [name for name in outputs if name not in single]
        remedy = f"name the others: outputs: [{', '.join(rest)}]" if rest else "give one value a row"
        raise RecipeError(f"{where}: the model's output '{single[0]}' is one number for all rows; {remedy}")


def _mark_axis(
    runtime: Runtime,
    signature: Signature,
    inputs: dict[str, np.ndarray],
    axis: str,
    whole: dict[str, np.ndarray],
    shapes: dict[str, list[int | str]],
) -> None:
    """Run with a smaller size of an axis; output axes that shrink along carry its name.

    One less is tried first. A model that halves and doubles sizes takes even ones only, or multiples of a power of two.

    Raises:
        Exception: what the model raised at the first size, when it takes none of them.
    """
    size = max(inputs[spec.name].shape[spec.shape.index(axis)] for spec in signature.inputs if axis in spec.shape)
    first: Exception | None = None
    for smaller in dict.fromkeys(max(1, size - less) for less in (1, 2, 4, 8, 16, 32, size // 2)):
        try:
            outputs = runtime.run(_shortened(signature, inputs, axis, smaller))
        except Exception as error:  # noqa: BLE001 - raised below when no size works
            first = first or error
            continue
        for name, array in outputs.items():
            for position, (old, new) in enumerate(zip(whole[name].shape, array.shape, strict=True)):
                if new != old:
                    shapes[name][position] = axis
        return
    if first is not None:
        raise first


def _shortened(signature: Signature, inputs: dict[str, np.ndarray], axis: str, size: int) -> dict[str, np.ndarray]:
    """Return inputs with the first `size` indices of an axis."""
    shortened = {}
    for spec in signature.inputs:
        array = inputs[spec.name]
        for position, name in enumerate(spec.shape):
            if name == axis:
                array = np.take(array, range(min(size, array.shape[position])), axis=position)
        if axis not in (BATCH, *spec.shape) and array.dtype.kind in "iu" and spec.shape == (BATCH,):
            array = np.minimum(array, size)  # may be lengths of rows, of which none may reach behind the rows' end
        shortened[spec.name] = np.ascontiguousarray(array) if array.dtype != object else array
    return shortened


def _dtype_name(array: np.ndarray) -> str:
    return "string" if array.dtype.kind in "OUS" else str(array.dtype)
