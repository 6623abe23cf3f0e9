"""Move the range of outlying activations into the weights before int8 quantization."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper
from pydantic import Field

from hone.artifact import Artifact
from hone.data import Dataset
from hone.errors import PassError
from hone.runtimes.onnx.saturation import host_saturates

from ...context import Built, PassContext
from ...graph.execution import run_rows
from ...graph.onnx_graph import drop_unused_weights, free_name, is_large, save_graph, value_names
from ...graph.quantized_graph import graph_to_quantize, quiet_quantizer, split_gemms
from ...registry import PassOptions, register

WEIGHTED = ("MatMul", "Gemm", "Attention")
"""Operators whose second input is a matrix of shape [inputs, outputs]."""

NORMS = {"LayerNormalization": (1, 2), "SkipLayerNormalization": (2, 3)}
"""Positions of scale and bias, which can take up the factors of a normalization that feeds only smoothed layers."""

STRENGTHS = (0.5, 0.65, 0.8, 0.9)
TRIED_ROWS = 64
LEAST_FACTOR = 1e-4


class Options(PassOptions):
    """Equal arithmetic in float, kinder ranges for int8: for transformers, whose activations have outlying channels."""

    strength: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = Field(
        "auto",
        description="Share of an activation's range that the weights take over (alpha in the paper); auto tries "
        f"{', '.join(map(str, STRENGTHS))} and keeps the one whose int8 answers to calibration rows are closest.",
    )
    exclude: tuple[str, ...] = Field((), description="Names of nodes that are left as they are.")

    def decided_here(self) -> dict[str, Any]:
        return {"reduce_range": True} if self.strength == "auto" and host_saturates() else {}


@register(
    "smooth",
    consumes="onnx",
    produces="onnx",
    options=Options,
    needs=("calibration",),
    tools=("onnxruntime", "onnx"),
    revision=3,
)
def smooth(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Scale each matrix product's input channels down and its weights up by the same factors (Xiao et al. 2023,
    'SmoothQuant').

    The factors go into the normalization before, where that feeds nothing else, and into a Mul elsewhere.

    Raises PassError for an excluded name that no node has, when the graph has no matrix product with constant weights,
    or fails on the calibration rows.
    """
    graph = graph_to_quantize(model.entry, options.exclude, "smooth")
    groups = _groups(graph, set(options.exclude))
    if not groups:
        raise PassError("smooth: the graph has no MatMul, Gemm or Attention with constant weights; leave smooth out")
    data = context.ranges("smooth")
    context.progress(f"observing {len(groups)} activations on {data.rows} rows")
    ranges = _observe(graph, list(groups), data)
    tried: dict[str, float] = {}
    if options.strength == "auto":
        tried = _try_strengths(graph, options, ranges, data.head(TRIED_ROWS), context)
    strength = float(min(tried, key=lambda text: tried[text])) if options.strength == "auto" else options.strength
    folded = _smooth_all(graph, groups, ranges, strength)
    save_graph(graph, out / "model.onnx")
    details: dict[str, Any] = {"smoothed": sum(map(len, groups.values())), "folded": folded}
    details |= {"multiplied": len(groups) - folded, "strength": strength}
    return Built("model.onnx", details={**details, **({"int8_error_by_strength": tried} if tried else {})})


def _smooth_all(
    graph: onnx.ModelProto, groups: dict[str, list[onnx.NodeProto]], ranges: dict[str, np.ndarray], strength: float
) -> int:
    """Smooth every group in place; return how many factors went into normalizations."""
    folded = sum(_smooth(graph, name, nodes, ranges[name], strength) for name, nodes in groups.items())
    drop_unused_weights(graph)
    return folded


def _try_strengths(
    graph: onnx.ModelProto, options: Options, ranges: dict[str, np.ndarray], data: Dataset, context: PassContext
) -> dict[str, float]:
    """Return the error of dynamic int8 after smoothing with each strength: |int8 - float| / |float| over the outputs.

    What is best differs by model: the paper takes 0.5 for some and 0.8 and more for those with strong outliers.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    errors: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="hone-smooth-") as scratch:
        folder = Path(scratch)
        save_graph(graph, folder / "float.onnx")
        wanted = _answers(folder / "float.onnx", data)
        for strength in STRENGTHS:
            context.progress(f"trying strength {strength:g}")
            tried = onnx.ModelProto()
            tried.CopyFrom(graph)
            _smooth_all(tried, _groups(tried, set(options.exclude)), ranges, strength)
            split_gemms(tried, computed=True)
            save_graph(tried, folder / "smooth.onnx")
            with quiet_quantizer():
                quantize_dynamic(
                    folder / "smooth.onnx",
                    folder / "int8.onnx",
                    op_types_to_quantize=list(WEIGHTED),
                    per_channel=True,
                    reduce_range=host_saturates(),  # else the errors would be those of sums that are cut off
                    weight_type=QuantType.QInt8,
                    use_external_data_format=is_large(tried),
                    extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
                )
            got = _answers(folder / "int8.onnx", data)
            gap = sum(float(np.square(a - b).sum()) for a, b in zip(got, wanted, strict=True))
            errors[f"{strength:g}"] = round((gap / max(_energy(wanted), 1e-30)) ** 0.5, 6)
    return errors


def _energy(arrays: list[np.ndarray]) -> float:
    return sum(float(np.square(array).sum()) for array in arrays)


def _answers(file: Path, data: Dataset) -> list[np.ndarray]:
    """Return a graph's float outputs for all rows, in batches: one array a batch and output.

    Raises:
        PassError: the graph doesn't run.
    """
    found = [array for outputs in run_rows(file, data, "smooth") for array in outputs.values()]
    return [array.astype(np.float64) for array in found if array.dtype.kind == "f"]


def _groups(model: onnx.ModelProto, exclude: set[str]) -> dict[str, list[onnx.NodeProto]]:
    """Return the matrix products with constant weights by the activation that they read."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    groups: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    for node in model.graph.node:
        if node.op_type not in WEIGHTED or node.name in exclude or len(node.input) < 2:
            continue
        weight = stored.get(node.input[1])
        if weight is None or len(weight.dims) != 2 or node.input[0] in stored or _transposed_input(node):
            continue
        groups[node.input[0]].append(node)
    return dict(groups)


