"""Convert weights and arithmetic to bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError, UnavailableError

from ...graph.onnx_graph import free_name, load_graph, save_graph, value_names
from ...registry import Built, PassContext, PassOptions, register
from ..export.providers import PROVIDERS, missing_provider

FLOAT, BFLOAT16 = TensorProto.FLOAT, TensorProto.BFLOAT16
KEEP_FLOAT = {
    "DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear", "RandomNormal", "RandomUniform", "Range", "Resize",
    "NonMaxSuppression", "LSTM", "GRU", "RNN", "CumSum", "TopK",
}  # fmt: skip
"""Operators whose float inputs are scales, positions or ranges, or that have no bfloat16 kernels on GPUs."""


class Options(PassOptions):
    """Half the size at float32's range: no overflow as in fp16, but 8 bits of precision. For GPUs from Ampere on.

    Inputs and outputs stay float32. On CPUs with bfloat16 arithmetic, use `openvino` with precision bfloat16.
    """

    block_ops: tuple[str, ...] = Field((), description="Operator types that stay in float32, e.g. [Softmax].")

    def missing(self) -> UnavailableError | None:
        return missing_provider("cuda", "bfloat16 graphs need ONNX Runtime's CUDA provider, which this host lacks")


@register("bf16", consumes="onnx", produces="onnx", options=Options, tools=("onnxruntime-gpu", "onnx"))
def bf16(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Convert every float32 weight and value, with casts at the graph's ends and around operators that stay in float32.

    The artifact prefers the CUDA provider, which has the kernels.

    Raises PassError when the graph has branches or loops, whose inner types can't be changed one by one.
    """
    graph = load_graph(model.entry)
    weights = to_bfloat16(graph, {*KEEP_FLOAT, *options.block_ops})
    save_graph(graph, out / "model.onnx")
    runtime_options = {**model.manifest.runtime_options, "providers": [PROVIDERS["cuda"], PROVIDERS["cpu"]]}
    return Built("model.onnx", "bf16", runtime_options=runtime_options, details={"bfloat16_weights": weights})


def to_bfloat16(model: onnx.ModelProto, keep: set[str]) -> int:
    """Change a graph in place; return how many weights it changed.

    Args:
        model: every operator of it in one graph.
        keep: operator types that stay in float32.

    Raises:
        PassError: a node has a graph inside.
    """
    graph = model.graph
    for node in graph.node:
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise PassError(f"bf16: node '{node.name}' ({node.op_type}) has a graph inside; use fp16 for this model")
    floats = _float_values(model)
    taken = value_names(model)
    only_kept = _read_only_by(graph, keep)
    weights = 0
    for tensor in graph.initializer:
        if tensor.data_type == FLOAT and tensor.name not in only_kept:
            tensor.CopyFrom(_as_bfloat16(tensor))
            weights += 1
    narrow = {tensor.name for tensor in graph.initializer if tensor.data_type == BFLOAT16}
    nodes: list[onnx.NodeProto] = []
    renamed: dict[str, str] = {}
    for value in graph.input:
        if value.name in floats:
            renamed[value.name] = free_name(f"{value.name}_bfloat16", taken)
            nodes.append(_cast(value.name, renamed[value.name], BFLOAT16))
            narrow.add(renamed[value.name])
    outputs = {value.name for value in graph.output if value.name in floats}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        for index, name in enumerate(node.output):
            if name in outputs:
                renamed[name] = node.output[index] = free_name(f"{name}_bfloat16", taken)
        results = [name for name in node.output if name in floats or name in renamed.values()]
        if node.op_type in keep:
            for index, name in enumerate(node.input):
                if name in narrow:
                    node.input[index] = free_name(f"{name}_float", taken)
                    nodes.append(_cast(name, node.input[index], FLOAT))
            nodes.append(node)
            for index, name in enumerate(node.output):
                if name in results:
                    node.output[index] = free_name(f"{name}_float", taken)
                    nodes.append(_cast(node.output[index], name, BFLOAT16))
        else:
            _narrow_attributes(node)
            nodes.append(node)
        narrow.update(results)
    nodes += [_cast(renamed[name], name, FLOAT) for name in outputs]
    del graph.node[:]
    graph.node.extend(nodes)
    del graph.value_info[:]
    onnx.checker.check_model(model)
    return weights


def _float_values(model: onnx.ModelProto) -> set[str]:
    """Return the names of all float32 values, by ONNX's own type inference."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=False).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    stored = {tensor.name for tensor in graph.initializer}
    return {value.name for value in values if value.type.tensor_type.elem_type == FLOAT and value.name not in stored}


def _read_only_by(graph: onnx.GraphProto, kinds: set[str]) -> set[str]:
    """Return the initializers that only operators of these types read."""
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(node.op_type)
    return {tensor.name for tensor in graph.initializer if readers.get(tensor.name, {""}) <= kinds}


def _narrow_attributes(node: onnx.NodeProto) -> None:
    """Change what says float32 inside a node: the target of a Cast, the value of a Constant."""
    for attribute in node.attribute:
        if attribute.name in ("to", "dtype") and attribute.i == FLOAT:
            attribute.i = BFLOAT16
        elif attribute.name == "value" and attribute.HasField("t") and attribute.t.data_type == FLOAT:
            attribute.t.CopyFrom(_as_bfloat16(attribute.t))
        elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
            values = np.asarray(attribute.f if attribute.name == "value_float" else attribute.floats, np.float32)
            tensor = _as_bfloat16(numpy_helper.from_array(values))
            attribute.CopyFrom(helper.make_attribute("value", tensor))


def _as_bfloat16(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """Round to nearest, ties to even; what is not finite stays so."""
    bits = numpy_helper.to_array(tensor).astype(np.float32).view(np.uint32)
    finite = (bits & 0x7F800000) != 0x7F800000
    rounded = np.where(finite, bits + 0x7FFF + ((bits >> 16) & 1), bits) >> 16
    raw = rounded.astype("<u2").tobytes()
    return helper.make_tensor(tensor.name, BFLOAT16, list(tensor.dims), raw, raw=True)


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)
