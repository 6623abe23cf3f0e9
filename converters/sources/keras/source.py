"""Keras 3 and Keras 2 (tf_keras) models, exported with tf2onnx."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hone.artifact import Artifact
from hone.errors import ArtifactError, PassError, RecipeError, UnavailableError, one_line
from hone.recipe import LoadedRecipe
from hone.signature import BATCH, Signature, TensorSpec
from hone.userload import code_digest

from ...context import Built, PassContext
from ..base import Source, call_loader, register

FILE = "model.keras"
NEWEST_OPSET = 18  # of tf2onnx 1.17
NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


@register("keras")
class KerasSource(Source):
    suffixes = (".keras", ".h5")
    tools = ("tensorflow-cpu", "tensorflow", "keras", "tf-keras", "tf2onnx", "onnx")

    def owns(self, model: Any) -> bool:
        return any(
            cls.__name__ == "Model" and cls.__module__.split(".", 1)[0] in ("keras", "tf_keras")
            for cls in type(model).__mro__
        )

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        """Save the model as `model.keras`, and load it again at once: what can't be loaded is no baseline."""
        from hone.runtimes import runtime_class
        from hone.runtimes.keras import read_model

        runtime_class("keras").require()
        model = self._load(loaded)
        options: dict[str, Any] = {}
        if loader := loaded.recipe.source.loader:
            options = {"loader": loader, "root": str(loaded.root), "code": code_digest(loader, loaded.root)}
        try:
            model.save(out / FILE)
        except Exception as error:
            raise RecipeError(f"{loaded.path}: source: Keras can't save the model: {one_line(error)}") from error
        try:
            read_model(out / FILE, options)
        except ArtifactError as error:
            raise RecipeError(f"{loaded.path}: source: the model {str(error).partition(': ')[2]}") from error
        spec = loaded.recipe.signature
        signature = spec.to_signature() if spec else file_signature(out / FILE)
        if signature is None:
            raise RecipeError(f"{loaded.path}: signature: is required: a subclassed model doesn't declare its inputs")
        return Built(FILE, "fp32", signature, runtime_options=options)

    def _load(self, loaded: LoadedRecipe) -> Any:
        """Return the recipe's model: a `.keras` file, what the loader gives, or that with the weights of a file."""
        from hone.runtimes.keras import import_tensorflow, read_h5, read_model

        import_tensorflow()
        spec, field = loaded.recipe.source, f"{loaded.path}: source"
        file = loaded.file(spec.file, "source.file") if spec.file else None
        if spec.loader is None:
            assert file is not None
            try:
                return read_h5(file) if file.suffix == ".h5" else read_model(file, {})
            except ArtifactError as error:
                raise RecipeError(f"{field}.file: {error}") from error
        model = call_loader(loaded)
        if not self.owns(model):
            raise RecipeError(f"{field}.loader: {spec.loader} returned {type(model).__name__}, not a Keras model")
        if file is not None:
            try:
                model.load_weights(file)
            except Exception as error:
                raise RecipeError(f"{field}.file: {file} doesn't fit {spec.loader}: {one_line(error)}") from error
        return model

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Convert a traced call of the model with tf2onnx; tensors stay channels last, as the signature says.

        `tf2onnx.convert.from_keras` knows neither Keras 3's outputs nor models that give a dict, so the call is traced
        here, once for both versions of Keras.

        Raises PassError with tf2onnx's reason when an operation has no ONNX counterpart.
        """

        return self._export(model, model.signature, opset, out)

    def export_channels_first(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Raises PassError when no input has four axes."""
        inputs = tuple(spec.with_axes(NCHW) if len(spec.shape) == 4 else spec for spec in model.signature.inputs)
        if inputs == model.signature.inputs:
            raise PassError("export: layout nchw: no input has four axes, [batch, height, width, channels]")
        return self._export(model, model.signature.model_copy(update={"inputs": inputs}), opset, out)

    @staticmethod
    def _export(model: Artifact, signature: Signature, opset: int, out: Path) -> Built:
        from hone.runtimes.keras import read_model

        from ...graph.onnx_graph import save_graph

        network = read_model(model.entry, model.manifest.runtime_options)
        graph, supported = to_onnx(network, signature, opset)
        save_graph(graph, out / "model.onnx")
        return exported(graph, signature, supported)

    def inspect(self, file: Path) -> Signature | None:
        return file_signature(file)

    def recipe_lines(self, file: Path) -> list[tuple[str, str]]:
        return [("# loader: model:build", "if it has layers of your own: a module that registers them")]


def exported(graph: Any, signature: Signature, opset: int) -> Built:
    """Return what an export wrote."""
    details = {"opset": opset, "nodes": len(graph.graph.node)}
    return Built("model.onnx", signature=signature, runtime_options={}, details=details)


