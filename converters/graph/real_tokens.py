"""Rewriting a graph so that what is computed token by token is computed for the tokens that a mask leaves in.

Texts of several lengths share a batch by padding. Attention mixes the tokens of a row, and needs them side by side;
matrix products, normalizations and what lies between them take each token alone. Those run on one long row of real
tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .execution import Shape
from .onnx_graph import free_name, value_names

ELEMENTWISE = {
    "Abs", "Add", "BiasGelu", "Cast", "Clip", "Div", "Elu", "Erf", "Exp", "FastGelu", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "QuickGelu", "Reciprocal",
    "Relu", "Selu", "Sigmoid", "Softplus", "Sqrt", "Sub", "Tanh",
}  # fmt: skip
"""Operators that take each number alone, or with those at its place."""

OVER_FEATURES = {"LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "Softmax"}
"""Operators over the last axis, unless their `axis` says otherwise."""

WEIGHTED = "MatMul"


@dataclass
class _Graph:
    """What is known of a graph's values.

    Attributes:
        shapes: by name.
        stored: shapes of constants by name.
        masks: values that follow from the mask and constants alone.
    """

    shapes: Mapping[str, Shape]
    stored: dict[str, Shape]
    masks: set[str] = field(default_factory=set)


def skip_padding(model: onnx.ModelProto, mask: str, multiple: int, shapes: Mapping[str, Shape]) -> int:
    """Compute what is computed token by token for the real tokens only, in place.

    Values at padded places are those of another token: what reads them has to leave them out by the mask, as it has to
    before. The signature stays.

    Args:
        model: a graph.
        mask: input of shape [batch, sequence]; a token is real where it isn't 0.
        multiple: real tokens are filled up to a multiple of this many, so that kernels see few different sizes.
        shapes: of its values, by name, as `shapes_met` gives them.

    Returns:
        How many matrix products run on real tokens; 0: the graph is as it was.
    """
    known = _read(model, mask, shapes)
    region = _with_products(model, [node for node in model.graph.node if _by_token(node, known, known.shapes[mask])])
    if not region:
        return 0
    _rewrite(model, region, known, _Places(model, mask, multiple))
    return sum(node.op_type == WEIGHTED for node in region)


def _read(model: onnx.ModelProto, mask: str, shapes: Mapping[str, Shape]) -> _Graph:
    graph = model.graph
    stored: dict[str, Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            stored[node.output[0]] = tuple(node.attribute[0].t.dims)
    masks = {mask}
    for node in graph.node:
        read = [name for name in node.input if name and name not in stored]
        if read and all(name in masks for name in read):
            masks.update(node.output)
    return _Graph(shapes, stored, masks)


def _by_token(node: onnx.NodeProto, known: _Graph, tokens: Shape) -> bool:
    """Return whether a node gives [*tokens, features] and computes each token alone."""

    def features(name: str) -> bool:
        shape = known.shapes.get(name, ())
        return len(shape) == 3 and shape[:2] == tokens and isinstance(shape[2], int) and name not in known.masks

    if len(node.output) != 1 or not features(node.output[0]):
        return False
    if node.op_type == WEIGHTED:
        return features(node.input[0]) and len(known.stored.get(node.input[1], ())) == 2
    if node.op_type in OVER_FEATURES:
        axis = next((item.i for item in node.attribute if item.name == "axis"), -1)
        return axis in (-1, 2) and features(node.input[0]) and all(name in known.stored for name in node.input[1:])
    if node.op_type not in ELEMENTWISE:
        return False
    read = [name for name in node.input if name]
    return any(features(name) for name in read) and all(features(name) or _for_all(name, known) for name in read)


def _for_all(name: str, known: _Graph) -> bool:
    """Return whether a value is a constant that is the same for every token."""
    shape = known.stored.get(name)
    return shape is not None and len(shape) <= 3 and all(size == 1 for size in shape[:-1])


def _with_products(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Return the nodes that hang together with a matrix product; the others aren't worth the way there and back."""
    makers = {node.output[0]: index for index, node in enumerate(nodes)}
    group = list(range(len(nodes)))

    def root(index: int) -> int:
        while group[index] != index:
            index = group[index]
        return index

    for index, node in enumerate(nodes):
        for name in node.input:
            if name in makers:
                group[root(makers[name])] = root(index)
    heavy = {root(index) for index, node in enumerate(nodes) if node.op_type == WEIGHTED}
    return [node for index, node in enumerate(nodes) if root(index) in heavy]


