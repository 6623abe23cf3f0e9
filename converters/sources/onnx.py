"""Existing ONNX files, external data included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from converters.onnx_graph import graph_signature, load_graph, rename_outputs
from converters.passes.base import Built, PassContext
from converters.sources.base import Source, register
from hone.artifact import Artifact
from hone.errors import PassError, RecipeError, one_line
from hone.recipe import LoadedRecipe
from hone.signature import Signature
from hone.userload import call, load_function

LIMIT = 2**31 - 1  # protobuf's largest message; larger models keep their weights in a second file
FILE, WEIGHTS = "model.onnx", "model.onnx.data"


@register("onnx")
class OnnxSource(Source):
    suffixes = (".onnx",)
    tools = ("onnx",)

    def owns(self, model: Any) -> bool:
        return isinstance(model, onnx.ModelProto)

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        model = _load(loaded)
        try:
            declared = graph_signature(model)
        except PassError as error:
            raise RecipeError(f"{loaded.path}: source: {error}") from None
        spec = loaded.recipe.signature
        signature = spec.to_signature() if spec else Signature(inputs=declared.inputs)
        for name in signature.input_names:
            declared.input(name)
        names = list(spec.outputs) if spec else []
        if names and not set(names) <= set(declared.output_names):
            rename_outputs(model, names)
        _save(model, out)
        return Built(FILE, _precision(model), signature)

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Copy the graph; one older than opset 13 is converted upward, because per-channel quantization needs it."""
        graph = load_graph(model.entry)
        version = next(item.version for item in graph.opset_import if item.domain in ("", "ai.onnx"))
        if version < 13:
            try:
                graph = onnx.version_converter.convert_version(graph, opset)
            except Exception as error:
                raise PassError(f"export: opset {version} can't be converted to {opset}: {one_line(error)}") from error
        _save(graph, out)
        return Built(FILE, details={"opset": max(version, opset) if version < 13 else version})

    def inspect(self, file: Path) -> Signature | None:
        return graph_signature(_read(file, f"{file}"))


def _load(loaded: LoadedRecipe) -> onnx.ModelProto:
    spec, field = loaded.recipe.source, f"{loaded.path}: source"
    if spec.file:
        return _read(loaded.file(spec.file, "source.file"), f"{field}.file")
    assert spec.loader is not None
    model = call(load_function(spec.loader, loaded.root, f"{field}.loader"), spec.loader, f"{field}.loader")
    if not isinstance(model, onnx.ModelProto):
        raise RecipeError(f"{field}.loader: {spec.loader} returned {type(model).__name__}, not an onnx.ModelProto")
    return model


def _read(file: Path, field: str) -> onnx.ModelProto:
    """Read a model and its external data, which must lie in the model's folder."""
    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:
        raise RecipeError(f"{field}: {file} is not a readable ONNX model: {one_line(error)}") from error
    if not model.graph.node:
        raise RecipeError(f"{field}: {file} is not a readable ONNX model: its graph is empty")
    folder = file.parent.resolve()
    for tensor in model.graph.initializer:
        if not uses_external_data(tensor):
            continue
        location = ExternalDataInfo(tensor).location
        data = (folder / location).resolve()
        if not data.is_relative_to(folder):
            raise RecipeError(f"{field}: tensor '{tensor.name}' names the file {location}, outside the model's folder")
        if not data.is_file():
            raise RecipeError(f"{field}: tensor '{tensor.name}' needs the file {location}, which is missing")
    try:
        onnx.load_external_data_for_model(model, str(folder))
        if model.ByteSize() < LIMIT:
            onnx.checker.check_model(model)
    except Exception as error:
        raise RecipeError(f"{field}: {file} is not a valid ONNX model: {one_line(error)}") from error
    return model


def _save(model: onnx.ModelProto, out: Path) -> None:
    if model.ByteSize() < LIMIT:
        onnx.save(model, out / FILE)
    else:
        onnx.save(model, out / FILE, save_as_external_data=True, location=WEIGHTS)


def _precision(model: onnx.ModelProto) -> str:
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    if any("QuantizeLinear" in node.op_type or node.op_type.endswith("Integer") for node in model.graph.node):
        return "int8"
    return "fp16" if onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds else "fp32"
