"""Embedding tables in int8: most of a small encoder's bytes, and none of its time."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .onnx_graph import drop_unused_weights, free_name, value_names

LEAST_ROWS = 64
"""Smaller tables stay as they are: there is nothing to gain."""


def quantize_tables(model: onnx.ModelProto, exclude: Collection[str] = ()) -> list[str]:
    """Store the float tables that Gather reads as int8, each row with its own scale; return the nodes' names.

    A row is int8 times its largest magnitude / 127 (symmetric, round to nearest); only rows that are looked up turn
    back into float. ONNX Runtime's own quantizer gives a whole table one scale, which the largest of all its values
    sets.

    Args:
        model: changed in place.
        exclude: names of Gather nodes that are left as they are.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    taken = value_names(model)
    tables: dict[str, tuple[str, str]] = {}
    nodes: list[onnx.NodeProto] = []
    done: list[str] = []
    for node in model.graph.node:
        table = stored.get(node.input[0]) if node.op_type == "Gather" and node.name not in exclude else None
        if table is None or not is_table(node, table):
            nodes.append(node)
            continue
        if table.name not in tables:
            tables[table.name] = _store(model, table, taken)
        nodes += _lookup(node, tables[table.name], taken)
        done.append(node.name)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_weights(model)
    return done


def is_table(node: onnx.NodeProto, tensor: onnx.TensorProto) -> bool:
    """Return whether a Gather looks up rows of a float matrix."""
    axis = next((item.i for item in node.attribute if item.name == "axis"), 0)
    rows = tensor.dims[0] if len(tensor.dims) == 2 else 0
    return axis == 0 and tensor.data_type == TensorProto.FLOAT and rows >= LEAST_ROWS


def _store(model: onnx.ModelProto, table: onnx.TensorProto, taken: set[str]) -> tuple[str, str]:
    """Add a table's int8 rows [rows, width] and their scales [rows, 1]; return their names."""
    values = numpy_helper.to_array(table)
    scales = np.abs(values).max(axis=1, keepdims=True) / 127
    rows = np.clip(np.round(values / np.where(scales == 0, 1, scales)), -127, 127).astype(np.int8)
    names = free_name(f"{table.name}_int8", taken), free_name(f"{table.name}_scales", taken)
    for array, name in ((rows, names[0]), (scales.astype(np.float32), names[1])):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return names


def _lookup(node: onnx.NodeProto, table: tuple[str, str], taken: set[str]) -> list[onnx.NodeProto]:
    """Return what takes a Gather's place: look up bytes and scale, and multiply."""
    output, indices = node.output[0], node.input[1]
    found, scale, wide = (free_name(f"{output}_{part}", taken) for part in ("int8", "scale", "float"))
    return [
        helper.make_node("Gather", [table[0], indices], [found], name=f"{node.name}_int8"),
        helper.make_node("Gather", [table[1], indices], [scale], name=f"{node.name}_scale"),
        helper.make_node("Cast", [found], [wide], name=f"{node.name}_cast", to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, scale], [output], name=node.name),
    ]
