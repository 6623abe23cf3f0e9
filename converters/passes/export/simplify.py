"""Fold constants and fuse what any processor can run fused."""

from __future__ import annotations

from pathlib import Path

from onnx.external_data_helper import uses_external_data

from hone.artifact import Artifact
from hone.errors import PassError, one_line

from ...context import Built, PassContext
from ...graph.execution import cpu_session
from ...graph.onnx_graph import load_graph, name_nodes, save_with_shapes
from ...registry import PassOptions, register

WEIGHTS_FILE = "session.optimized_model_external_initializers_file_name"


class Options(PassOptions):
    """Hardware-independent graph optimization. Nodes without a name get one: `node_` and what they give."""


@register("simplify", consumes="onnx", produces="onnx", options=Options, tools=("onnxruntime", "onnx"), revision=2)
def simplify(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Apply ONNX Runtime's 'basic' optimizations offline (its graph optimization guide) and save the graph.

    Constants are folded, dead nodes dropped and batch normalization merged into convolutions, so that quantization
    sees the graph that will run. 'Basic' stays within standard operators: the result runs on every host.
    """
    import onnxruntime as ort

    file = out / "model.onnx"
    before = load_graph(model.entry, weights=False)
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(file)
    if any(uses_external_data(tensor) for tensor in before.graph.initializer):
        settings.add_session_config_entry(WEIGHTS_FILE, f"{file.name}.data")
    try:
        cpu_session(model.entry, settings)
    except Exception as error:
        raise PassError(f"simplify: ONNX Runtime can't load {model.entry.name}: {one_line(error)}") from error
    after = load_graph(file)
    # The optimizer leaves the shapes of values that it has transposed as they were; wrong ones break quantization.
    del after.graph.value_info[:]
    name_nodes(after)
    save_with_shapes(after, file)
    counts = {"nodes_before": len(before.graph.node), "nodes_after": len(after.graph.node)}
    return Built("model.onnx", details=counts)