def to_onnx(network: Any, signature: Signature, opset: int) -> tuple[Any, int]:
    """Return a Keras model as an ONNX graph with the signature's names, and the operator set it has.

    Raises:
        PassError: an operation has no ONNX counterpart.
        UnavailableError: tf2onnx is not installed.
    """
    from hone.runtimes.keras import traced

    names: list[str] = []
    function = traced(network, signature.input_names, names)
    return function_to_onnx(function, names, signature, opset, type(network).__name__)


def function_to_onnx(function: Any, names: list[str], signature: Signature, opset: int, what: str) -> tuple[Any, int]:
    """As `to_onnx`, for a `tf.function` of the inputs that gives a list of outputs.

    Args:
        names: of the outputs, filled when the function is traced.
        what: it is, for messages.
    """
    from hone.runtimes.keras import import_tensorflow

    tf = import_tensorflow()
    try:
        import onnx
        import tf2onnx
    except ImportError as error:
        raise UnavailableError(f"{error.name} is not installed", "pip install 'hone[tensorflow]'") from None
    from ...graph.graph_signature import fit_outputs, merge_opsets
    from ...graph.onnx_graph import is_large, rename_inputs
    from .graph import replace_erfc, store_captured

    own = [spec.with_axes(NHWC) if spec.source_axes else spec for spec in signature.inputs]
    specs = [
        tf.TensorSpec([axis if isinstance(axis, int) else None for axis in spec.shape], spec.dtype, name=spec.name)
        for spec in own
    ]
    turned = [f"{spec.name}:0" for spec in signature.inputs if spec.source_axes]
    supported = min(opset, NEWEST_OPSET)
    try:
        with _quiet():
            graph, _ = tf2onnx.convert.from_function(
                function, input_signature=specs, opset=supported, inputs_as_nchw=turned or None
            )
            # Traced already: TensorFlow gives the same one again.
            store_captured(graph, function.get_concrete_function(*specs).graph.captures)
    except Exception as error:
        raise PassError(f"export: tf2onnx can't convert {what}: {one_line(error)}") from error
    replace_erfc(graph, supported)
    _check_operators(graph)
    rename_inputs(graph, signature.input_names)
    fit_outputs(graph, names, signature)
    merge_opsets(graph)
    if not is_large(graph):
        onnx.checker.check_model(graph)
    return graph, supported


def _check_operators(graph: Any) -> None:
    """tf2onnx logs what it can't convert and keeps TensorFlow's operator; no runtime knows that one."""
    from onnx import defs

    for node in graph.graph.node:
        if node.domain == "" and not defs.has(node.op_type):
            layer = node.name.split("/")[-2] if "/" in node.name else node.name
            raise PassError(
                f"export: TensorFlow's {node.op_type} in layer '{layer}' has no ONNX counterpart; "
                "express it by other operations of keras.ops"
            )


def file_signature(file: Path) -> Signature | None:
    """Return the inputs that a `.keras` or `.h5` file declares, without TensorFlow; None for a subclassed model.

    A dynamic axis 0 is `batch`, the others are named after their position.

    Raises:
        ArtifactError: the file is neither.
    """
    from hone.runtimes.keras import read_h5_config, read_member

    whole = read_h5_config(file)[0] if file.suffix == ".h5" else read_member(file, "config.json")
    config = whole.get("config", {})
    layers = {
        str(layer["config"].get("name")): layer["config"]
        for layer in config.get("layers", [])
        if layer.get("class_name") == "InputLayer"
    }
    names = _input_order(config.get("input_layers")) or list(layers)
    if not names or not set(names) <= set(layers):
        return None
    return Signature(inputs=tuple(_spec(name, layers[name]) for name in names))


def _input_order(value: Any) -> list[str]:
    """Return the layer names in `input_layers`: one reference ["name", 0, 0], or a list or dict of them."""
    if isinstance(value, dict):
        return [name for item in value.values() for name in _input_order(item)]
    if not isinstance(value, list):
        return []
    if value and isinstance(value[0], str):
        return [value[0]]
    return [name for item in value for name in _input_order(item)]


def _spec(name: str, config: dict[str, Any]) -> TensorSpec:
    shape = config.get("batch_shape") or config.get("batch_input_shape") or [None]
    axes = (
        size if size is not None else BATCH if position == 0 else f"dim{position}"
        for position, size in enumerate(shape)
    )
    dtype = config.get("dtype")
    return TensorSpec(name=name, dtype=dtype if isinstance(dtype, str) else "float32", shape=tuple(axes))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """tf2onnx logs its progress, and errors that are raised again here; keep the terminal clean."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
