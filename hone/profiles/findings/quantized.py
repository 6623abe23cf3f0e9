"""int8 nodes that compute in float, and what quantizing itself costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from hone.profiles.families import family
from hone.profiles.findings.seen import Seen, counted, named
from hone.profiles.graph import THROUGH, Graph, Node
from hone.profiles.record import NodeShare, ProfileFinding

FLOAT_KERNELS = (
    "MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Conv", "FusedConv", "ConvTranspose", "LSTM", "GRU", "RNN",
    "Attention", "MultiHeadAttention",
)  # fmt: skip
"""Kernels of ONNX Runtime that compute in float whatever their weights were."""
MATRICES = ("matrix products", "convolutions", "recurrent layers", "attention")
INTEGER = ("Integer", "IntegerToFloat")
"""How the names of other integer kernels end."""
DEQUANTIZE, QUANTIZE = "DequantizeLinear", "QuantizeLinear"
NOTABLE = 0.05
"""Share of the time from which what quantizing costs is worth a line."""


def find(seen: Seen) -> Iterator[ProfileFinding]:
    if seen.graph is None:
        yield from _of_kernels(seen)
    elif seen.precision == "fp16":
        yield from _halves(seen)
    else:
        yield from _of_graph(seen, seen.graph)
    costs = [node for node in seen.nodes if family(node.operator) == "quantizing"]
    share = seen.share(costs)
    if share >= NOTABLE:
        kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(node.operator for node in costs).most_common())
        beside = _float_neighbors(seen.graph) if seen.graph is not None else ""
        yield ProfileFinding(
            kind="quantizing",
            what=f"quantizing and dequantizing itself takes time: {kinds}{beside}",
            share=share,
            nodes=named(costs),
            remedy="static quantization (quantize_static) has scales beforehand" if _is_dynamic(costs) else "",
        )


def _float_neighbors(graph: Graph) -> str:
    """Return what computes in float between integers, where values are converted to and fro; most frequent first."""
    found: Counter[str] = Counter()
    for node in graph.nodes:
        if node.operator == DEQUANTIZE and node.inputs[0] not in graph.constants:
            found.update({user.operator for user in graph.ahead(node, THROUGH)} - {QUANTIZE, *THROUGH})
        if node.operator == QUANTIZE and (maker := graph.behind(node.inputs[0])) is not None:
            found[maker.operator] += maker.operator != DEQUANTIZE
    most = ", ".join(kind for kind, count in found.most_common(4) if count)
    return f", around {most} in float" if most else ""


def _is_dynamic(costs: Sequence[NodeShare]) -> bool:
    return any(node.operator.startswith("Dynamic") for node in costs)


def _of_graph(seen: Seen, graph: Graph) -> Iterator[ProfileFinding]:
    """By what feeds each kernel: weights that are stored in int8, or activations that were quantized just before."""
    fell: list[Node] = []
    feeding: list[Node] = []
    left: list[Node] = []
    for node in graph.nodes:
        if node.operator not in FLOAT_KERNELS:
            continue
        dequantized = _dequantized(graph, node)
        if any(graph.is_quantized(weight) for weight in graph.weights(node)) or len(dequantized) > 1:
            fell.append(node)
            feeding += dequantized
        elif graph.weights(node):
            left.append(node)
    if fell:
        yield ProfileFinding(
            kind="float_kernel",
            what=f"{counted(len(fell), 'node')} of quantized weights or inputs ({_kinds(fell)}) "
            f"{'computes' if len(fell) == 1 else 'compute'} in float: {_why(graph, fell)}",
            share=seen.share([*fell, *feeding]),
            nodes=named(fell),
            remedy="leave them in float (exclude), or let quantize_static quantize what feeds and follows them",
        )
    if left and _has_integers(graph):
        yield ProfileFinding(
            kind="left_in_float",
            what=f"{counted(len(left), 'node')} ({_kinds(left)}) with float weights in a quantized model",
            share=seen.share(left),
            nodes=named(left),
            remedy="the recipe leaves them out (block_ops, exclude, max_loss), or the pass can't quantize them",
        )


def _dequantized(graph: Graph, node: Node) -> list[Node]:
    makers = [graph.behind(value) for value in node.inputs]
    return [maker for maker in makers if maker is not None and maker.operator == DEQUANTIZE]


def _has_integers(graph: Graph) -> bool:
    begins = ("QLinear", "DynamicQuantize", "QGemm", "QAttention", DEQUANTIZE)
    return any(node.operator.startswith(begins) or node.operator.endswith(INTEGER) for node in graph.nodes)


def _why(graph: Graph, fell: Sequence[Node]) -> str:
    """Return what ONNX Runtime's integer kernels want and these nodes lack, the most frequent first."""
    return " and ".join(reason for reason, _ in Counter(_reason(graph, node) for node in fell).most_common(2))


def _reason(graph: Graph, node: Node) -> str:
    stored = set(graph.weights(node))
    inputs = [value for value in node.inputs if value and value not in stored]
    makers = [graph.behind(value) for value in inputs]
    if any(maker is None or maker.operator != DEQUANTIZE for maker in makers):
        return "an input isn't quantized"
    users = graph.users(node)
    if not users or any(user.operator != QUANTIZE for user in users):
        return f"what follows ({users[0].operator if users else 'the output'}) takes floats"
    return "ONNX Runtime has no integer kernel for that"


def _halves(seen: Seen) -> Iterator[ProfileFinding]:
    """By the types that ONNX Runtime's kernels were given: of fp16 it has few on a CPU."""
    heavy = [node for node in seen.nodes if family(node.operator) in MATRICES]
    fell = [node for node in heavy if node.kernel.split()[:1] == ["float"]]
    if fell:
        yield ProfileFinding(
            kind="float_kernel",
            what=f"{len(fell)} of {counted(len(heavy), 'node')} ({_kinds(fell)}) of a model in fp16 compute in fp32",
            share=seen.share(fell),
            nodes=named(fell),
            remedy="ONNX Runtime has few kernels for fp16 on a CPU: it saves memory there, not time",
        )


def _of_kernels(seen: Seen) -> Iterator[ProfileFinding]:
    """By the names of kernels, which end in what they compute in: OpenVINO's."""
    wanted = {"int8": ("i8", "u8"), "bf16": ("bf16",)}.get(seen.precision)
    heavy = [node for node in seen.nodes if family(node.operator) in MATRICES and "_" in node.kernel]
    if wanted is None:
        return
    fell = [node for node in heavy if not node.kernel.lower().endswith(wanted)]
    if fell:
        kernels = ", ".join(dict.fromkeys(node.kernel for node in fell))
        yield ProfileFinding(
            kind="float_kernel",
            what=f"{counted(len(fell), 'node')} of {len(heavy)} ({_kinds(fell)}) of a model in {seen.precision} "
            f"{'computes' if len(fell) == 1 else 'compute'} in float: {kernels}",
            share=seen.share(fell),
            nodes=named(fell),
        )


def _kinds(nodes: Sequence[Node] | Sequence[NodeShare]) -> str:
    return ", ".join(kind for kind, _ in Counter(node.operator for node in nodes).most_common())
