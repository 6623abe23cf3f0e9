"""SavedModels of TensorFlow 2: folders of graphs and variables, exported with tf2onnx."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hone.artifact import Artifact
from hone.errors import ArtifactError, PassError, RecipeError
from hone.formats.saved_model import FILE, VARIABLES
from hone.recipe import LoadedRecipe
from hone.signature import Signature

from ..context import Built, PassContext
from .base import Source, register
from .keras.source import NCHW, exported, function_to_onnx


@register("savedmodel")
class SavedModelSource(Source):
    suffixes = ()
    tools = ("tensorflow-cpu", "tensorflow", "tf2onnx", "onnx")

    def owns_folder(self, folder: Path) -> bool:
        return (folder / FILE).is_file()

    def refuses(self, file: Path) -> str:
        return f"{file}: is part of a SavedModel; give its folder, {file.parent}" if file.name == FILE else ""

    def owns(self, model: Any) -> bool:
        return False  # it comes in folders only

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        """Copy the graph and the variables, and load the copy: what was checked is what every later step loads."""
        from hone.runtimes import runtime_class
        from hone.runtimes.savedmodel import called, folder_signature

        runtime_class("savedmodel").require()
        spec, field = loaded.recipe.source, f"{loaded.path}: source"
        if spec.loader or spec.file is None:
            raise RecipeError(f"{field}.loader: a SavedModel is a folder; name it in source.file, without a loader")
        folder = loaded.file(spec.file, "source.file")
        _copy(folder, out)
        try:
            own = folder_signature(out)
            given = loaded.recipe.signature
            signature = given.to_signature() if given else own
            called(out, signature.input_names, [])
        except ArtifactError as error:
            raise RecipeError(f"{field}.file: {str(error).replace(str(out), str(folder), 1)}") from error
        return Built(FILE, "fp32", signature)

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Convert a call of the model's signature with tf2onnx; tensors stay channels last.

        Raises PassError with tf2onnx's reason when an operation has no ONNX counterpart.
        """
        return _export(model, model.signature, opset, out)

    def export_channels_first(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Raises PassError when no input has four axes."""
        inputs = tuple(spec.with_axes(NCHW) if len(spec.shape) == 4 else spec for spec in model.signature.inputs)
        if inputs == model.signature.inputs:
            raise PassError("export: layout nchw: no input has four axes, [batch, height, width, channels]")
        return _export(model, model.signature.model_copy(update={"inputs": inputs}), opset, out)

    def inspect(self, file: Path) -> Signature | None:
        from hone.runtimes.savedmodel import folder_signature

        return folder_signature(file)


def _copy(folder: Path, out: Path) -> None:
    """Copy what a SavedModel needs: TensorFlow would read other forms of the graph, too, where they lie beside it."""
    shutil.copyfile(folder / FILE, out / FILE)
    (out / "variables").mkdir()
    for file in sorted((folder / "variables").glob("*")):
        if VARIABLES.fullmatch(file.name):
            shutil.copyfile(file, out / "variables" / file.name)


def _export(model: Artifact, signature: Signature, opset: int, out: Path) -> Built:
    from hone.runtimes.savedmodel import called

    from ..graph.onnx_graph import save_graph

    names: list[str] = []
    function = called(model.entry.parent, signature.input_names, names)
    graph, supported = function_to_onnx(function, names, signature, opset, "the SavedModel")
    save_graph(graph, out / "model.onnx")
    return exported(graph, signature, supported)
