"""Convert an ONNX graph to OpenVINO's own format."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError, one_line
from hone.hardware import cpu_features
from hone.runtimes.openvino import BFLOAT16_FEATURES

from ...context import Built, PassContext
from ...registry import PassOptions, register

ENTRY = "model.xml"


class Options(PassOptions):
    """OpenVINO, an extra runtime for CPUs. For int8 put quantize_nncf behind this pass."""

    precision: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="What float arithmetic is done in. bfloat16 needs AVX-512 BF16 or AMX; nearly as fast as int8 "
        "there, and without its loss.",
    )


@register("openvino", consumes="onnx", produces="openvino", options=Options, tools=("openvino",), runtime="openvino")
def openvino(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Read the graph with OpenVINO's ONNX frontend and save it as IR; weights keep their precision on disk.

    Raises PassError when the frontend doesn't know an operator (those of `fuse` and `quantize_dynamic` are ONNX
    Runtime's own), or the processor has no bfloat16.
    """
    import openvino as ov

    if options.precision == "bfloat16" and not any(feature in cpu_features() for feature in BFLOAT16_FEATURES):
        raise PassError(f"openvino: this processor has no bfloat16 ({' or '.join(BFLOAT16_FEATURES)}); use float32")
    context.progress("converting")
    try:
        save(ov.convert_model(str(model.entry)), out / ENTRY, options.precision)
    except Exception as error:
        raise PassError(f"openvino: {model.entry.name} can't be converted: {one_line(error)}") from error
    needed = {"cpu_features": "|".join(BFLOAT16_FEATURES)} if options.precision == "bfloat16" else {}
    precision = "bf16" if options.precision == "bfloat16" else model.manifest.precision
    return Built(
        ENTRY,
        precision,
        runtime_options={"inference_precision": options.precision},
        requires={**model.manifest.requires, **needed},
    )


def save(model: Any, file: Path, precision: str) -> None:
    """Write an `openvino.Model`.

    Args:
        precision: that its floats are computed in. bfloat16 takes half the bytes: float16 keeps more digits of a weight
            than the arithmetic uses.
    """
    import openvino as ov

    ov.save_model(model, str(file), compress_to_fp16=precision == "bfloat16")
