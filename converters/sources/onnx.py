"""Existing ONNX files, external data included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import version_converter
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from hone.artifact import Artifact
from hone.errors import PassError, RecipeError, did_you_mean, one_line
from hone.recipe import LoadedRecipe
from hone.signature import Signature

from ..context import Built, PassContext
from ..graph.batch_axis import common_rows, free_batch, with_batch
from ..graph.onnx_graph import graph_signature, is_large, load_graph, rename_outputs, save_graph, set_input_axes
from .base import Source, call_loader, register

FILE = "model.onnx"
OLDEST_OPSET = 13


@register("onnx")
class OnnxSource(Source):
    suffixes = (".onnx",)
    tools = ("onnx",)
    has_attention = True

    def owns(self, model: Any) -> bool:
        return isinstance(model, onnx.ModelProto) or (isinstance(model, str | Path) and str(model).endswith(".onnx"))

    def ingest(self, loaded: LoadedRecipe, out: Path) -> Built:
        """Copy the graph with its external data; inputs keep their names, outputs take those of the recipe."""
        model = _load(loaded)
        where = f"{loaded.path}: signature"
        try:
            declared = graph_signature(model)
        except PassError as error:
            raise RecipeError(f"{loaded.path}: source: {error}") from None
        rows = common_rows(declared)
        if rows is not None:
            declared = with_batch(declared)
        spec = loaded.recipe.signature
        signature = spec.to_signature() if spec else Signature(inputs=declared.inputs)
        if rows is not None and not all(tensor.batchable for tensor in signature.inputs):
            rows = None
        _check_inputs(signature, declared, f"{where}.inputs")
        if rows is None:
            set_input_axes(model, signature)
        else:
            free_batch(model, signature, rows, PassContext(loaded, signature, lambda _: None).sample.inputs)
        names, own = list(spec.outputs) if spec else [], declared.output_names
        if names and not set(names) <= set(own):
            if len(names) != len(own):
                raise RecipeError(f"{where}.outputs: {names} don't match the model's outputs {own}; name all in order")
            rename_outputs(model, names)
        save_graph(model, out / FILE)
        return Built(FILE, _precision(model), signature)

    def export(self, model: Artifact, opset: int, out: Path, context: PassContext) -> Built:
        """Copy the graph, less outputs that the signature leaves out.

        The operator set stays as it is: converting it downward loses operators, upward gains nothing. One older than 13
        is the exception, because per-channel quantization needs 13; it is converted to the requested one.
        """
        graph = load_graph(model.entry)
        _keep_outputs(graph, model.signature)
        version = next((item.version for item in graph.opset_import if item.domain in ("", "ai.onnx")), opset)
        if version < OLDEST_OPSET:
            try:
                graph = version_converter.convert_version(graph, opset)
            except Exception as error:
                raise PassError(
                    f"export: opset {version} can't be converted to {opset}: {one_line(error)}; "
                    f"export the model anew with opset {OLDEST_OPSET} or later"
                ) from error
        save_graph(graph, out / FILE)
        return Built(FILE, details={"opset": version if version >= OLDEST_OPSET else opset})

    def inspect(self, file: Path) -> Signature | None:
        try:
            declared = graph_signature(_read(file, f"{file}"))
            return declared if common_rows(declared) is None else with_batch(declared)
        except PassError as error:
            raise RecipeError(f"{file}: {error}") from None


def _load(loaded: LoadedRecipe) -> onnx.ModelProto:
    spec, field = loaded.recipe.source, f"{loaded.path}: source"
    if spec.loader and spec.file:
        raise RecipeError(f"{field}: give 'file' or 'loader' for an ONNX model, not both")
    if spec.file:
        return _read(loaded.file(spec.file, "source.file"), f"{field}.file")
    assert spec.loader is not None
    model = call_loader(loaded)
    if isinstance(model, str | Path):
        return _read(loaded.file(str(model), "source.loader"), f"{field}.loader")
    if not isinstance(model, onnx.ModelProto):
        raise RecipeError(f"{field}.loader: {spec.loader} returned {type(model).__name__}, not an onnx.ModelProto")
    _check(model, f"{field}.loader: {spec.loader} returned")
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
    for tensor in _tensors(model.graph):
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
    except Exception as error:
        raise RecipeError(f"{field}: {file}: its external data can't be read: {one_line(error)}") from error
    _check(model, f"{field}: {file} is")
    return model


def _check(model: onnx.ModelProto, where: str) -> None:
    if is_large(model):
        return
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise RecipeError(f"{where} not a valid ONNX model: {one_line(error)}") from error


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor that may hold data: initializers and constants, inside branches and loops too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _tensors(inner)


def _check_inputs(signature: Signature, declared: Signature, where: str) -> None:
    """The recipe's inputs must be the graph's: names, dtypes and number of axes; sizes that the graph fixes stay."""
    missing = [name for name in declared.input_names if name not in signature.input_names]
    for spec in signature.inputs:
        if spec.name not in declared.input_names:
            raise RecipeError(f"{where}: the graph has no input '{spec.name}'{did_you_mean(spec.name, missing)}")
        own = declared.input(spec.name)
        if spec.dtype != own.dtype or len(spec.shape) != len(own.shape):
            raise RecipeError(f"{where}: '{spec.name}' is {own.describe()} in the graph, not {spec.describe()}")
        for axis, fixed in zip(spec.shape, own.shape, strict=True):
            if isinstance(fixed, int) and axis != fixed:
                raise RecipeError(
                    f"{where}: '{spec.name}' is fixed to {own.describe()} in the graph, not {spec.describe()}; "
                    "write these sizes, or export the model anew with dynamic axes"
                )
    if missing:
        raise RecipeError(f"{where}: the graph also needs {', '.join(missing)}")


def _keep_outputs(graph: onnx.ModelProto, signature: Signature) -> None:
    """Leave the signature's outputs alone in the graph, in its order."""
    found = {value.name: value for value in graph.graph.output}
    kept = [found[name] for name in signature.output_names]
    del graph.graph.output[:]
    graph.graph.output.extend(kept)


def _precision(model: onnx.ModelProto) -> str:
    kinds = {tensor.data_type for tensor in model.graph.initializer}
    if any("QuantizeLinear" in node.op_type or node.op_type.endswith("Integer") for node in model.graph.node):
        return "int8"
    return "fp16" if onnx.TensorProto.FLOAT16 in kinds and onnx.TensorProto.FLOAT not in kinds else "fp32"
