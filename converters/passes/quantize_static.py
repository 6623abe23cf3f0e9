"""Static int8 quantization: weights and activations, with ranges observed on calibration rows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from pydantic import Field

from converters.onnx_graph import load_graph
from converters.passes.base import Built, PassContext, PassOptions, register
from converters.quantized_graph import count_quantized, quiet_quantizer
from hone.artifact import Artifact
from hone.data import Dataset
from hone.errors import PassError, one_line

BATCH_ROWS = 16


class Options(PassOptions):
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
    reduce_range: bool = Field(False, description="7-bit weights, for processors with AVX2 or AVX-512 but no VNNI.")
    op_types: tuple[str, ...] = Field((), description="Operators to quantize; default: all that have int8 kernels.")
    exclude: tuple[str, ...] = Field((), description="Names of nodes that stay in float.")


@register(
    "quantize_static",
    consumes="onnx",
    produces="onnx",
    options=Options,
    needs=("calibration",),
    tools=("onnxruntime", "onnx"),
)
def quantize_static(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Insert QuantizeLinear/DequantizeLinear pairs (ONNX Runtime quantization guide, 'static quantization', QDQ).

    Raises PassError when calibration fails or nothing could be quantized.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as run

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }
    types = {"qint8": QuantType.QInt8, "quint8": QuantType.QUInt8}
    file = out / "model.onnx"
    data = context.ranges("quantize_static")
    context.progress(f"calibrating on {data.rows} rows")
    try:
        with quiet_quantizer():
            run(
                model.entry,
                file,
                _reader(data),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=list(options.op_types) or None,
                nodes_to_exclude=list(options.exclude),
                per_channel=options.per_channel,
                reduce_range=options.reduce_range,
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
    except Exception as error:
        raise PassError(f"quantize_static: {one_line(error)}") from error
    counts = count_quantized(load_graph(file))
    if not counts["quantized"]:
        raise PassError("quantize_static: no operator of the graph could be quantized; set op_types or use fp16")
    rows = {"calibration_rows": context.calibration.rows, "method": options.method}
    return Built("model.onnx", "int8", details={**counts, **rows})


def _reader(data: Dataset) -> Any:
    """Feed calibration rows in equal batches: the histogram methods can't join batches of different sizes."""
    from onnxruntime.quantization import CalibrationDataReader

    size = min(BATCH_ROWS, data.rows)
    whole = data.head(data.rows // size * size)

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self._batches: Iterator[dict[str, np.ndarray]] = whole.batches(size)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._batches, None)

    return Reader()
