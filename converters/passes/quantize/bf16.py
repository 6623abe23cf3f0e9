"""Convert weights and arithmetic to bfloat16."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError, UnavailableError

from ...context import Built, PassContext
from ...graph.onnx_graph import free_name, load_graph, save_graph, value_names
from ...graph.providers import PROVIDERS, missing_provider
from ...registry import PassOptions, register

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

    def missing(self, given: str) -> UnavailableError | None:
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
    floats, taken = _float_values(model), value_names(model)
    weights = _narrow_weights(graph, keep)
    rewritten = _Rewritten(floats, taken, {value.name for value in graph.output if value.name in floats})
    rewritten.narrow.update(tensor.name for tensor in graph.initializer if tensor.data_type == BFLOAT16)
    for value in graph.input:
        if value.name in floats:
            rewritten.take_input(value.name)
    for node in graph.node:
        rewritten.add(node, keep=node.op_type in keep)
    rewritten.give_outputs()
    del graph.node[:]
    graph.node.extend(rewritten.nodes)
    del graph.value_info[:]
    onnx.checker.check_model(model)
    return weights


@dataclass
class _Rewritten:
    """The nodes of a graph whose float values are bfloat16, with casts at its ends and around what stays in float32.

    Attributes:
        floats: names of the values that are float32 in the graph as it was.
        taken: every name in use.
        outputs: the graph's float outputs, which stay float32.
        narrow: names of what is bfloat16 so far.
        renamed: inputs and outputs, which keep their names for what is float32, to the names of their narrow forms.
        nodes: in order.
    """

    floats: set[str]
    taken: set[str]
    outputs: set[str]
    narrow: set[str] = field(default_factory=set)
    renamed: dict[str, str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def take_input(self, name: str) -> None:
        """Cast an input of the graph."""
        self._rename(name)
        self.narrow.add(self.renamed[name])
        self.nodes.append(_cast(name, self.renamed[name], BFLOAT16))

    def add(self, node: onnx.NodeProto, *, keep: bool) -> None:
        """Add a node of the graph as it was, in bfloat16 or, with casts around it, in float32."""
        node.input[:] = [self.renamed.get(name, name) for name in node.input]
        for index, name in enumerate(node.output):
            if name in self.outputs:
                node.output[index] = self._rename(name)
        renamed = set(self.renamed.values())
        results = {name for name in node.output if name in self.floats or name in renamed}
        if keep:
            self._add_float(node, results)
        else:
            _narrow_attributes(node)
            self.nodes.append(node)
        self.narrow.update(results)

    def _add_float(self, node: onnx.NodeProto, results: set[str]) -> None:
        for index, name in enumerate(node.input):
            if name in self.narrow:
                node.input[index] = free_name(f"{name}_float", self.taken)
                self.nodes.append(_cast(name, node.input[index], FLOAT))
        self.nodes.append(node)
        for index, name in enumerate(node.output):
            if name in results:
                node.output[index] = free_name(f"{name}_float", self.taken)
                self.nodes.append(_cast(node.output[index], name, BFLOAT16))

    def give_outputs(self) -> None:
        """Cast the graph's outputs back."""
        self.nodes += [_cast(self.renamed[name], name, FLOAT) for name in self.outputs]

    def _rename(self, name: str) -> str:
        self.renamed[name] = free_name(f"{name}_bfloat16", self.taken)
        return self.renamed[name]


def _narrow_weights(graph: onnx.GraphProto, keep: set[str]) -> int:
    """Convert the weights that not only operators of these types read; return how many."""
    only_kept = _read_only_by(graph, keep)
    weights = [tensor for tensor in graph.initializer if tensor.data_type == FLOAT and tensor.name not in only_kept]
    for tensor in weights:
        tensor.CopyFrom(_as_bfloat16(tensor))
    return len(weights)


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