def _transposed_input(node: onnx.NodeProto) -> bool:
    return node.op_type == "Gemm" and any(item.name == "transA" and item.i for item in node.attribute)


def _observe(model: onnx.ModelProto, names: list[str], data: Dataset) -> dict[str, np.ndarray]:
    """Return the largest magnitude of each channel (last axis) of values of a graph, over all rows.

    Raises:
        PassError: the graph doesn't run.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    known = {value.name for value in watched.graph.output}
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    ranges: dict[str, np.ndarray] = {}
    for outputs in run_rows(watched, data, "smooth", names):
        for name, values in outputs.items():
            largest = np.abs(values.reshape(-1, values.shape[-1])).max(axis=0)
            ranges[name] = np.maximum(ranges[name], largest) if name in ranges else largest
    return ranges


def _smooth(
    model: onnx.ModelProto, name: str, nodes: list[onnx.NodeProto], activation: np.ndarray, strength: float
) -> bool:
    """Scale one activation's readers; return whether the factors went into the normalization before it."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {node.input[1]: numpy_helper.to_array(stored[node.input[1]]) for node in nodes}
    turned = {node.input[1]: _turned(node) for node in nodes}
    rows = [np.abs(matrix).max(axis=1 if not turned[key] else 0) for key, matrix in weights.items()]
    factors = _factors(activation, np.max(rows, axis=0), strength)
    taken = value_names(model)
    for node in nodes:
        matrix = weights[node.input[1]]
        scaled = matrix * (factors[None, :] if turned[node.input[1]] else factors[:, None])
        fresh = free_name(f"{node.input[1]}_smooth", taken)
        model.graph.initializer.append(numpy_helper.from_array(scaled.astype(matrix.dtype), fresh))
        node.input[1] = fresh
    if _fold(model, name, nodes, factors, taken):
        return True
    inverse = free_name(f"{name}_smooth_factors", taken)
    dtype = next(iter(weights.values())).dtype
    model.graph.initializer.append(numpy_helper.from_array((1 / factors).astype(dtype), inverse))
    smoothed = free_name(f"{name}_smooth", taken)
    first = min(index for index, node in enumerate(model.graph.node) if any(node is other for other in nodes))
    multiply = helper.make_node("Mul", [name, inverse], [smoothed], name=smoothed)
    for node in nodes:
        node.input[0] = smoothed
    model.graph.node.insert(first, multiply)
    return False


def _factors(activation: np.ndarray, weight: np.ndarray, strength: float) -> np.ndarray:
    """Return what each input channel is divided by, from the largest magnitudes of its values and of its weights."""
    with np.errstate(divide="ignore", invalid="ignore"):
        factors = activation.astype(np.float64) ** strength / weight.astype(np.float64) ** (1 - strength)
    # A channel that is always zero, or whose weights are, has no range to share.
    factors = np.where(np.isfinite(factors) & (activation > 0) & (weight > 0), factors, 1.0)
    return np.maximum(factors, LEAST_FACTOR)


def _turned(node: onnx.NodeProto) -> bool:
    """Return whether a node's weights have the input channels on their second axis."""
    return node.op_type == "Gemm" and any(item.name == "transB" and item.i for item in node.attribute)


def _fold(model: onnx.ModelProto, name: str, nodes: list[onnx.NodeProto], factors: np.ndarray, taken: set[str]) -> bool:
    """Divide scale and bias of the normalization that gives a value, when only these nodes read it."""
    graph = model.graph
    producer = next((node for node in graph.node if node.output and node.output[0] == name), None)
    if producer is None or producer.op_type not in NORMS or any(value.name == name for value in graph.output):
        return False
    readers = [node for node in graph.node if name in node.input]
    if any(not any(reader is node for node in nodes) for reader in readers):
        return False
    stored = {tensor.name: tensor for tensor in graph.initializer}
    places = [place for place in NORMS[producer.op_type] if place < len(producer.input) and producer.input[place]]
    if any(producer.input[place] not in stored for place in places):
        return False
    for place in places:
        values = numpy_helper.to_array(stored[producer.input[place]])
        fresh = free_name(f"{producer.input[place]}_smooth", taken)
        graph.initializer.append(numpy_helper.from_array((values / factors).astype(values.dtype), fresh))
        producer.input[place] = fresh
    return True
