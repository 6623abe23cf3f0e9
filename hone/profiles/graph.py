"""The graph that ONNX Runtime runs, once its optimizations are done: its nodes, and what feeds them."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hone.errors import UnavailableError, one_line

if TYPE_CHECKING:
    import onnx

THROUGH = ("Transpose", "Reshape", "Cast", "Identity", "Unsqueeze", "Squeeze", "Flatten", "Dropout")
"""Operators that hand on what they are given, in another form."""
QUANTIZED = (2, 3, 21, 22)
"""Types of ONNX tensors that quantized weights have: uint8, int8, uint4, int4."""


@dataclass(frozen=True)
class Node:
    """One node.

    Attributes:
        name: as a trace has it, too.
        operator: its type.
        inputs: names of values; an empty one was left out.
        outputs: names of values.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Graph:
    """Nodes, by what they make and what they use."""

    def __init__(self, nodes: list[Node], constants: dict[str, int]) -> None:
        self.nodes = nodes
        self.constants = constants
        """Types of the values that are stored, by name: numbers of `onnx.TensorProto`."""
        self._makers = {output: node for node in nodes for output in node.outputs}
        self._users: dict[str, list[Node]] = defaultdict(list)
        for node in nodes:
            for value in node.inputs:
                self._users[value].append(node)

    def maker(self, value: str) -> Node | None:
        return self._makers.get(value)

    def users(self, node: Node) -> list[Node]:
        return [user for output in node.outputs for user in self._users[output]]

    def behind(self, value: str) -> Node | None:
        """Return what made a value, before those that only handed it on."""
        node = self.maker(value)
        while node is not None and node.operator in THROUGH:
            node = self.maker(node.inputs[0])
        return node

    def back(self, node: Node, through: tuple[str, ...], steps: int = 8) -> Iterator[Node]:
        """Yield the nodes that feed a node, and those that feed them while they are of some types."""
        front = [node]
        for _ in range(steps):
            front = [made for at in front for value in at.inputs if (made := self.maker(value)) is not None]
            yield from front
            front = [at for at in front if at.operator in through]

    def ahead(self, node: Node, through: tuple[str, ...], steps: int = 8) -> Iterator[Node]:
        """Yield the nodes that a node feeds, and those that they feed while they are of some types."""
        front = [node]
        for _ in range(steps):
            front = [user for at in front for user in self.users(at)]
            yield from front
            front = [at for at in front if at.operator in through]

    def is_quantized(self, value: str) -> bool:
        """True when a value is stored in eight bits or fewer, or made of such by DequantizeLinear."""
        node = self.behind(value)
        if node is not None and node.operator == "DequantizeLinear":
            value = node.inputs[0]
        return self.constants.get(value) in QUANTIZED

    def weights(self, node: Node) -> list[str]:
        """Return the inputs of a node that hold weights: stored, or made of what is stored alone."""
        return [value for value in node.inputs if value and self._is_stored(value)]

    def _is_stored(self, value: str) -> bool:
        node = self.behind(value)
        if node is None:
            return value in self.constants or self._root(value) in self.constants
        return node.operator == "DequantizeLinear" and node.inputs[0] in self.constants

    def _root(self, value: str) -> str:
        node = self.maker(value)
        while node is not None and node.operator in THROUGH:
            value = node.inputs[0]
            node = self.maker(value)
        return value


def read_graph(file: Path, ran: Sequence[tuple[str, str]] = ()) -> Graph:
    """Read a graph without its weights.

    Args:
        file: as ONNX Runtime wrote it.
        ran: names and types of the nodes of its trace, in order: where a node has no name, ONNX Runtime makes one up.

    Raises:
        UnavailableError: the package `onnx` is not installed, or can't read the file.
    """
    if find_spec("onnx") is None:
        raise UnavailableError("what was fused can't be read without onnx", "pip install onnx")
    import onnx

    try:
        model = onnx.load(file, load_external_data=False)
    except Exception as error:  # noqa: BLE001 - protobuf, onnx and the disk have errors of their own
        raise UnavailableError(f"{file}: can't be read: {one_line(error)}", "what was fused is not known") from None
    constants = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    own = {node.name for node in model.graph.node}
    made_up: dict[str, deque[str]] = defaultdict(deque)
    for name, operator in ran:
        if name not in own:
            made_up[operator].append(name)
    return Graph([_node(node, made_up[node.op_type]) for node in model.graph.node], constants)


def _node(node: onnx.NodeProto, made_up: deque[str]) -> Node:
    """Return a node; one without a name has that of the next of its type in the trace: both are in one order."""
    name = node.name or (made_up.popleft() if made_up else "")
    return Node(name, node.op_type, tuple(node.input), tuple(node.output))
