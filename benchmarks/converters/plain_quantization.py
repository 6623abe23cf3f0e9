"""ONNX Runtime's own quantization, as its guide shows it: what a user without any converter would write.

On processors without VNNI weights have seven bits, as the guide has it ('when and why do I need to try U8U8').

Each function takes an ONNX graph, the file to write and calibration rows by input, and returns the lines of its code.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from hone.runtimes.onnx.saturation import host_saturates


def dynamic(graph: Path, file: Path, calibration: dict[str, np.ndarray]) -> int:
    """The guide's 'dynamic quantization', which needs no rows."""
    quantize_dynamic(graph, file, weight_type=QuantType.QInt8, per_channel=True, reduce_range=host_saturates())
    return len(inspect.getsource(dynamic).splitlines())


def static(graph: Path, file: Path, calibration: dict[str, np.ndarray]) -> int:
    """The guide's 'static quantization': pre-process, then calibrate."""
    prepared = file.with_suffix(".prepared.onnx")
    quant_pre_process(str(graph), str(prepared))
    quantize_static(
        str(prepared),
        str(file),
        Batches(calibration),
        per_channel=True,
        reduce_range=host_saturates(),
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    prepared.unlink()
    return len(inspect.getsource(static).splitlines()) + len(inspect.getsource(Batches).splitlines())


class Batches(CalibrationDataReader):
    """Calibration rows, 16 at a time."""

    def __init__(self, rows: dict[str, np.ndarray]) -> None:
        starts = range(0, len(next(iter(rows.values()))), 16)
        self._batches = iter([{name: array[start : start + 16] for name, array in rows.items()} for start in starts])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._batches, None)
