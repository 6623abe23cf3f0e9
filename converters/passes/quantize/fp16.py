"""Convert weights and arithmetic to float16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError

from ...context import Built, PassContext
from ...graph.masks import constants, mask_paths
from ...graph.onnx_graph import load_graph, save_graph
from ...registry import PassOptions, register

LARGEST = float(np.finfo(np.float16).max)

MASKED = -LARGEST / 2
"""For masks beyond float16: as good as any, with room for the scores and a second mask that are added to it."""


class Options(PassOptions):
    """Half precision: half the size; faster on GPUs, slower on processors that have no float16 arithmetic."""

    keep_io: bool = Field(True, description="Keep float32 inputs and outputs, so callers need not change.")
    block_ops: tuple[str, ...] = Field((), description="Operator types that stay in float32, e.g. [Softmax].")


@register("fp16", consumes="onnx", produces="onnx", options=Options, tools=("onnxruntime", "onnx"), revision=2)
def fp16(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Convert with ONNX Runtime's float16 converter.

    Constants of masks, such as -1e9, are clamped.

    Raises PassError naming another constant that float16 can't hold (its largest number is 65504), and its layer.
    """
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    graph = load_graph(model.entry)
    clamped = _clamp_masks(graph)
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
    return Built("model.onnx", "fp16", signature, details={"float16_weights": halves} | clamped)


def _clamp_masks(model: onnx.ModelProto) -> dict[str, float]:
    """Bring masks beyond float16 into its range, in place; return what was done, for the report."""
    stored = constants(model)
    clamped = 0
    for name, paths in mask_paths(model, LARGEST).items():
        values = numpy_helper.to_array(stored[name])
        beyond = np.isfinite(values) & (np.abs(values) > LARGEST)
        if None in paths or not beyond.any():
            continue
        fitting = np.where(beyond, np.clip(values, MASKED, -MASKED), values)
        stored[name].CopyFrom(numpy_helper.from_array(fitting, stored[name].name))
        clamped += 1
    return {"masks_clamped": clamped, "masks_clamped_to": MASKED} if clamped else {}


def _check_range(model: onnx.ModelProto) -> None:
    for name, tensor in constants(model).items():
        values = numpy_helper.to_array(tensor)
        # Infinity is one in float16 too.
        largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
        if largest > LARGEST:
            raise PassError(
                f"fp16: {_place(model, name)} holds {largest:.3g}, float16 ends at {LARGEST:.0f}; "
                "rescale the layer or use another precision"
            )


def _place(model: onnx.ModelProto, name: str) -> str:
    """Return where a constant is read, in words of the source: exporters give constants names like `val_162`."""
    if "." in name:
        return f"weight '{name}'"
    reader = next((node for node in model.graph.node if name in node.input), None)
    if reader is None:
        return f"constant '{name}'"
    layer = _layer(model, reader)
    return f"a constant ('{name}') of {reader.op_type} '{reader.name}'" + (f", near layer '{layer}'," if layer else "")


def _layer(model: onnx.ModelProto, start: onnx.NodeProto) -> str:
    """Return the layer of the nearest weight before or behind a node that has a dotted name; empty without one."""
    weights = {tensor.name for tensor in model.graph.initializer if "." in tensor.name}
    seen, found = {*start.input, *start.output}, [start]
    while found:
        for node in found:
            for name in node.input:
                if name in weights:
                    return name.rpartition(".")[0]
        near = [node for node in model.graph.node if not seen.isdisjoint((*node.input, *node.output))]
        found = [node for node in near if not seen.issuperset((*node.input, *node.output))]
        seen.update(name for node in found for name in (*node.input, *node.output))
    return ""
