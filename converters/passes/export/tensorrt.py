"""Build a TensorRT engine from ONNX."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from hone.artifact import Artifact
from hone.hardware import gpu_architecture
from hone.runtimes.tensorrt.engine import EngineOptions, Range, build, requirements
from hone.signature import BATCH

from ...context import Built, PassContext, copy_files
from ...registry import PassOptions, register

ENGINE = "model.plan"


class Options(PassOptions):
    """An engine for the GPU of the host that builds it, unless `hardware` says otherwise.

    A host that it doesn't fit builds its own when it first loads the artifact.
    """

    profiles: dict[str, Range] = Field(
        {BATCH: (1, 8, 64)}, description="Smallest, usual and largest size of each dynamic axis."
    )
    workspace_mb: int = Field(1024, gt=0, description="GPU memory that the builder's tactics may use.")
    optimization_level: int = Field(3, ge=0, le=5, description="Higher searches longer for faster kernels.")
    hardware: Literal["none", "ampere_plus", "same_compute_capability"] = Field(
        "none", description="Which other GPUs may run the engine; wider is slower."
    )
    version_compatible: bool = Field(False, description="Let later versions of TensorRT run the engine.")
    sparse_weights: bool = Field(False, description="Use the kernels for 2:4 sparse weights (pass sparsify).")

    @field_validator("profiles")
    @classmethod
    def _ordered(cls, value: dict[str, Range]) -> dict[str, Range]:
        for axis, (low, usual, high) in value.items():
            if not 1 <= low <= usual <= high:
                raise ValueError(f"axis '{axis}': sizes must rise from at least 1: [{low}, {usual}, {high}]")
        return value


@register("tensorrt", consumes="onnx", produces="tensorrt", options=Options, tools=("tensorrt",), runtime="tensorrt")
def tensorrt(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Parse the ONNX graph, add an optimization profile and build a serialized engine.

    The ONNX file is kept beside the engine: a host whose GPU or TensorRT doesn't match builds its own from it.

    Raises PassError naming the node that TensorRT can't parse, or the dynamic axis without a profile.
    """
    content = options.model_dump(mode="json")
    chosen = EngineOptions.of(content)
    context.progress("building the engine")
    engine, layers = build(model.entry, model.signature, chosen)
    (out / ENGINE).write_bytes(engine)
    copy_files(model, out)
    return Built(
        ENGINE,
        runtime_options=content,
        requires=requirements(chosen, gpu_architecture() or "unknown", version("tensorrt")),
        details={"engine_mb": round(len(engine) / 1e6, 3), "layers": layers},
    )
