"""Static int8 quantization: weights and activations, with ranges observed on calibration rows."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import onnx
from onnx import numpy_helper
from pydantic import Field

from hone.artifact import Artifact
from hone.data import Dataset
from hone.errors import PassError, one_line
from hone.signature import Tensors

from ...context import Built, PassContext
from ...graph.execution import equal_batches
from ...graph.masks import constants, mask_paths
from ...graph.onnx_graph import load_graph, save_graph
from ...graph.quantized_graph import count_quantized, graph_to_quantize, quiet_quantizer
from ...registry import register
from .seven_bits import SevenBitOptions

MASKED = 100.0
"""Magnitude from which a constant added before a softmax is a mask: a range with it in would leave scores no room."""

FINITE = 1e9
"""Instead of infinity in masks: exp(-1e9 - score) is zero too."""


class Options(SevenBitOptions):
    """QDQ int8 with calibrated activation ranges."""

    method: Literal["minmax", "entropy", "percentile"] = Field(
        "minmax",
        description="Activation range: all that was seen, the range that loses least information (KL divergence), "
        "or a percentile of the values.",
    )
    percentile: float = Field(99.99, gt=50, le=100, description="For method percentile.")
    per_channel: bool = Field(True, description="One weight scale per output channel.")
    activation_type: Literal["quint8", "qint8"] = Field(
        "quint8", description="U8S8 is fastest on x86; TensorRT and some ARM kernels want qint8."
    )
    weight_type: Literal["qint8", "quint8"] = "qint8"
    symmetric_activations: bool = Field(False, description="Zero point 0; TensorRT requires it.")
    op_types: tuple[str, ...] = Field((), description="Operators to quantize; default: all that have int8 kernels.")
    exclude: tuple[str, ...] = Field((), description="Names of nodes that stay in float.")

    @property
    def fits(self) -> bool:
        return self.activation_type == "qint8" or self.weight_type == "quint8"


@register(
    "quantize_static",
    consumes="onnx",
    produces="onnx",
    options=Options,
    needs=("calibration",),
    tools=("onnxruntime", "onnx"),
    revision=4,
)
def quantize_static(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Insert QuantizeLinear/DequantizeLinear pairs (ONNX Runtime quantization guide, 'static quantization', QDQ).

    What masks scores with constants such as -1e9 stays in float, up to the softmax.

    Raises PassError for an excluded name that no node has, when calibration fails, or nothing could be quantized.
    """
    file = out / "model.onnx"
    data = context.ranges("quantize_static")
    graph = graph_to_quantize(model.entry, options.exclude, "quantize_static")
    masking = _masking(graph)
    context.progress(f"calibrating on {data.rows} rows")
    try:
        with quiet_quantizer(), TemporaryDirectory(prefix="hone-static-") as scratch:
            entry = Path(scratch) / "model.onnx"
            save_graph(graph, entry)
            _quantize(entry, file, data, options, masking)
    except Exception as error:
        raise PassError(f"quantize_static: {one_line(error)}") from error
    counts = count_quantized(load_graph(file))
    if not counts["quantized"]:
        raise PassError("quantize_static: no operator of the graph could be quantized; set op_types or use fp16")
    facts: dict[str, Any] = {"calibration_rows": data.rows, "method": options.method}
    if masking:
        facts["masking_left_in_float"] = len(masking)
    requires = {**model.manifest.requires, **options.requires()}
    return Built("model.onnx", "int8", requires=requires, details={**counts, **facts, **options.told()})


def _quantize(entry: Path, file: Path, data: Dataset, options: Options, masking: list[str]) -> None:
    """Run ONNX Runtime's tool, in the options' terms."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as run

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    types = {"qint8": QuantType.QInt8, "quint8": QuantType.QUInt8}
    run(
        entry,
        file,
        _reader(data, entry),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(options.op_types) or None,
        nodes_to_exclude=[*options.exclude, *masking],
        per_channel=options.per_channel,
        reduce_range=options.seven_bits,
        activation_type=types[options.activation_type],
        weight_type=types[options.weight_type],
        calibrate_method=methods[options.method],
        extra_options={
            "ActivationSymmetric": options.symmetric_activations,
            "WeightSymmetric": options.weight_type == "qint8",
            "CalibPercentile": options.percentile,
            "DefaultTensorType": onnx.TensorProto.FLOAT,
        },
    )


def _masking(model: onnx.ModelProto) -> list[str]:
    """Make infinite masks finite; return the names of the nodes between constants of masks and their softmaxes, these
    included."""
    masks = mask_paths(model, MASKED)
    stored = constants(model)
    for name, paths in masks.items():
        if None not in paths:
            _make_finite(stored[name])
    return sorted({node.name for paths in masks.values() for path in paths if path for node in path})


def _make_finite(tensor: onnx.TensorProto) -> None:
    """Replace infinities of a mask, which histograms of ranges have no place for."""
    values = numpy_helper.to_array(tensor)
    if not np.isfinite(values).all():
        tensor.CopyFrom(numpy_helper.from_array(np.clip(values, -FINITE, FINITE), tensor.name))


def _reader(data: Dataset, entry: Path) -> Any:
    """Feed calibration rows in equal batches: the histogram methods can't join batches of different sizes."""
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches = equal_batches(data, entry)

        def get_next(self) -> Tensors | None:
            return next(self._batches, None)

    return Reader()
