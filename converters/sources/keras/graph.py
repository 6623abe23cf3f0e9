"""What tf2onnx leaves to do in the graphs of Keras models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
from onnx import helper, numpy_helper

from ...graph.onnx_graph import free_name, value_names


def store_captured(model: onnx.ModelProto, captures: Iterable[tuple[Any, Any]]) -> None:
    """Turn tensors that a traced function captured, which tf2onnx leaves as inputs, into initializers, in place.

    The statistics of `keras.layers.Normalization` are such tensors: constants of the model that are no variables.

    Args:
        model: converted from the function.
        captures: of the function's graph: (tensor of the model, placeholder that stands for it).
    """
    inputs = {value.name for value in model.graph.input}
    for tensor, placeholder in captures:
        if placeholder.name in inputs:
            model.graph.initializer.append(numpy_helper.from_array(tensor.numpy(), placeholder.name))
    stored = {tensor.name for tensor in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(kept)


def replace_erfc(model: onnx.ModelProto, opset: int) -> None:
    """Write erfc(x), which ONNX lacks and Keras 3's GELU uses, as 1 - erf(x), in place."""
    taken = value_names(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Erfc":
            nodes.append(node)
            continue
        (x,), (result,) = node.input, node.output
        erf, one = free_name(f"{result}_erf", taken), free_name(f"{result}_one", taken)
        nodes.append(
            helper.make_node("Constant", [], [one], value=helper.make_tensor(one, onnx.TensorProto.FLOAT, [], [1.0]))
        )
        if opset >= 15:
            like = free_name(f"{one}_like", taken)
            nodes.append(helper.make_node("CastLike", [one, x], [like]))
            one = like
        nodes.append(helper.make_node("Erf", [x], [erf], name=node.name))
        nodes.append(helper.make_node("Sub", [one, erf], [result]))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
