"""Keras 3 and Keras 2 (tf_keras) models, exported with tf2onnx."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from converters.onnx_graph import rename_inputs, rename_outputs, set_input_axes
from converters.passes.base import Built, PassContext
from converters.sources.base import Source, register
from hone.artifact import Artifact
from hone.errors import ArtifactError, PassError, RecipeError, UnavailableError, one_line
from hone.recipe import LoadedRecipe
from hone.signature import BATCH, Signature, TensorSpec
from hone.userload import call, load_function

FILE = "model.keras"
NEWEST_OPSET = 18  # of tf2onnx 1.17


@register("keras")
class KerasSource(Source):
    suffixes = (".keras",)
    tools = ("tensorflow-cpu", "tensorflow", "keras", "tf2onnx", "onnx")

    def owns(self, model: Any) -> bool:
        return any(
            cls.__name__ == "Model" and cls.__module__.split(".", 1)[0] in ("keras", "tf_keras")
            for cls in type(model).__mro__
        )

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        from hone.runtimes import runtime_class

        runtime_class("keras").require()
        model = _load(loaded)
        spec = loaded.recipe.signature
        signature = spec.to_signature() if spec else _signature(model)
        if signature is None:
            raise RecipeError(f"{loaded.path}: signature: is required: the model was never built, so it has no shapes")
        model.save(out / FILE)
        return Built(FILE, "fp32", signature)

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Convert a traced call of the model with tf2onnx; tensors stay channels last, as the signature says.

        Raises PassError with tf2onnx's reason when an operation has no ONNX counterpart.
        """
        from hone.runtimes.keras import model_arguments, named_outputs, read_model

        network = read_model(model.entry)
        try:
            import onnx
            import tensorflow as tf
            import tf2onnx
        except ImportError as error:
            raise UnavailableError(f"{error.name} is not installed", "install the [tensorflow] extra") from None
        specs = [
            tf.TensorSpec([axis if isinstance(axis, int) else None for axis in spec.shape], spec.dtype, name=spec.name)
            for spec in model.signature.inputs
        ]
        names = model.signature.input_names

        def run(*tensors: Any) -> list[Any]:
            arguments = model_arguments(network, dict(zip(names, tensors, strict=True)))
            return list(named_outputs(network(arguments, training=False)).values())

        supported = min(opset, NEWEST_OPSET)
        try:
            graph, _ = tf2onnx.convert.from_function(tf.function(run), input_signature=specs, opset=supported)
        except Exception as error:
            raise PassError(f"export: tf2onnx can't convert {type(network).__name__}: {one_line(error)}") from error
        rename_inputs(graph, names)
        rename_outputs(graph, model.signature.output_names)
        set_input_axes(graph, model.signature)
        onnx.save(graph, out / "model.onnx")
        return Built("model.onnx", runtime_options={}, details={"opset": supported, "nodes": len(graph.graph.node)})

    def inspect(self, file: Path) -> Signature | None:
        from hone.runtimes.keras import read_model

        try:
            return _signature(read_model(file))
        except ArtifactError as error:
            raise RecipeError(str(error)) from None


def _load(loaded: LoadedRecipe) -> Any:
    from hone.runtimes.keras import read_model

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    spec, field = loaded.recipe.source, f"{loaded.path}: source"
    if spec.file:
        try:
            return read_model(loaded.file(spec.file, "source.file"))
        except ArtifactError as error:
            raise RecipeError(f"{field}.file: {error}") from error
    assert spec.loader is not None
    return call(load_function(spec.loader, loaded.root, f"{field}.loader"), spec.loader, f"{field}.loader")


def _signature(model: Any) -> Signature | None:
    """Return the model's own inputs; a dynamic axis 0 is the batch, other dynamic axes get names by position."""
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return None
    specs = []
    for tensor in tensors:
        name = tensor.name.split(":", 1)[0]
        dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
        shape = tuple(
            size if size is not None else BATCH if position == 0 else f"{name}_{position}"
            for position, size in enumerate(tensor.shape)
        )
        specs.append(TensorSpec(name=name, dtype=dtype, shape=shape))
    return Signature(inputs=tuple(specs))
