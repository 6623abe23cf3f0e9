"""int8, int4 and float16 weights, and int8 activations, for LiteRT."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from hone.artifact import Artifact
from hone.data import Dataset
from hone.errors import PassError, UnavailableError, one_line
from hone.signature import Tensors

from ...context import Built, PassContext
from ...registry import PassOptions, register
from ..export.litert import ENTRY


class Options(PassOptions):
    """Weights of fewer bits for LiteRT, and integer arithmetic: put it behind the pass litert.

    Inputs and outputs stay as they are: the model quantizes what it is given.
    """

    mode: Literal["static", "dynamic", "weights"] = Field(
        "static",
        description="static: activations in int8 too, with ranges of calibration rows; dynamic: with ranges taken at "
        "run time; weights: float arithmetic, fewer bytes.",
    )
    weight_bits: Literal[4, 8, 16] = Field(8, description="16 is float16, for mode weights.")
    activation_bits: Literal[8, 16] = Field(8, description="Of mode static; 16 loses less, and has fewer kernels.")
    method: Literal["minmax", "average"] = Field(
        "minmax",
        description="Of mode static: an activation's range is all that was seen, or the moving average of each row's "
        "range, which cuts off what few rows reach.",
    )
    per_channel: bool = Field(True, description="One weight scale per output channel.")
    exclude: tuple[str, ...] = Field((), description="Regular expressions of output tensors whose nodes stay in float.")
    rows: int = Field(300, ge=8, description="Calibration rows that ranges are taken from, the first ones.")

    @model_validator(mode="after")
    def _bits_fit(self) -> Options:
        if self.weight_bits == 16 and self.mode != "weights":
            raise ValueError("weight_bits: 16 is float16, which goes with mode: weights")
        if self.weight_bits == 4 and self.mode == "static":
            raise ValueError("weight_bits: 4 goes with mode: dynamic or weights")
        return self

    def missing(self, given: str) -> UnavailableError | None:
        found = find_spec("ai_edge_quantizer")
        return None if found else UnavailableError("ai-edge-quantizer is not installed", "pip install 'hone[litert]'")


@register(
    "quantize_litert",
    consumes="litert",
    produces="litert",
    options=Options,
    needs=("sample",),
    tools=("ai-edge-quantizer", "ai-edge-litert"),
    runtime="litert",
)
def quantize_litert(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Quantize a `.tflite` file with AI Edge Quantizer (min-max ranges; its documentation, 'Quantization').

    Raises PassError when the quantizer fails, mode static has too few rows, or nothing could be quantized.
    """
    data = context.ranges("quantize_litert").head(options.rows) if options.mode == "static" else None
    file = out / ENTRY
    try:
        with _quiet():
            from ai_edge_quantizer import quantizer

            rules = _rules(options)
            ranges = None
            if data is not None:
                context.progress(f"calibrating on {data.rows} rows")
                ranges = _ranges(model, data, rules, options)
            made = quantizer.Quantizer(str(model.entry))
            made.load_quantization_recipe(rules.get_quantization_recipe())
            file.write_bytes(bytes(made.quantize(ranges).quantized_model))
    except Exception as error:
        raise PassError(f"quantize_litert: {one_line(error)}") from error
    counts = {"tensors": _narrow(file), "before": _narrow(model.entry)}
    if counts["tensors"] <= counts["before"]:
        raise PassError("quantize_litert: nothing of the model could be quantized; leave this pass out of the variant")
    precision = "fp16" if options.weight_bits == 16 else f"int{options.weight_bits}"
    details: dict[str, Any] = {"quantized": counts["tensors"] - counts["before"], "mode": options.mode}
    if data is not None:
        details["calibration_rows"] = data.rows
    return Built(ENTRY, precision, details=details)


def _narrow(file: Path) -> int:
    """Return the number of tensors of fewer than 32 bits in a file."""
    from hone.runtimes.litert import open_file

    narrow = (np.int8, np.uint8, np.int16, np.float16)
    return sum(np.dtype(found["dtype"]) in narrow for found in open_file(file).get_tensor_details())


def _rules(options: Options) -> Any:
    """Return which operators are quantized, and how: the last of several rules for one counts."""
    from ai_edge_quantizer import algorithm_manager, qtyping, recipe_manager

    every = qtyping.TFLOperationName.ALL_SUPPORTED
    names = algorithm_manager.AlgorithmName
    scales = qtyping.QuantGranularity
    granularity = scales.CHANNELWISE if options.per_channel else scales.TENSORWISE
    rules = recipe_manager.RecipeManager()
    if options.weight_bits == 16:
        rules.add_weight_only_config(".*", every, 16, algorithm_key=names.FLOAT_CASTING)
    elif options.mode == "weights":
        rules.add_weight_only_config(".*", every, options.weight_bits, granularity)
    elif options.mode == "dynamic":
        rules.add_dynamic_config(".*", every, options.weight_bits, granularity)
    else:
        rules.add_static_config(".*", every, options.activation_bits, 8, granularity)
        for end in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            rules.add_quantization_config(".*", end, algorithm_key=names.NO_QUANTIZE)
    for pattern in options.exclude:
        rules.add_quantization_config(pattern, every, algorithm_key=names.NO_QUANTIZE)
    return rules


def _ranges(model: Artifact, data: Dataset, rules: Any, options: Options) -> Any:
    """Return what values each tensor takes. The quantizer's own way is the average, which a few rows hardly move."""
    from ai_edge_quantizer import calibrator
    from ai_edge_quantizer.utils import qsv_utils

    merged = qsv_utils.min_max_update if options.method == "minmax" else qsv_utils.moving_average_update
    made = calibrator.Calibrator(str(model.entry), num_threads=1, qsv_update_func=merged)
    made.calibrate(_rows(model, data), rules)
    return made.get_model_qsvs()


def _rows(model: Artifact, data: Dataset) -> dict[str, list[Tensors]]:
    """Return the rows of the file's signature, each by itself, by the names that it has for its inputs."""
    from hone.runtimes.litert import file_inputs, open_file

    signature, own = file_inputs(open_file(model.entry), model)
    parts = [data.slice(number, number + 1).inputs for number in range(data.rows)]
    return {signature: [{own[name]: array for name, array in part.items()} for part in parts]}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer prints what it does, and warns of the memory that it takes for a while."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
