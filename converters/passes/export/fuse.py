"""Join the small operators of a transformer into the runtime's fused ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Literal

import onnx
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError, one_line

from ...context import Built, PassContext
from ...graph.contents import count_unfused_attention
from ...graph.onnx_graph import load_graph, save_graph
from ...registry import PassOptions, register

Fusion = Literal["attention", "layer_norm", "skip_layer_norm", "gelu"]

FUSED_OPERATORS: dict[Fusion, tuple[str, ...]] = {
    "attention": ("Attention", "MultiHeadAttention", "GroupQueryAttention"),
    "layer_norm": ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"),
    "skip_layer_norm": ("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
    "gelu": ("Gelu", "FastGelu", "BiasGelu"),
}
"""What a fusion leaves in the graph: ONNX operators, or ONNX Runtime's contrib operators (docs/ContribOperators.md)."""


class Options(PassOptions):
    """Attention, layer normalization and GELU as one operator each; for transformers that run on ONNX Runtime."""

    require: tuple[Fusion, ...] = Field(
        (),
        description="Fusions that must be found: one that matches nothing fails the pass. Default: at least one of "
        "any kind, because the variant would be no faster than the graph it came from; the report lists the others.",
    )


@register(
    "fuse",
    consumes="onnx",
    produces="onnx",
    options=Options,
    tools=("onnxruntime", "onnx", "onnxscript", "onnx-ir"),
    revision=2,
)
def fuse(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Apply onnxscript's fusions for ONNX Runtime, whose patterns are those of torch's dynamo exporter.

    The result needs ONNX Runtime: fused operators are in its `com.microsoft` domain.

    Raises PassError naming the fusion that was asked for and found nowhere, or when nothing was fused.
    """
    before = load_graph(model.entry)
    fused = fuse_graph(before)
    counts = count_fused(fused)
    missing = [name for name, count in counts.items() if not count]
    required = [name for name in options.require if name in missing]
    if required:
        raise PassError(
            f"fuse: found no {' and no '.join(required)} in {model.entry.name} (found: {describe(counts)}); the graph "
            f"has another form than the patterns know; name only what it has in fuse.require, or leave fuse out"
        )
    unfused = count_unfused_attention(fused)
    if not options.require and not _gained(before, fused):
        has = describe(counts) + (f", {unfused} attention in a form that no pattern knows" if unfused else "")
        raise PassError(
            f"fuse: found nothing to fuse in {model.entry.name} (it has: {has}); the graph has another form than the "
            "patterns know, or is fused already; leave fuse out"
        )
    save_graph(fused, out / "model.onnx")
    facts: dict[str, Any] = {"nodes_before": len(before.graph.node), "nodes_after": len(fused.graph.node)}
    facts["fused"] = dict(counts)
    if unfused:
        facts["attention_left_as_it_is"] = unfused
    # Normalizations that took up the addition before them are counted as skip_layer_norm.
    absent = [name for name in missing if name != "layer_norm" or not counts["skip_layer_norm"]]
    return Built("model.onnx", details=facts | ({"not_found": absent} if absent else {}))


def fuse_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the graph with every fusion applied that matches.

    Raises:
        PassError: the rewriter failed.
    """
    import onnx_ir
    from onnxscript.rewriter.ort_fusions import optimize_for_ort

    from ...graph.packed_attention import fuse_packed_attention

    graph: Any = onnx_ir.from_proto(model)
    try:
        fuse_packed_attention(graph)
        graph, _ = optimize_for_ort(graph, clear_metadata=True)
        fused = onnx_ir.to_proto(graph)
    except Exception as error:
        raise PassError(f"fuse: onnxscript's rewriter failed: {one_line(error)}") from error
    # Shapes of values that were rewritten stay as they were; wrong ones break quantization.
    del fused.graph.value_info[:]
    return fused


def count_fused(model: onnx.ModelProto) -> Counter[Fusion]:
    """Return how often each fusion's operators are in a graph."""
    operators = Counter(node.op_type for node in model.graph.node)
    return Counter({name: sum(operators[kind] for kind in kinds) for name, kinds in FUSED_OPERATORS.items()})


def _gained(before: onnx.ModelProto, after: onnx.ModelProto) -> bool:
    """Return whether there are more fused operators of any type; a source may bring some."""
    old, new = (Counter(node.op_type for node in model.graph.node) for model in (before, after))
    return any(new[kind] > old[kind] for kinds in FUSED_OPERATORS.values() for kind in kinds)


def describe(counts: Counter[Fusion]) -> str:
    """Return counts as a person writes them: `6 attention, 12 skip_layer_norm`."""
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"
