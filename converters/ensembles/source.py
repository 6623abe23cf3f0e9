"""A recipe's `source.ensemble`: stored models, merged to one ONNX graph that is optimized as any other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from hone import runtimes, store
from hone.artifact import Artifact
from hone.data import load_dataset
from hone.errors import RecipeError, StoreError
from hone.recipe import LoadedRecipe
from hone.recipe.model import EnsembleSpec
from hone.signature import BATCH, Signature, TensorSpec
from hone.store.trust import Policy, open_to_run

from ..graph.onnx_graph import load_graph, save_graph
from .merge import Linear, merged
from .stack import fitted

WORDS = {"average": "the average", "vote": "a vote", "stacked": "a stack"}
ROWS = 256
"""Of a batch, when members answer the calibration rows."""


@contextmanager
def merged_source(loaded: LoadedRecipe) -> Iterator[tuple[LoadedRecipe, str]]:
    """Give a recipe whose source is a merged graph for as long as the context lasts, and say what it is of.

    A recipe without an ensemble, or whose source was replaced by a file, is given as it is.

    Raises:
        RecipeError: a model isn't stored, isn't ONNX, or doesn't fit the others.
    """
    spec = loaded.recipe.source.ensemble
    if spec is None or loaded.recipe.source.file:
        yield loaded, ""
        return
    field = f"{loaded.path}: source.ensemble"
    members = [_member(reference, field) for reference in spec.models]
    signature, names = _together(members, spec, field)
    linear = _stacked(loaded, members, signature, names, field) if spec.combine == "stacked" else None
    graphs = [load_graph(artifact.entry) for _, artifact in members]
    with TemporaryDirectory(prefix="hone-ensemble-") as folder:
        file = Path(folder) / "ensemble.onnx"
        save_graph(merged(graphs, signature, names, spec.combine, spec.weights, linear), file)
        yield loaded.with_source(file), f"the source is {WORDS[spec.combine]} of {', '.join(tag for tag, _ in members)}"


def _member(reference: str, field: str) -> tuple[str, Artifact]:
    """Return a stored model: its tag and its artifact, whose files were checked."""
    try:
        entry = store.resolve(reference)
    except StoreError as error:
        raise RecipeError(f"{field}.models: {error}") from None
    artifact = open_to_run(entry, Policy.from_environment())
    if artifact.runtime != "onnx":
        raise RecipeError(f"{field}.models: {entry.tag} runs with {artifact.runtime}; only ONNX graphs can be merged")
    if artifact.manifest.precision != "fp32":
        raise RecipeError(
            f"{field}.models: {entry.tag} is {artifact.manifest.precision}; name the fp32 variant, the ensemble is "
            "quantized as a whole"
        )
    return entry.tag, artifact


def _together(members: list[tuple[str, Artifact]], spec: EnsembleSpec, field: str) -> tuple[Signature, list[str]]:
    """Return the signature of an ensemble, and the output of each member that is combined."""
    first_tag, first = members[0]
    names = []
    for tag, artifact in members:
        signature = artifact.signature
        name = spec.output or signature.outputs[0].name
        if name not in signature.output_names:
            raise RecipeError(f"{field}.output: {tag} has no '{name}'; it has {', '.join(signature.output_names)}")
        names.append(name)
        mine, others = _kinds(signature.inputs), _kinds(first.signature.inputs)
        if mine != others:
            raise RecipeError(f"{field}.models: {tag} takes {_told(mine)}, {first_tag} takes {_told(others)}")
    outputs = [_output(artifact.signature, name) for (_, artifact), name in zip(members, names, strict=True)]
    for (tag, _), output in zip(members, outputs, strict=True):
        if output.dtype != "float32" or output.shape != outputs[0].shape:
            raise RecipeError(
                f"{field}.models: '{output.name}' of {tag} is {output.describe()}, that of {first_tag} is "
                f"{outputs[0].describe()}; only float32 outputs of one shape can be combined"
            )
    _check_shape(outputs[0], spec.combine, field)
    return Signature(inputs=first.signature.inputs, outputs=(outputs[0],)), names


def _check_shape(output: TensorSpec, combine: str, field: str) -> None:
    shape = output.shape
    classes = len(shape) == 2 and shape[0] == BATCH and isinstance(shape[1], int)
    if combine != "average" and not classes:
        raise RecipeError(
            f"{field}.combine: {combine} needs an output [batch, n]; '{output.name}' is {output.describe()}"
        )
    if combine == "vote" and shape[1] == 1:
        raise RecipeError(f"{field}.combine: vote needs a score for each class; '{output.name}' is {output.describe()}")


def _kinds(specs: tuple[TensorSpec, ...]) -> dict[str, str]:
    return {spec.name: spec.describe() for spec in specs}


def _told(kinds: dict[str, str]) -> str:
    return ", ".join(f"{name} {kind}" for name, kind in kinds.items())


def _output(signature: Signature, name: str) -> TensorSpec:
    return next(spec for spec in signature.outputs if spec.name == name)


def _stacked(
    loaded: LoadedRecipe, members: list[tuple[str, Artifact]], signature: Signature, names: list[str], field: str
) -> Linear:
    """Fit what combines the members on the calibration rows."""
    spec = loaded.recipe.calibration
    if spec is None:
        raise RecipeError(f"{field}.combine: stacked needs calibration data with labels")
    data = load_dataset(loaded, "calibration", spec, signature)
    if data.labels is None:
        raise RecipeError(f"{loaded.path}: calibration: a stacked ensemble is fitted on labels, and there are none")
    sides = []
    for (_, artifact), name in zip(members, names, strict=True):
        runtime = runtimes.load(artifact)
        try:
            sides.append(np.concatenate([runtime.run(batch)[name] for batch in data.batches(ROWS)]))
        finally:
            runtime.close()
    width = int(signature.outputs[0].shape[1])
    side_by_side = np.concatenate(sides, axis=1).astype(np.float64)
    return fitted(side_by_side, data.labels, width, f"{loaded.path}: calibration")
