"""Constants such as -1e9 that keep places out of a softmax: no lower precision has room for them beside real values."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_CARRIES = {"Cast", "Concat", "Expand", "Gather", "Identity", "Mul", "Reshape", "Slice", "Squeeze", "Tile", "Transpose"}
_CARRIES |= {"Unsqueeze"}
_JOINS = {"Add", "Sub", "Where"}
_ENDS = {"Attention", "LogSoftmax", "MultiHeadAttention", "Softmax"}

Path = list[onnx.NodeProto]


def constants(model: onnx.ModelProto) -> dict[str, TensorProto]:
    """Return the graph's stored float32 tensors by the name of their value: initializers and Constant nodes."""
    found = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            found[node.output[0]] = node.attribute[0].t
    return {name: tensor for name, tensor in found.items() if tensor.data_type == TensorProto.FLOAT}


def mask_paths(model: onnx.ModelProto, least: float) -> dict[str, list[Path | None]]:
    """Return, for each constant of a mask, one entry for each node that reads it.

    Args:
        model: a graph.
        least: magnitude from which a value can be a mask's. The others must be zero.

    Returns:
        The nodes from the constant to the softmaxes or fused attention, these included; None when what the node gives
        is also read for something else, or is never added to scores or put in their place.
    """
    walk = _Walk(model)
    found = {}
    for name, tensor in constants(model).items():
        values = numpy_helper.to_array(tensor)
        large = np.abs(values) >= least
        if large.any() and not values[~large].any():
            found[name] = [walk.through(node, name, joined=False) for node in walk.readers[name]]
    return {name: paths for name, paths in found.items() if any(path is not None for path in paths)}


class _Walk:
    """From a value to all that reads it."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.readers: dict[str, Path] = defaultdict(list)
        for node in model.graph.node:
            for name in dict.fromkeys(node.input):
                self.readers[name].append(node)
        self._outputs = {value.name for value in model.graph.output}
        self._known: dict[tuple[str, bool], Path | None] = {}

    def through(self, node: onnx.NodeProto, name: str, joined: bool) -> Path | None:
        """Return the nodes from this one, which reads the value `name`, to the end; None when it isn't a mask's way."""
        if node.op_type in _ENDS:
            # Fused attention takes a mask beside what it weighs: only a sum needs to have come before.
            return [node] if joined or node.op_type in ("Attention", "MultiHeadAttention") else None
        if node.op_type not in _CARRIES | _JOINS or (node.op_type == "Where" and node.input[0] == name):
            return None
        rest = self._from(node.output[0], joined or node.op_type in _JOINS)
        return None if rest is None else [node, *rest]

    def _from(self, name: str, joined: bool) -> Path | None:
        key = (name, joined)
        if key not in self._known:
            paths = [self.through(node, name, joined) for node in self.readers[name]]
            bad = name in self._outputs or not paths or any(path is None for path in paths)
            self._known[key] = None if bad else [node for path in paths for node in path or ()]
        return self._known[key]
