"""Convert weights and arithmetic to float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from pydantic import Field

from converters.onnx_graph import load_graph, save_graph
from converters.passes.base import Built, PassContext, PassOptions, register
from hone.artifact import Artifact
from hone.errors import PassError


class Options(PassOptions):
    """Half precision: half the size; faster on GPUs, slower on processors that have no float16 arithmetic."""

    keep_io: bool = Field(True, description="Keep float32 inputs and outputs, so callers need not change.")
    block_ops: tuple[str, ...] = Field((), description="Operator types that stay in float32, e.g. [Softmax].")


@register("fp16", consumes="onnx", produces="onnx", options=Options, tools=("onnxruntime", "onnx"))
def fp16(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Convert with ONNX Runtime's float16 converter.

    Raises PassError naming a weight that float16 can't hold (its largest number is 65504).
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    graph = load_graph(model.entry)
    _check_range(graph)
    converted = convert_float_to_float16(
        graph, keep_io_types=options.keep_io, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *options.block_ops]
    )
    save_graph(converted, out / "model.onnx")
    halves = sum(tensor.data_type == TensorProto.FLOAT16 for tensor in converted.graph.initializer)
    signature = model.signature
    if not options.keep_io:
        halve = {"float32": "float16"}
        inputs = tuple(s.model_copy(update={"dtype": halve.get(s.dtype, s.dtype)}) for s in signature.inputs)
        outputs = tuple(s.model_copy(update={"dtype": halve.get(s.dtype, s.dtype)}) for s in signature.outputs)
        signature = signature.model_copy(update={"inputs": inputs, "outputs": outputs})
    return Built("model.onnx", "fp16", signature, details={"float16_weights": halves})


def _check_range(model: onnx.ModelProto) -> None:
    limit = float(np.finfo(np.float16).max)
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        largest = float(np.abs(numpy_helper.to_array(tensor)).max(initial=0.0))
        if largest > limit:
            raise PassError(
                f"fp16: weight '{tensor.name}' holds {largest:.3g}, float16 ends at {limit:.0f}; "
                "rescale the layer or use another precision"
            )
