"""Weight-only quantization in blocks: each block of a column has a scale of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError, one_line

from ...context import Built, PassContext
from ...graph.embedding_tables import quantize_tables
from ...graph.onnx_graph import drop_unused_weights, free_name, load_graph, save_graph, value_names
from ...graph.quantized_graph import count_quantized, quiet_quantizer
from ...registry import PassOptions, register

ACCURACY_LEVEL = {"float32": 1, "int8": 4}
"""`accuracy_level` of MatMulNBits (ONNX Runtime's docs/ContribOperators.md): what the products are computed in."""


class Options(PassOptions):
    """Matrix weights of 4 or 8 bits in blocks. For models whose time goes into matrix products, most of all language
    models; close to float, because no scale is shared by more than a block."""

    bits: Literal[4, 8] = 8
    block_size: Literal[16, 32, 64, 128, 256] = Field(
        32, description="Weights that share a scale; larger is smaller and faster, smaller is closer to float."
    )
    symmetric: bool = Field(True, description="Zero point in the middle; false stores one for each block.")
    compute: Literal["int8", "float32"] = Field(
        "int8", description="int8 quantizes activations too, block by block at run time, and is the fast one on CPUs."
    )
    tables: bool = Field(True, description="Embedding tables to int8 too, with a scale for each row.")
    exclude: tuple[str, ...] = Field((), description="Names of nodes that stay in float.")


@register("quantize_weights", consumes="onnx", produces="onnx", options=Options, tools=("onnxruntime", "onnx"))
def quantize_weights(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Turn MatMul into MatMulNBits (ONNX Runtime quantization guide, 'weight only', round to nearest).

    Raises PassError when nothing in the graph can be quantized.
    """
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    graph = load_graph(model.entry)
    split_gemms(graph)
    if options.tables:
        quantize_tables(graph, options.exclude)
    try:
        with quiet_quantizer():
            quantizer = MatMulNBitsQuantizer(
                graph,
                bits=options.bits,
                block_size=options.block_size,
                is_symmetric=options.symmetric,
                accuracy_level=ACCURACY_LEVEL[options.compute],
                nodes_to_exclude=list(options.exclude),
                op_types_to_quantize=("MatMul",),
            )
            quantizer.process()
    except Exception as error:
        raise PassError(f"quantize_weights: {one_line(error)}") from error
    quantized = quantizer.model.model
    counts = count_quantized(quantized)
    if not counts["quantized"]:
        raise PassError("quantize_weights: the graph has no MatMul with constant weights; use quantize_static")
    save_graph(quantized, out / "model.onnx")
    return Built("model.onnx", f"int{options.bits}", details=counts)


def split_gemms(model: onnx.ModelProto) -> None:
    """Write each plain Gemm with constant weights as MatMul and Add: only MatMul has a blockwise form."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    taken = value_names(model)
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        settings = {item.name: helper.get_attribute_value(item) for item in node.attribute}
        plain = settings.get("alpha", 1.0) == 1.0 and settings.get("beta", 1.0) == 1.0 and not settings.get("transA", 0)
        if node.op_type != "Gemm" or not plain or node.input[1] not in stored:
            nodes.append(node)
            continue
        weight = node.input[1]
        if settings.get("transB", 0):
            weight = free_name(f"{weight}_turned", taken)
            matrix = np.ascontiguousarray(numpy_helper.to_array(stored[node.input[1]]).T)
            model.graph.initializer.append(numpy_helper.from_array(matrix, weight))
        biased = len(node.input) > 2 and node.input[2]
        product = free_name(f"{node.output[0]}_product", taken) if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], list(node.output), name=f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    drop_unused_weights(model)
