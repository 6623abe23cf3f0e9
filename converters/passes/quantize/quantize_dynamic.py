"""Dynamic int8 quantization: weights ahead of time, activations per batch at run time."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import onnx
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError, one_line

from ...context import Built, PassContext
from ...graph.embedding_tables import quantize_tables
from ...graph.onnx_graph import is_large, load_graph, save_graph
from ...graph.quantized_graph import count_quantized, graph_to_quantize, quiet_quantizer, split_gemms
from ...registry import register
from .seven_bits import SevenBitOptions


class Options(SevenBitOptions):
    """Weights to int8; no calibration. For models whose time goes into matrix products: transformers, dense, LSTM."""

    per_channel: bool = Field(True, description="One scale per output channel.")
    weight_type: Literal["qint8", "quint8"] = "qint8"
    op_types: tuple[str, ...] = Field(
        ("MatMul", "Gemm", "Attention", "LSTM", "Gather"),
        description="Operators to quantize; Gather stands for embedding tables, which get a scale for each row. "
        "Convolutions are left out: their dynamic kernels are slower than float32.",
    )
    exclude: tuple[str, ...] = Field((), description="Names of nodes that stay in float.")

    @property
    def fits(self) -> bool:
        return self.weight_type == "quint8"  # activations are unsigned always


@register(
    "quantize_dynamic", consumes="onnx", produces="onnx", options=Options, tools=("onnxruntime", "onnx"), revision=4
)
def quantize_dynamic(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Quantize weights to int8 (ONNX Runtime quantization guide, 'dynamic quantization').

    Raises PassError for an excluded name that no node has, or when nothing in the graph can be quantized.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization import quantize_dynamic as run

    file = out / "model.onnx"
    kinds = [kind for kind in options.op_types if kind != "Gather"]
    graph = graph_to_quantize(model.entry, options.exclude, "quantize_dynamic")
    split_gemms(graph, computed=True)
    if len(kinds) < len(options.op_types):
        quantize_tables(graph, options.exclude)
    prepared = out / "prepared.onnx"
    save_graph(graph, prepared)
    try:
        with quiet_quantizer():
            run(
                prepared,
                file,
                op_types_to_quantize=kinds,
                nodes_to_exclude=list(options.exclude),
                per_channel=options.per_channel,
                reduce_range=options.seven_bits,
                weight_type=QuantType.QInt8 if options.weight_type == "qint8" else QuantType.QUInt8,
                use_external_data_format=is_large(graph),
                # Of values behind fused operators no shape inference knows the type.
                extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
            )
        for left in out.glob("prepared.onnx*"):
            left.unlink()
    except Exception as error:
        raise PassError(f"quantize_dynamic: {one_line(error)}") from error
    counts = count_quantized(load_graph(file))
    if not counts["quantized"]:
        raise PassError(
            f"quantize_dynamic: the graph has no {', '.join(options.op_types)} with constant weights; "
            "set op_types, or use quantize_static"
        )
    requires = {**model.manifest.requires, **options.requires()}
    return Built("model.onnx", "int8", requires=requires, details={**counts, **options.told()})
