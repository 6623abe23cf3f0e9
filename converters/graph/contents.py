"""What a graph is made of: which operators, where its weights are, and what it computes in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx

from .embedding_tables import is_table
from .onnx_graph import load_graph

DENSE = ("MatMul", "Gemm", "FusedMatMul", "Attention", "MultiHeadAttention")
CONVOLUTIONS = ("Conv", "ConvTranspose")
RECURRENT = ("LSTM", "GRU", "RNN")
TREES = ("TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor")
ATTENTION = ("Attention", "MultiHeadAttention", "GroupQueryAttention")
PASSED_ON = ("Cast", "Identity", "Reshape", "Where")
"""What stands between a softmax and the product of its shares; Where takes rows out that are masked whole."""
LOOPS = ("Loop", "Scan")
QUANTIZED = ("QuantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger", "MatMulNBits", "QLinearConv")
LARGE = 64
"""Fewer stored numbers are constants of formulas, scales and shapes: no layer's weights."""


@dataclass(frozen=True)
class Contents:
    """What a graph is made of.

    Attributes:
        dense, convolutions, recurrent, trees, attention, loops: how many there are.
        weights: stored numbers, in millions of bytes.
        in_dense, in_convolutions, in_recurrent, in_tables: shares of these bytes; tables are of embeddings.
        quantized: some arithmetic is in integers.
        half: weights are float16 or bfloat16.
    """

    dense: int = 0
    convolutions: int = 0
    recurrent: int = 0
    trees: int = 0
    attention: int = 0
    loops: int = 0
    weights: float = 0.0
    in_dense: float = 0.0
    in_convolutions: float = 0.0
    in_recurrent: float = 0.0
    in_tables: float = 0.0
    quantized: bool = False
    half: bool = False

    @property
    def multiplies(self) -> bool:
        """There are weights that values are multiplied with."""
        return self.in_dense + self.in_convolutions + self.in_recurrent > 0

    def describe(self) -> str:
        """Return it in words: `36 dense layers (51 % of 91.0 MB), 6 attention`."""
        parts = []
        for count, what, share in (
            (self.convolutions, "convolution", self.in_convolutions),
            (self.dense, "matrix product", self.in_dense),
            (self.recurrent, "recurrent layer", self.in_recurrent),
        ):
            weights = f" ({share:.0%} of the weights)" if share else ""
            parts += [f"{count} {what}{'s' if count > 1 else ''}{weights}"] if count else []
        parts += [f"{self.attention} attention"] if self.attention else []
        parts += [f"embedding tables ({self.in_tables:.0%} of the weights)"] if self.in_tables else []
        parts += [f"{self.trees} ensemble{'s' if self.trees > 1 else ''} of trees"] if self.trees else []
        parts += ["quantized already"] if self.quantized else []
        return f"{', '.join(parts) or 'no layers with weights'}; {self.weights:.3g} MB of weights"


def read_contents(file: Path) -> Contents:
    """Return what an ONNX file is made of.

    Raises:
        PassError: it is not readable.
    """
    return contents_of(load_graph(file))


def contents_of(model: onnx.ModelProto) -> Contents:
    """Return what a graph is made of, the bodies of its loops and branches included."""
    nodes = list(all_nodes(model.graph))
    stored = {tensor.name: tensor for graph in _graphs(model.graph) for tensor in graph.initializer}
    sizes = {name: _bytes(tensor) for name, tensor in stored.items()}
    owners: dict[str, str] = {}
    for node in nodes:
        for name in node.input:
            if name in stored and _values(stored[name]) >= LARGE:
                owners.setdefault(name, _owner(node, stored[name]))
    total = sum(sizes.values())
    shares = Counter[str]()
    for name, owner in owners.items():
        shares[owner] += sizes[name]
    counts = Counter(node.op_type for node in nodes)
    kinds = {stored[name].data_type for name in owners}
    halves = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}

    def share(owner: str) -> float:
        return shares[owner] / total if total else 0.0

    def count(names: tuple[str, ...]) -> int:
        return sum(counts[name] for name in names)

    return Contents(
        dense=_weighted(nodes, stored, DENSE),
        convolutions=count(CONVOLUTIONS),
        recurrent=count(RECURRENT),
        trees=count(TREES),
        attention=count(ATTENTION) + count_unfused_attention(model),
        loops=count(LOOPS),
        weights=total / 1e6,
        in_dense=share("dense"),
        in_convolutions=share("convolutions"),
        in_recurrent=share("recurrent"),
        in_tables=share("tables"),
        quantized=any(counts[name] for name in QUANTIZED),
        half=bool(kinds & halves) and onnx.TensorProto.FLOAT not in kinds,
    )


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Yield the nodes of a graph and of the graphs inside it."""
    for one in _graphs(graph):
        yield from one.node


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]:
                yield from _graphs(inner)


def _owner(node: onnx.NodeProto, tensor: onnx.TensorProto) -> str:
    if node.op_type == "Gather":
        return "tables" if is_table(node, tensor) else "others"
    kinds = {"dense": DENSE, "convolutions": CONVOLUTIONS, "recurrent": RECURRENT}
    return next((name for name, types in kinds.items() if node.op_type in types), "others")


def _weighted(nodes: list[onnx.NodeProto], stored: dict[str, onnx.TensorProto], types: tuple[str, ...]) -> int:
    """Return how many nodes of these types have stored weights."""
    return sum(node.op_type in types and any(name in stored for name in node.input) for node in nodes)


def _values(tensor: onnx.TensorProto) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _bytes(tensor: onnx.TensorProto) -> int:
    return len(tensor.raw_data) or _values(tensor) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize


def count_unfused_attention(model: onnx.ModelProto) -> int:
    """Return how many softmaxes weigh computed values: attention in a form that no pattern knows."""
    made = {output: node for node in model.graph.node for output in node.output}
    count = 0
    for node in model.graph.node:
        if node.op_type not in ("MatMul", "FusedMatMul") or not set(node.input) <= made.keys():
            continue
        found = [made[node.input[0]]]
        while found and found[0].op_type != "Softmax":
            through = found.pop(0)
            if through.op_type in PASSED_ON:
                found += [made[name] for name in through.input if name in made]
        count += bool(found)
    return count