class _Places:
    """Nodes that say where real tokens are, and that move values there and back."""

    def __init__(self, model: onnx.ModelProto, mask: str, multiple: int) -> None:
        self._model, self._taken = model, value_names(model)
        self.nodes: list[onnx.NodeProto] = []
        self._numbers: dict[tuple[int, ...], str] = {}
        self._find(mask, multiple)

    def new(self, name: str) -> str:
        return free_name(name, self._taken)

    def packed(self, value: str, width: int) -> tuple[str, list[onnx.NodeProto]]:
        """Return a value's real tokens, [1, tokens, width], and the nodes that gather them."""
        row, packed = self.new(f"{value}_row"), self.new(f"{value}_real")
        return packed, [
            _node("Reshape", [value, self._constant(1, -1, width)], row),
            _node("Gather", [row, self._real], packed, axis=1),
        ]

    def padded(self, packed: str, value: str, width: int) -> list[onnx.NodeProto]:
        """Return the nodes that give a value as the rest of the graph knows it, [batch, sequence, width]."""
        row, shape = self.new(f"{value}_all"), self.new(f"{value}_shape")
        return [
            _node("Gather", [packed, self._place], row, axis=1),
            _node("Concat", [self._tokens, self._constant(width)], shape, axis=0),
            _node("Reshape", [row, shape], value),
        ]

    def _find(self, mask: str, multiple: int) -> None:
        flat = self._add("Reshape", "mask_row", mask, self._constant(-1))
        found = self._add("Reshape", "real", self._add("NonZero", "real_found", flat), self._constant(-1))
        count = self._add("Shape", "real_count", found)
        least = self._add("Max", "real_least", count, self._constant(1))
        blocks = self._add("Add", "real_more", least, self._constant(multiple - 1))
        blocks = self._add("Div", "real_blocks", blocks, self._constant(multiple))
        whole = self._add("Mul", "real_whole", blocks, self._constant(multiple))
        filling = self._add("Sub", "real_missing", whole, count)
        zero = helper.make_tensor("value", TensorProto.INT64, [1], [0])
        filling = self._add("ConstantOfShape", "real_filling", filling, value=zero)
        self._real = self._add("Concat", "real_filled", found, filling, axis=0)
        kept = self._add("Cast", "mask_kept", flat, to=TensorProto.BOOL)
        kept = self._add("Cast", "mask_ones", kept, to=TensorProto.INT64)
        counted = self._add("CumSum", "real_before", kept, self._scalar(0))
        counted = self._add("Sub", "real_places", counted, self._constant(1))
        self._place = self._add("Max", "real_place", counted, self._constant(0))
        self._tokens = self._add("Shape", "token_axes", mask)

    def _add(self, kind: str, name: str, *read: str, **attributes: Any) -> str:
        given = self.new(name)
        self.nodes.append(_node(kind, read, given, **attributes))
        return given

    def _constant(self, *numbers: int) -> str:
        if numbers not in self._numbers:
            self._numbers[numbers] = self._store(np.array(numbers, np.int64))
        return self._numbers[numbers]

    def _scalar(self, number: int) -> str:
        return self._store(np.array(number, np.int64))

    def _store(self, values: np.ndarray) -> str:
        name = self.new("token_number")
        self._model.graph.initializer.append(numpy_helper.from_array(values, name))
        return name


def _node(kind: str, read: Iterable[str], given: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, list(read), [given], name=f"tokens_{given}", **attributes)


def _rewrite(model: onnx.ModelProto, region: list[onnx.NodeProto], known: _Graph, places: _Places) -> None:
    graph, inside = model.graph, {id(node) for node in region}
    made = {node.output[0] for node in region}
    outside = {name for node in graph.node if id(node) not in inside for name in node.input}
    outside |= {value.name for value in graph.output}
    packed = {name: places.new(f"{name}_real") for name in made}
    nodes = list(places.nodes)
    for node in graph.node:
        if id(node) not in inside:
            nodes.append(node)
            continue
        for name in dict.fromkeys(node.input):
            if name and name not in packed and name not in known.stored:
                packed[name], more = places.packed(name, int(known.shapes[name][2]))
                nodes += more
        given = node.output[0]
        node.input[:] = [packed.get(name, name) for name in node.input]
        node.output[:] = [packed[given]]
        nodes.append(node)
        if given in outside:
            nodes += places.padded(packed[given], given, int(known.shapes[given][2]))
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(copies)
