"""What the quantizing passes share: graphs that ONNX Runtime's tool can take, what it quantized, and its silence."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from hone.errors import PassError, did_you_mean

from .embedding_tables import is_table
from .onnx_graph import drop_unused_weights, free_name, load_graph, name_nodes, value_names

# Operators that carry the arithmetic of a model; the others only move or reshape values.
_HEAVY = {"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "Attention", "Gather"}
_INTEGER = {
    "ConvInteger": "Conv",
    "MatMulInteger": "MatMul",
    "QLinearConv": "Conv",
    "QLinearMatMul": "MatMul",
    "DynamicQuantizeLSTM": "LSTM",
    "QAttention": "Attention",
    "DynamicQuantizeMatMul": "MatMul",
    "MatMulNBits": "MatMul",
    "GatherBlockQuantized": "Gather",
}

# Operators that give what they get in another order or shape; ONNX Runtime moves dequantization behind them.
_MOVES = {"Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}


def graph_to_quantize(file: Path, exclude: Iterable[str], name: str) -> onnx.ModelProto:
    """Read a graph and name its nodes.

    Args:
        file: of the graph.
        exclude: names of nodes that stay in float.
        name: the pass's.

    Raises:
        PassError: the file is no graph, or no node has one of these names.
    """
    model = load_graph(file)
    name_nodes(model)
    check_names(f"{name}: exclude", exclude, {node.name for node in model.graph.node})
    return model


def check_names(field: str, given: Iterable[str], valid: Collection[str]) -> None:
    """Raise PassError for the first name that the model hasn't got; it has too many to list them."""
    for name in given:
        if name not in valid:
            near = did_you_mean(name, valid)
            meant = near if near.startswith("; did you mean") else "; hone profile lists the nodes of a stored variant"
            raise PassError(f"{field}: the model has no '{name}'{meant}")


