"""What a source is: a framework that trained models come from. One file a framework.

A source turns what the recipe names into an artifact of its own runtime (`ingest`: the baseline that every variant is
compared with), and that artifact into ONNX (`export`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, PassError, RecipeError, one_line
from hone.recipe import PICKLE_SUFFIXES, LoadedRecipe
from hone.signature import BATCH, Signature, TensorSpec
from hone.userload import call, load_function

from ..context import Built, PassContext

_REGISTER: dict[str, type[Source]] = {}


class Source(ABC):
    """One framework."""

    name: ClassVar[str]
    suffixes: ClassVar[tuple[str, ...]]
    """File endings that belong to this framework alone."""
    tools: ClassVar[tuple[str, ...]] = ()
    """Packages whose versions decide what an export looks like."""
    multiplies: ClassVar[bool] = True
    """False where graphs compare rather than multiply, as trees do: quantization and fusion have nothing to work on."""
    has_attention: ClassVar[bool] = False
    """Its exports may hold attention in a form that `fuse` knows."""

    def owns_folder(self, folder: Path) -> bool:
        """True when a folder holds a model of this framework."""
        return False

    def refuses(self, file: Path) -> str:
        """Say what to do with a file of this framework's that can't be a source; empty for any other."""
        return ""

    @abstractmethod
    def owns(self, model: Any) -> bool:
        """True when an object that a loader returned is a model of this framework. Must not import the framework
        when the object can't be one."""

    @abstractmethod
    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        """Write the model into `out`, as an artifact that the runtime of the same name loads.

        `Built.signature` must hold the inputs: the recipe's, or those read from the model where its format has them
        and the recipe gives none. Outputs may be left empty: the pipeline finds them by running the model.

        Raises:
            RecipeError: naming the field of the recipe that is wrong and the remedy.
        """

    def check(self, model: Artifact, context: PassContext) -> None:  # noqa: B027 - a graph has no more to be asked
        """Ask a source artifact what its framework doesn't guarantee, before its outputs are looked at.

        Args:
            model: as `ingest` made it; of its outputs only the names may be known.
            context: with sample rows.

        Raises:
            RecipeError: it could not be proven, or not be served.
        """

    @abstractmethod
    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Convert an artifact of this framework to `model.onnx` in `out`, with the signature's names and axes.

        Raises:
            PassError: naming the layer that can't be exported, and what to change.
        """

    def export_channels_first(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """As `export`, with inputs of four axes changed from channels last to channels first.

        Raises:
            PassError: this framework's models are channels first already, or have no images.
        """
        raise PassError(f"export: layout nchw is for Keras models, which are channels last; this one is {self.name}")

    @abstractmethod
    def inspect(self, file: Path) -> Signature | None:
        """Return the signature that a model file itself holds, or None when its format holds none (for `hone init`)."""

    def outputs_of(self, file: Path) -> list[str]:
        """Return the names of a model file's outputs where `inspect` finds none, or a guess."""
        return ["scores"]

    def rows_from_texts(self, file: Path, texts: np.ndarray, where: str) -> Mapping[str, np.ndarray] | None:
        """Return a model's inputs as its own tokenizer makes them of texts, one a row; None: it has none.

        Raises:
            RecipeError: beginning with `where`, what the texts are from: there should be one, and isn't.
        """
        return None

    def metric_of(self, file: Path) -> str:
        """Return the metric by which a first recipe compares with this model's answers; empty: the usual one."""
        return ""

    def recipe_lines(self, file: Path) -> list[tuple[str, str]]:
        """Return what a first recipe's `source` needs beside `file`: (text, comment) of each line."""
        return []


_kept: dict[tuple[Path, str], Any] = {}


def call_loader(loaded: LoadedRecipe, *, keep: bool = False) -> Any:
    """Return what the recipe's `source.loader` returns.

    Args:
        loaded: a recipe with a loader.
        keep: hold on to the result for the next call, which then takes it: telling the framework and reading the
            model both need it, and a loader may train for minutes.

    Raises:
        RecipeError: the loader can't be imported, or fails; with the line of the user's code.
    """
    reference, field = loaded.recipe.source.loader, f"{loaded.path}: source.loader"
    assert reference is not None
    key = (loaded.path, reference)
    if key in _kept:
        return _kept.pop(key)
    model = call(load_function(reference, loaded.root, field), reference, field)
    if keep:
        _kept[key] = model
    return model


def unpickle(file: Path, field: str) -> Any:
    """Load a pickle with joblib; the recipe has `trust_pickle: true`, or it would not have been read.

    Raises:
        RecipeError: it can't be loaded.
    """
    import joblib

    try:
        return joblib.load(file)
    except Exception as error:
        raise RecipeError(f"{field}.file: {file} can't be unpickled: {one_line(error)}") from error


def read_model(
    loaded: LoadedRecipe, framework: str, read: Callable[[Path], Any], check: Callable[[Any, str], Any]
) -> Any:
    """Return the model that a recipe names by file or loader, for frameworks whose files need no class beside them.

    Args:
        loaded: the recipe.
        framework: for messages.
        read: takes a file of the framework's own format; raises ArtifactError.
        check: takes what a loader or a pickle gave, and where it is from, for messages; returns the model.

    Raises:
        RecipeError: both or an unreadable one, or what `check` raises.
    """
    spec, field = loaded.recipe.source, f"{loaded.path}: source"
    if spec.loader and spec.file:
        raise RecipeError(f"{field}: give 'file' or 'loader' for {framework} model, not both")
    if spec.loader:
        return check(call_loader(loaded), f"{field}.loader: {spec.loader} returned")
    assert spec.file is not None
    file = loaded.file(spec.file, "source.file")
    if spec.file.endswith(PICKLE_SUFFIXES):
        return check(unpickle(file, field), f"{field}.file: {file.name} holds")
    try:
        return read(file)
    except ArtifactError as error:
        raise RecipeError(f"{field}.file: {error}") from error


def feature_matrix(features: int) -> Signature:
    """Return the inputs of a model of so many numeric features: one matrix."""
    return Signature(inputs=(TensorSpec(name="features", dtype="float32", shape=(BATCH, features)),))


def outputs_by_kind(classifies: bool) -> list[str]:
    """Return what sources of tabular models call their outputs."""
    return ["label", "probabilities"] if classifies else ["prediction"]


def features_signature(loaded: LoadedRecipe, features: int, framework: str) -> Signature:
    """Return the recipe's inputs, checked against a model's number of features, or one matrix of all of them.

    Raises:
        RecipeError: an input is no number, or the columns are not as many as the features.
    """
    spec = loaded.recipe.signature
    if spec is None:
        return feature_matrix(features)
    signature, where = spec.to_signature(), f"{loaded.path}: signature.inputs"
    for tensor in signature.inputs:
        if tensor.dtype in ("string", "bfloat16") or len(tensor.shape) > 2:
            raise RecipeError(f"{where}: '{tensor.name}' is {tensor.describe()}; {framework} takes numbers, [batch, n]")
    widths = [tensor.shape[1] if len(tensor.shape) == 2 else 1 for tensor in signature.inputs]
    if all(isinstance(width, int) for width in widths) and sum(map(int, widths)) != features:
        raise RecipeError(f"{where}: have {sum(map(int, widths))} columns, the model has {features} features")
    return signature


def register(name: str) -> Callable[[type[Source]], type[Source]]:
    def add(cls: type[Source]) -> type[Source]:
        cls.name = name
        _REGISTER[name] = cls
        return cls

    return add


def registered() -> dict[str, type[Source]]:
    return _REGISTER
