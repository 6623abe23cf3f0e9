"""ONNX graphs that take the same inputs, side by side in one graph, and what makes one output of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, compose, helper, numpy_helper, version_converter

from hone.errors import PassError, one_line
from hone.signature import Signature, TensorSpec

from ..graph.contents import all_nodes


@dataclass(frozen=True)
class Linear:
    """A linear model of all outputs side by side.

    Attributes:
        weights: [outputs of all models, outputs].
        bias: [outputs].
    """

    weights: np.ndarray
    bias: np.ndarray


def merged(
    models: Sequence[onnx.ModelProto],
    signature: Signature,
    outputs: Sequence[str],
    combine: str,
    weights: Sequence[float],
    linear: Linear | None,
) -> onnx.ModelProto:
    """Return one graph of several.

    Args:
        models: with the same inputs.
        signature: of the inputs, and of the one output of each.
        outputs: the name of that output in each model.
        combine: average, vote or stacked.
        weights: of each model, for average and vote.
        linear: for stacked.

    Raises:
        PassError: they can't be brought to one version of their operators, or lie in one graph.
    """
    opset = max(_opset(model) for model in models)
    parts = [
        _part(model, f"m{place}_", opset, name) for place, (model, name) in enumerate(zip(models, outputs, strict=True))
    ]
    ends = [f"m{place}_{name}" for place, name in enumerate(outputs)]
    result = signature.outputs[0]
    nodes, initializers, shape = _combined(ends, result, combine, weights, linear)
    graph = helper.make_graph(
        [*(node for part in parts for node in part.graph.node), *nodes],
        "ensemble",
        [_value(spec) for spec in signature.inputs],
        [helper.make_tensor_value_info(result.name, TensorProto.FLOAT, shape)],
        [*(tensor for part in parts for tensor in part.graph.initializer), *initializers],
    )
    return helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in _versions(parts, opset).items()],
        functions=[function for part in parts for function in part.functions],
        ir_version=max(part.ir_version for part in parts),
    )


def _opset(model: onnx.ModelProto) -> int:
    return max((int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx")), default=1)


def _part(model: onnx.ModelProto, prefix: str, opset: int, output: str) -> onnx.ModelProto:
    """Return a graph of a version of operators, whose names but those of its inputs begin with a prefix."""
    try:
        if _opset(model) != opset:
            model = version_converter.convert_version(model, opset)
        return compose.add_prefix(model, prefix, rename_inputs=False)
    except Exception as error:
        raise PassError(f"ensemble: the graph that gives '{output}' can't be merged: {one_line(error)}") from error


def _versions(parts: Sequence[onnx.ModelProto], opset: int) -> dict[str, int]:
    """Return the version of each domain that a node is of: what ONNX Runtime saves names all domains that it knows.

    Raises:
        PassError: two parts need different ones; only those of the default domain can be converted.
    """
    needed: dict[str, tuple[int, int]] = {}
    for place, part in enumerate(parts, 1):
        versions = {item.domain: int(item.version) for item in part.opset_import}
        nodes = [*all_nodes(part.graph), *(node for function in part.functions for node in function.node)]
        for domain in sorted({node.domain for node in nodes} - {"", "ai.onnx"}):
            version = versions.get(domain, 1)
            other, first = needed.setdefault(domain, (version, place))
            if other != version:
                raise PassError(
                    f"ensemble: model {first} needs version {other} of the operators of {domain}, model {place} needs "
                    f"{version}; export them with one version"
                )
    return {"": opset, **{domain: version for domain, (version, _) in needed.items()}}


def _value(spec: TensorSpec) -> onnx.ValueInfoProto:
    kind = TensorProto.STRING if spec.dtype == "string" else helper.np_dtype_to_tensor_dtype(spec.numpy_dtype)
    return helper.make_tensor_value_info(spec.name, kind, list(spec.shape))


def _combined(
    ends: list[str], result: TensorSpec, combine: str, weights: Sequence[float], linear: Linear | None
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto], list[int | str]]:
    """Return the nodes that make one output of several, their constants, and its shape."""
    shares = np.asarray(weights or [1.0] * len(ends), np.float32)
    shares = shares / shares.sum()
    shape = list(result.shape)
    if linear is not None:
        nodes = [
            helper.make_node("Concat", ends, ["ensemble_all"], axis=1),
            helper.make_node("Gemm", ["ensemble_all", "ensemble_weights", "ensemble_bias"], [result.name]),
        ]
        constants = {"ensemble_weights": linear.weights, "ensemble_bias": linear.bias}
        return nodes, _constants(constants), [shape[0], len(linear.bias)]
    constants = {f"ensemble_share_{place}": share.reshape(1) for place, share in enumerate(shares)}
    nodes = []
    for place, end in enumerate(ends):
        scores = end
        if combine == "vote":
            constants |= {"ensemble_classes": np.array(shape[-1]), "ensemble_votes": np.array([0, 1], np.float32)}
            scores = f"ensemble_vote_{place}"
            nodes += [
                helper.make_node("ArgMax", [end], [f"ensemble_class_{place}"], axis=-1, keepdims=0),
                helper.make_node(
                    "OneHot", [f"ensemble_class_{place}", "ensemble_classes", "ensemble_votes"], [scores], axis=-1
                ),
            ]
        nodes.append(helper.make_node("Mul", [scores, f"ensemble_share_{place}"], [f"ensemble_part_{place}"]))
    nodes.append(helper.make_node("Sum", [f"ensemble_part_{place}" for place in range(len(ends))], [result.name]))
    return nodes, _constants(constants), shape


def _constants(arrays: dict[str, np.ndarray]) -> list[onnx.TensorProto]:
    return [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
