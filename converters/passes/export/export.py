"""Export a source model to ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from hone.artifact import Artifact

from ... import sources
from ...context import Built, PassContext
from ...registry import PassOptions, register


class Options(PassOptions):
    """Conversion to ONNX with the signature's names and dynamic axes."""

    opset: int = Field(20, ge=13, le=25, description="ONNX operator set; 20 is read by every runtime Hone targets.")
    layout: Literal["source", "nchw"] = Field(
        "source", description="nchw: a Keras model's channels-last images become [batch, channels, height, width]."
    )


@register(
    "export",
    consumes="*",
    produces="onnx",
    options=Options,
    tools=(
        "torch",
        "onnxscript",
        "onnx",
        "tensorflow-cpu",
        "tf2onnx",
        "scikit-learn",
        "skl2onnx",
        "xgboost-cpu",
        "xgboost",
        "lightgbm",
    ),
    revision=2,
)
def export(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Convert with the exporter of the model's framework.

    torch.onnx (dynamo), tf2onnx, skl2onnx, and our own for the trees of XGBoost and LightGBM.

    Raises PassError naming the layer that can't be exported.
    """
    source = sources.get(model.runtime)
    if options.layout == "nchw":
        return source.export_channels_first(model, options.opset, out, context)
    return source.export(model, options.opset, out, context)
