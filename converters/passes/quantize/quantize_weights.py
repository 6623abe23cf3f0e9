"""Weight-only quantization in blocks: each block of a column has a scale of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import onnx
from pydantic import Field, model_validator

from hone.artifact import Artifact
from hone.data import Dataset
from hone.errors import PassError, one_line

from ...context import Built, PassContext
from ...graph.embedding_tables import quantize_tables
from ...graph.execution import BATCH_ROWS
from ...graph.onnx_graph import save_graph
from ...graph.quantized_graph import count_quantized, graph_to_quantize, quiet_quantizer, split_gemms
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
    algorithm: Literal["nearest", "k_quant", "hqq", "gptq"] = Field(
        "nearest",
        description="nearest rounds; k_quant searches the scale and zero point of each block that lose least; hqq "
        "solves for zero points that are floats, which products in int8 can't use; gptq, of 4 bits only, makes up for "
        "each weight's rounding in the next ones, by what calibration rows give.",
    )
    symmetric: bool = Field(
        True, description="Zero point in the middle; false stores one for each block, as k_quant and hqq do anyway."
    )
    compute: Literal["int8", "float32"] = Field(
        "int8", description="int8 quantizes activations too, block by block at run time, and is the fast one on CPUs."
    )
    tables: bool = Field(True, description="Embedding tables, too: those that are read row by row.")
    table_bits: Literal[4, 8] = Field(
        8, description="Of embedding tables: 8 with a scale for each row, or 4 with one for each 32 values of it."
    )
    exclude: tuple[str, ...] = Field((), description="Names of nodes that stay in float.")

    @model_validator(mode="after")
    def _has_bits(self) -> Options:
        if self.algorithm == "gptq" and self.bits != 4:
            raise ValueError("gptq quantizes to 4 bits; set bits: 4")
        return self


@register(
    "quantize_weights",
    consumes="onnx",
    produces="onnx",
    options=Options,
    needs=("sample",),
    tools=("onnxruntime", "onnx"),
    revision=2,
)
def quantize_weights(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Turn MatMul into MatMulNBits (ONNX Runtime quantization guide, 'weight only').

    Raises PassError for an excluded name that no node has, or when nothing can be quantized, RecipeError for gptq
    without calibration rows.
    """
    graph = graph_to_quantize(model.entry, options.exclude, "quantize_weights")
    split_gemms(graph)
    if options.tables:
        quantize_tables(graph, options.exclude, options.table_bits)
    data = context.ranges("quantize_weights") if options.algorithm == "gptq" else None
    try:
        with quiet_quantizer():
            plain = options.algorithm in ("nearest", "hqq")
            quantized = _in_blocks(graph, options) if plain else _searched(graph, options, data)
    except Exception as error:
        raise PassError(f"quantize_weights: {one_line(error)}") from error
    counts = count_quantized(quantized)
    if not counts["quantized"]:
        raise PassError("quantize_weights: the graph has no MatMul with constant weights; use quantize_static")
    save_graph(quantized, out / "model.onnx")
    return Built("model.onnx", f"int{options.bits}", details=counts)


def _in_blocks(graph: onnx.ModelProto, options: Options) -> onnx.ModelProto:
    """Quantize by the weights alone."""
    from onnxruntime.quantization.matmul_nbits_quantizer import HQQWeightOnlyQuantConfig, MatMulNBitsQuantizer

    hqq = HQQWeightOnlyQuantConfig(options.block_size, options.bits, op_types_to_quantize=("MatMul",))
    quantizer = MatMulNBitsQuantizer(
        graph,
        bits=options.bits,
        block_size=options.block_size,
        is_symmetric=options.symmetric,
        accuracy_level=ACCURACY_LEVEL[options.compute],
        nodes_to_exclude=list(options.exclude),
        op_types_to_quantize=("MatMul",),
        algo_config=hqq if options.algorithm == "hqq" else None,
    )
    quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    return made


def _searched(graph: onnx.ModelProto, options: Options, data: Dataset | None) -> onnx.ModelProto:
    """Quantize by what a search finds: k_quant for blocks, gptq (Frantar et al. 2023) for the calibration rows."""
    from onnxruntime.quantization.neural_compressor.weight_only import gptq_quantize, rtn_quantize

    zero_points = options.algorithm == "k_quant" or not options.symmetric
    odd = _odd_columns(graph, options.block_size) if zero_points else []
    settings: dict[str, Any] = {
        "weight_config": dict.fromkeys([*options.exclude, *odd], "fp32"),
        "num_bits": options.bits,
        "group_size": options.block_size,
        "scheme": "sym" if options.symmetric else "asym",
        "accuracy_level": ACCURACY_LEVEL[options.compute],
    }
    if data is None:
        made = rtn_quantize(graph, algorithm="k_quant", **settings).model
    else:
        batches = ((batch, None) for batch in data.batches(BATCH_ROWS))
        made = gptq_quantize(graph, batches, n_samples=-1, **settings).model
    return _in_blocks(made, options.model_copy(update={"algorithm": "nearest"}))


def _odd_columns(graph: onnx.ModelProto, block_size: int) -> list[str]:
    """Return the products whose columns have an odd number of blocks: ONNX Runtime's search packs the zero points of
    two blocks into a byte, also of different columns. They are rounded."""
    sizes = {tensor.name: tensor.dims[0] for tensor in graph.graph.initializer if tensor.dims}
    found = [node for node in graph.graph.node if node.op_type == "MatMul" and node.input[1] in sizes]
    return [node.name for node in found if -(-sizes[node.input[1]] // block_size) % 2]
