"""Operators that ONNX Runtime has as one kernel, and that run in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hone.profiles.findings.seen import Seen, counted, named
from hone.profiles.graph import Graph, Node
from hone.profiles.record import ProfileFinding

PRODUCTS = (
    "MatMul", "FusedMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "Gemm",
    "Einsum",
)  # fmt: skip
BETWEEN = (
    "Add", "Sub", "Mul", "Div", "Where", "Reshape", "Transpose", "Cast", "Identity", "Dropout", "Expand",
    "QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul",
)  # fmt: skip
"""What may stand between the products and the softmax of an attention."""
SCALING = ("Mul", "Div", "Add", "Sum", "Cast", "QuantizeLinear", "DequantizeLinear")
CONVOLUTIONS = ("Conv", "FusedConv")
ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid")
NOTABLE = 0.01
"""Share of the time from which parts are worth a line."""

Parts = list[list[Node]]
"""Of each occurrence, the nodes that one kernel would take the place of."""


def find(seen: Seen) -> Iterator[ProfileFinding]:
    if seen.graph is None:
        return
    for what, kernel, look in KINDS:
        parts = look(seen.graph)
        nodes = [node for one in parts for node in one]
        share = seen.share(nodes)
        if parts and share >= NOTABLE:
            yield ProfileFinding(
                kind="unfused",
                what=f"{what} {counted(len(parts), 'time')} left as parts ({_recipe(parts[0])}), not {kernel}",
                share=share,
                nodes=named(one[0] for one in parts),
                remedy=_remedy(seen, kernel),
            )


def _remedy(seen: Seen, kernel: str) -> str:
    options = seen.manifest.runtime_options
    if options.get("optimized") is False:
        return "the variant leaves ONNX Runtime's optimizations out: they were slower where it was tuned"
    if left_out := options.get("disabled_optimizers"):
        return f"the variant leaves {', '.join(left_out)} out of ONNX Runtime's optimizations"
    if seen.precision == "fp16" and kernel in ("Softmax", "Gelu"):
        return "ONNX Runtime has no kernel of it for fp16 on this device"
    if kernel in ("FusedConv", "Conv"):
        return "ONNX Runtime joins them when nothing else uses what the convolution gives"
    if "fuse" in seen.passes:
        return "the pass fuse ran, and its patterns don't fit here"
    return "the pass fuse (presets onnx-fused-...) looks for them before quantization"


def _recipe(nodes: list[Node]) -> str:
    """Return the operators of one occurrence, each once."""
    return ", ".join(dict.fromkeys(node.operator for node in nodes))


def _attention(graph: Graph) -> Parts:
    found = []
    for node in graph.nodes:
        if node.operator not in ("Softmax", "QLinearSoftmax"):
            continue
        before = list(graph.back(node, BETWEEN))
        after = list(graph.ahead(node, BETWEEN))
        first = next((one for one in before if one.operator in PRODUCTS), None)
        last = next((one for one in after if one.operator in PRODUCTS), None)
        if first is not None and last is not None:
            scaled = before[: before.index(first)]
            found.append([node, first, *(one for one in scaled if one.operator in BETWEEN), last])
    return found


def _layer_norm(graph: Graph) -> Parts:
    """x / sqrt(mean((x - mean)^2) + epsilon), as exporters of older opsets write it."""
    found = []
    for node in graph.nodes:
        if node.operator != "Sqrt":
            continue
        before = list(graph.back(node, ("Add", "ReduceMean", "Pow", "Mul", "Sub"), 4))
        after = [one for one in graph.users(node) if one.operator in ("Div", "Reciprocal", "Mul")]
        if after and any(one.operator == "ReduceMean" for one in before):
            parts = [one for one in before if one.operator in ("Add", "ReduceMean", "Pow", "Sub")]
            found.append([node, *parts, *after])
    return found


def _gelu(graph: Graph) -> Parts:
    found = []
    for node in graph.nodes:
        if node.operator != "Erf":
            continue
        before = [one for one in graph.back(node, ("Cast",), 2) if one.operator in ("Div", "Mul")]
        after = [one for one in graph.ahead(node, SCALING, 3) if one.operator in ("Add", "Sum", "Mul")]
        if after:
            found.append([node, *before, *after])
    return found


def _softmax(graph: Graph) -> Parts:
    """By its definition: where a type has no kernel for it, ONNX Runtime computes what the operator stands for."""
    found = []
    for node in graph.nodes:
        before = list(graph.back(node, ("Sub", "Cast"), 3)) if node.operator == "Exp" else []
        after = list(graph.ahead(node, ("ReduceSum", "Cast"), 3))
        kinds = {one.operator for one in after}
        if any(one.operator == "ReduceMax" for one in before) and {"ReduceSum", "Div"} <= kinds:
            parts = [*before, *after]
            found.append([node, *(one for one in parts if one.operator in ("Sub", "ReduceMax", "ReduceSum", "Div"))])
    return found


def _skip_layer_norm(graph: Graph) -> Parts:
    found = []
    for node in graph.nodes:
        if node.operator not in ("LayerNormalization", "SimplifiedLayerNormalization"):
            continue
        added = graph.maker(node.inputs[0])
        if added is not None and added.operator == "Add" and not any(name in graph.constants for name in added.inputs):
            found.append([added, node])
    return found


def _normalized_convolution(graph: Graph) -> Parts:
    found = []
    for node in graph.nodes:
        made = graph.maker(node.inputs[0]) if node.operator == "BatchNormalization" else None
        if made is not None and made.operator in CONVOLUTIONS:
            found.append([node])
    return found


def _activated_convolution(graph: Graph) -> Parts:
    found = []
    for node in graph.nodes:
        made = graph.maker(node.inputs[0]) if node.operator in ACTIVATIONS else None
        if made is not None and made.operator == "Conv":
            found.append([node])
    return found


KINDS: tuple[tuple[str, str, Callable[[Graph], Parts]], ...] = (
    ("attention", "Attention", _attention),
    ("LayerNorm", "LayerNormalization", _layer_norm),
    ("GELU", "Gelu", _gelu),
    ("softmax", "Softmax", _softmax),
    ("a sum and its LayerNorm", "SkipLayerNormalization", _skip_layer_norm),
    ("batch normalization of a convolution", "Conv", _normalized_convolution),
    ("the activation of a convolution", "FusedConv", _activated_convolution),
)
"""What is looked for, the kernel that there is for it, and how."""
