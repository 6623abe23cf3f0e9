"""Which values of an ONNX graph are looked at, and along which axis their units lie."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

CHANNELS_FIRST = frozenset(
    {
        *("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "FusedConv", "BatchNormalization"),
        *("InstanceNormalization", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
    }
)
CHANNELS_LAST = frozenset(
    {
        *("MatMul", "Gemm", "LayerNormalization", "SkipLayerNormalization", "FusedMatMul", "MatMulInteger"),
        *("MatMulNBits", "DynamicQuantizeMatMul", "Attention", "EmbedLayerNormalization", "FusedGemm"),
    }
)
KEEP = frozenset(
    {
        *("Relu", "LeakyRelu", "Clip", "Sigmoid", "Tanh", "Gelu", "FastGelu", "BiasGelu", "QuickGelu", "Elu", "Selu"),
        *("PRelu", "HardSwish", "HardSigmoid", "Softplus", "Erf", "Add", "Mul", "Sub", "Div", "Sqrt", "Pow"),
        *("Cast", "Dropout", "DequantizeLinear", "QuantizeLinear"),
    }
)
"""Their outputs have the axes of their inputs."""
SAME = frozenset({"Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Dropout", "Cast", "Expand"})
"""They hand on values that were looked at before."""
NEVER = frozenset({"Shape", "Constant", "ConstantOfShape", "Range", "Slice", "Gather", "NonZero", "QuantizeLinear"})
RECTIFIERS = frozenset({"Relu", "Clip", "FusedConv"})


@dataclass(frozen=True)
class Value:
    """A value that is looked at.

    Attributes:
        name: in the graph.
        operator: of the node that gives it.
        feeds: types of the nodes that take it, after those that only hand it on.
        axis: that its units lie on; None: not known.
        weights: range of the widest channel of its weights, in times of the median one; 0: it has none.
    """

    name: str
    operator: str
    feeds: tuple[str, ...]
    axis: int | None
    weights: float = 0.0


def values_of(model: onnx.ModelProto) -> list[Value]:
    """Return the values of a graph's nodes in its order, less constants and those that are others in another shape."""
    users: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            users[name].append(node)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    constant = set(stored)
    axes: dict[str, int | None] = {}
    found = []
    for node in model.graph.node:
        own = [name for name in node.input if name and name not in constant]
        if not own:
            constant.update(node.output)
            continue
        axis = _axis(node, own, axes)
        axes.update(dict.fromkeys(node.output, axis))
        if node.op_type in SAME or node.op_type in NEVER:
            continue
        spread = _spread(node, stored)
        feeds = tuple(sorted(_feeds(node.output[0], users)))
        found.append(Value(node.output[0], node.op_type, feeds, axis, spread))
    return found


def _axis(node: onnx.NodeProto, own: list[str], axes: dict[str, int | None]) -> int | None:
    if node.op_type in CHANNELS_FIRST:
        return 1
    if node.op_type in CHANNELS_LAST:
        return -1
    if node.op_type in KEEP:
        return next((axes[name] for name in own if axes.get(name) is not None), None)
    return None


def _feeds(name: str, users: dict[str, list[onnx.NodeProto]], steps: int = 8) -> set[str]:
    """Return the types of the nodes that take a value; what only hands it on is looked through."""
    found: set[str] = set()
    front = [name]
    for _ in range(steps):
        taken = [user for value in front for user in users[value]]
        found |= {user.op_type for user in taken if user.op_type not in SAME}
        front = [output for user in taken if user.op_type in SAME for output in user.output]
    return found


def _spread(node: onnx.NodeProto, stored: dict[str, onnx.TensorProto]) -> float:
    """Return how much wider the widest output channel of a node's weights is than the median one."""
    from onnx import numpy_helper

    if node.op_type not in ("Conv", "MatMul", "Gemm") or len(node.input) < 2:
        return 0.0
    tensor = stored.get(node.input[1])
    if tensor is None or tensor.data_type != tensor.FLOAT or len(tensor.dims) < 2:
        return 0.0
    if tensor.data_location == tensor.EXTERNAL:
        return 0.0  # only the graph is read
    weights = np.abs(numpy_helper.to_array(tensor))
    turned = any(item.name == "transB" and item.i for item in node.attribute)
    last = node.op_type != "Conv" and not turned
    channels = weights.reshape(-1, weights.shape[-1]).max(0) if last else weights.reshape(len(weights), -1).max(1)
    middle = float(np.median(channels))
    return float(channels.max()) / middle if middle else 0.0
