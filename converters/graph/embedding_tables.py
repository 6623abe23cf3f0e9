"""Embedding tables in 8 or 4 bits: most of a small encoder's bytes, and none of its time."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .onnx_graph import drop_unused_weights, free_name, value_names

LEAST_ROWS = 64
"""Smaller tables stay as they are: there is nothing to gain."""
BLOCK = 32
"""Values of 4 bits that share a scale."""


def quantize_tables(model: onnx.ModelProto, exclude: Collection[str] = (), bits: int = 8) -> list[str]:
    """Store the float tables that Gather reads in fewer bits; return the nodes' names.

    Of 8 bits a row is int8 times its largest magnitude / 127 (symmetric, round to nearest). ONNX Runtime's own
    quantizer gives a whole table one scale, which the largest of all its values sets. Of 4 bits each block of a row has
    a scale, so that its largest magnitude is -8 (GatherBlockQuantized; ONNX Runtime's docs/ContribOperators.md); a
    table whose rows don't divide into blocks gets 8 bits. Only rows that are looked up turn back into float.

    Args:
        model: changed in place.
        exclude: names of Gather nodes that are left as they are.
        bits: 8 or 4.
    """
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    taken = value_names(model)
    tables: dict[str, Stored] = {}
    nodes: list[onnx.NodeProto] = []
    done: list[str] = []
    for node in model.graph.node:
        table = stored.get(node.input[0]) if node.op_type == "Gather" and node.name not in exclude else None
        if table is None or not is_table(node, table):
            nodes.append(node)
            continue
        if table.name not in tables:
            small = bits == 4 and table.dims[1] % BLOCK == 0
            tables[table.name] = (_store_blocks if small else _store_rows)(model, table, taken)
        nodes += tables[table.name].lookup(node, taken)
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


@dataclass(frozen=True)
class Stored:
    """A table in fewer bits.

    Attributes:
        values, scales: names of tensors.
        blocks: values have 4 bits, and each block of a row a scale; else 8, and each row.
    """

    values: str
    scales: str
    blocks: bool

    def lookup(self, node: onnx.NodeProto, taken: set[str]) -> list[onnx.NodeProto]:
        """Return what takes a Gather's place."""
        output, indices = node.output[0], node.input[1]
        if self.blocks:
            inputs = [self.values, indices, self.scales]
            settings: dict[str, Any] = {"gather_axis": 0, "quantize_axis": 1, "block_size": BLOCK}
            kind = "GatherBlockQuantized"
            return [helper.make_node(kind, inputs, [output], name=node.name, domain="com.microsoft", **settings)]
        found, scale, wide = (free_name(f"{output}_{part}", taken) for part in ("int8", "scale", "float"))
        return [
            helper.make_node("Gather", [self.values, indices], [found], name=f"{node.name}_int8"),
            helper.make_node("Gather", [self.scales, indices], [scale], name=f"{node.name}_scale"),
            helper.make_node("Cast", [found], [wide], name=f"{node.name}_cast", to=TensorProto.FLOAT),
            helper.make_node("Mul", [wide, scale], [output], name=node.name),
        ]


def _store_rows(model: onnx.ModelProto, table: onnx.TensorProto, taken: set[str]) -> Stored:
    """Add a table's int8 rows [rows, width] and their scales [rows, 1]."""
    values = numpy_helper.to_array(table)
    scales = np.abs(values).max(axis=1, keepdims=True) / 127
    rows = np.clip(np.round(values / np.where(scales == 0, 1, scales)), -127, 127).astype(np.int8)
    stored = Stored(free_name(f"{table.name}_int8", taken), free_name(f"{table.name}_scales", taken), blocks=False)
    for array, name in ((rows, stored.values), (scales.astype(np.float32), stored.scales)):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return stored


def _store_blocks(model: onnx.ModelProto, table: onnx.TensorProto, taken: set[str]) -> Stored:
    """Add a table's int4 values [rows, width] and their scales [rows, width / BLOCK]."""
    rows, width = table.dims
    values = numpy_helper.to_array(table).reshape(rows, width // BLOCK, BLOCK)
    largest = np.take_along_axis(values, np.abs(values).argmax(axis=2, keepdims=True), axis=2)
    scales = largest / -8
    whole = np.clip(np.round(values / np.where(scales == 0, 1, scales)), -8, 7).astype(np.int8).reshape(rows, width)
    packed = (whole[:, ::2] & 0x0F) | (whole[:, 1::2] << 4)
    stored = Stored(free_name(f"{table.name}_int4", taken), free_name(f"{table.name}_scales", taken), blocks=True)
    model.graph.initializer.append(
        helper.make_tensor(stored.values, TensorProto.INT4, [rows, width], packed.tobytes(), raw=True)
    )
    model.graph.initializer.append(numpy_helper.from_array(scales[..., 0].astype(np.float32), stored.scales))
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return stored