def split_gemms(model: onnx.ModelProto, *, computed: bool = False) -> None:
    """Write each plain Gemm as a MatMul, which keeps its name, and an Add: only MatMul has blockwise and dynamic forms.

    ONNX Runtime's dynamic quantizer does so too, but renames the nodes before it looks for those to leave out, and
    turns weights where they are, once for each Gemm that reads them.

    Args:
        model: changed in place; its nodes have names.
        computed: split those whose weights other nodes compute, too.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    taken = value_names(model)
    turned: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        plain = settings.get("alpha", 1.0) == 1.0 and settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
        if node.op_type != "Gemm" or not plain or not (computed or node.input[1] in stored):
            nodes.append(node)
            continue
        weight = node.input[1]
        if settings.get("transB", 0):
            if weight not in turned:
                turned[weight] = free_name(f"{weight}_turned", taken)
                if weight in stored:
                    matrix = np.ascontiguousarray(numpy_helper.to_array(stored[weight]).T)
                    model.graph.initializer.append(numpy_helper.from_array(matrix, turned[weight]))
                else:
                    nodes.append(helper.make_node("Transpose", [weight], [turned[weight]], name=turned[weight]))
            weight = turned[weight]
        biased = len(node.input) > 2 and node.input[2]
        product = free_name(f"{node.output[0]}_product", taken) if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], list(node.output), name=f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_weights(model)


def count_quantized(model: onnx.ModelProto) -> dict[str, object]:
    """Return how many heavy operators run in int8 and which stayed in float, by name.

    A QDQ operator counts as quantized when its weights come from DequantizeLinear: its data may, where the operator
    before it is quantized and it is not.
    """
    dequantized = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    quantized: Counter[str] = Counter()
    left: list[str] = []
    for node in model.graph.node:
        if node.op_type in _INTEGER:
            quantized[_INTEGER[node.op_type]] += 1
        elif node.op_type == "Gather" and node.input[0] not in dequantized:
            # Others look up shapes, or the scales beside a table.
            table = stored.get(node.input[0])
            if table is not None and table.data_type == onnx.TensorProto.INT8:
                quantized[node.op_type] += 1
            elif table is not None and is_table(node, table):
                left.append(node.name or node.output[0])
        elif node.op_type in _HEAVY:
            if node.input[0 if node.op_type == "Gather" else 1] in dequantized:
                quantized[node.op_type] += 1
            else:
                left.append(node.name or node.output[0])
    return {"quantized": sum(quantized.values()), "by_operator": dict(quantized), "left_in_float": left}


def store_weights_in_int8(model: onnx.ModelProto) -> int:
    """Put DequantizeLinear before the float weights of operators whose data is dequantized; return how many.

    Training has moved these weights onto a symmetric int8 grid: of the whole tensor where they lie on it, else of each
    output channel. They are stored as the integers of that grid.
    """
    dequantized: set[str] = set()
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" or (node.op_type in _MOVES and node.input[0] in dequantized):
            dequantized.update(node.output)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    done: dict[str, str] = {}
    added: list[tuple[onnx.NodeProto, onnx.NodeProto]] = []
    for node in model.graph.node:
        if node.op_type not in ("Conv", "MatMul", "Gemm") or node.input[0] not in dequantized:
            continue
        name = node.input[1]
        if name in stored and name not in done and stored[name].data_type == onnx.TensorProto.FLOAT:
            transposed = any(item.name == "transB" and item.i for item in node.attribute)
            axis = 0 if node.op_type == "Conv" or transposed else len(stored[name].dims) - 1
            done[name] = f"{name}_dequantized"
            added.append((node, _dequantize(model, stored[name], axis, done[name])))
        if name in done:
            node.input[1] = done[name]
    nodes = list(model.graph.node)
    for before, new in added:
        nodes.insert(nodes.index(before), new)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_weights(model)
    return len(added)


def start_ranges_at_zero(model: onnx.ModelProto) -> int:
    """Let the quantized range of what a Relu gives begin at zero; return how many were changed.

    Ranges learned as moving averages end a little below zero, where a Relu has nothing. ONNX Runtime merges the Relu
    and its operator into one integer operator only when the smallest integer stands for zero.
    """
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    positive = {output for node in model.graph.node if node.op_type == "Relu" for output in node.output}
    taken = value_names(model)
    changed = 0
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in positive or len(node.input) < 3:
            continue
        scale, zero = stored.get(node.input[1]), stored.get(node.input[2])
        if scale is None or zero is None or scale.ndim or zero == np.iinfo(zero.dtype).min:
            continue
        limits = np.iinfo(zero.dtype)
        wider = np.float32(scale * (limits.max - int(zero)) / (limits.max - limits.min))
        names = [free_name(f"{name}_from_zero", taken) for name in node.input[1:3]]
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(wider), names[0]))
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(limits.min, zero.dtype), names[1]))
        readers = [other for other in model.graph.node if node.output[0] in other.input]
        for other in (node, *readers):
            other.input[1:3] = names
        changed += 1
    drop_unused_weights(model)
    return changed


def _dequantize(model: onnx.ModelProto, tensor: onnx.TensorProto, axis: int, output: str) -> onnx.NodeProto:
    """Store a tensor's integers and scales; return the node that gives its values back."""
    values = numpy_helper.to_array(tensor)
    scale = np.float32(max(float(np.abs(values).max()), 1e-12) / 127)
    on_grid = values / scale
    scales: np.ndarray = np.asarray(scale, np.float32)
    if not np.allclose(on_grid, np.round(on_grid), atol=0.02):
        others = tuple(index for index in range(values.ndim) if index != axis)
        scales = (np.maximum(np.abs(values).max(axis=others), 1e-12) / 127).astype(np.float32)
        on_grid = values / np.expand_dims(scales, others)
    integers = np.clip(np.round(on_grid), -127, 127).astype(np.int8)
    parts = {"quantized": integers, "scale": scales, "zero_point": np.zeros(scales.shape, np.int8)}
    names = [f"{tensor.name}_{part}" for part in parts]
    model.graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in zip(names, parts.values(), strict=True)
    )
    node = helper.make_node("DequantizeLinear", names, [output], name=f"{output}_node")
    if scales.ndim:
        node.attribute.append(helper.make_attribute("axis", axis))
    return node


def heavy_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the heavy operators that are in float: those that `count_quantized` calls left in float."""
    return list(count_quantized(model)["left_in_float"])  # type: ignore[call-overload]


@contextlib.contextmanager
def quiet_quantizer() -> Iterator[None]:
    """ONNX Runtime's quantizer prints its progress and logs advice about its own command line tools; drop both."""
    root = logging.getLogger()
    level, disabled = root.level, root.manager.disable
    logging.disable(logging.WARNING)  # a level that is set here is set anew by its modules, once they are imported
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        root.setLevel(level)
