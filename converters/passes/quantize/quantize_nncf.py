"""int8 by NNCF, Intel's quantizer for OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from hone.artifact import Artifact
from hone.data import Dataset
from hone.errors import PassError, UnavailableError, one_line
from hone.runtimes.openvino import core, model_rows
from hone.signature import Tensors

from ...context import Built, PassContext
from ...graph.openvino_graph import contractions, count_quantized, has_attention
from ...graph.quantized_graph import check_names
from ...registry import register
from ...signal_stack import signal_stack_kept
from ..export.openvino import ENTRY, save
from .own_answers import OwnAnswers
from .seven_bits import SevenBitOptions

Effort = Literal["fast", "full", "none"]

ALPHAS = (0.65, 0.8, 0.95)
TRIED_ROWS = 32
"""Calibration rows that alphas are compared on."""


class Options(SevenBitOptions):
    """int8 weights and activations by NNCF, for OpenVINO: put it behind the pass openvino.

    What stays in float is computed in that pass's precision: bfloat16 where the processor has it.
    """

    model_type: Literal["auto", "transformer", "none"] = Field(
        "auto",
        description="transformer smooths activations (SmoothQuant) and keeps what int8 hurts in attention in float; "
        "auto looks for attention in the model.",
    )
    preset: Literal["auto", "performance", "mixed"] = Field(
        "auto",
        description="performance: symmetric activations; mixed: asymmetric ones, closer to float; auto: mixed for "
        "transformers, else performance.",
    )
    smooth_quant_alpha: Annotated[float, Field(ge=0, le=1)] | Literal["auto", "none"] = Field(
        "auto",
        description="For transformers: share of an activation's range that the weights of a matrix product take over; "
        f"none smooths nothing; auto tries {', '.join(map(str, ALPHAS))} and keeps the one whose answers to "
        "calibration rows are closest. NNCF itself takes 0.95.",
    )
    bias_correction: Effort = Field(
        "fast", description="Biases take up the mean error of their layer; full does so layer after layer, and slowly."
    )
    exclude: tuple[str, ...] = Field((), description="Names of nodes of the OpenVINO model that stay in float.")
    exclude_types: tuple[str, ...] = Field((), description="OpenVINO's operator types that stay in float: [MatMul].")
    contractions: Literal["int8", "float"] = Field(
        "int8",
        description="float: products with weights that give fewer values than they take stay in float, such as the "
        "second one of a transformer's feed-forward layers: their inputs have the worst outliers.",
    )
    rows: int = Field(300, ge=8, description="Calibration rows that ranges are taken from, the first ones.")
    max_drop: Annotated[float, Field(gt=0)] | Literal["budget"] | None = Field(
        None,
        description="Accuracy control: the layers that cost most go back to float until the loss on the calibration "
        "rows, against the float model's answers and in the unit of the recipe's metric, is no larger; budget: its "
        "quality_drop.",
    )

    def missing(self, given: str) -> UnavailableError | None:
        return None if find_spec("nncf") else UnavailableError("nncf is not installed", "pip install 'hone[openvino]'")


@register(
    "quantize_nncf",
    consumes="openvino",
    produces="openvino",
    options=Options,
    needs=("calibration", "quality"),
    tools=("nncf", "openvino"),
    runtime="openvino",
)
def quantize_nncf(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Quantize with ranges of calibration rows (NNCF documentation, 'Post-Training Quantization').

    Raises PassError for a name or type that the model hasn't got, when NNCF fails, or when nothing could be quantized.
    """
    data = context.ranges("quantize_nncf").head(options.rows)
    # NNCF makes a Core for each model that it runs.
    with signal_stack_kept(), _quiet(context.progress) as warnings:
        read = partial(core().read_model, str(model.entry))
        _check_names(read(), options)
        transformer = options.model_type == "transformer"
        if options.model_type == "auto":
            transformer = has_attention(read())
        try:
            options, tried = _with_alpha(read, data, options, context) if transformer else (options, {})
            context.progress(f"calibrating on {data.rows} rows")
            made, facts = _quantize(read(), data, options, context, transformer=transformer)
            save(made, out / ENTRY, model.manifest.runtime_options.get("inference_precision", "float32"))
        except Exception as error:
            raise PassError(f"quantize_nncf: {one_line(error)}") from error
    counts = count_quantized(made)
    if not counts["quantized"]:
        raise PassError(f"quantize_nncf: nothing of the model {_nothing(options)}")
    found = {"calibration_rows": data.rows, "model_type": "transformer" if transformer else "none", **tried, **facts}
    requires = {**model.manifest.requires, **options.requires()}
    told = {**options.told(), **({"warnings": warnings} if warnings else {})}
    return Built(ENTRY, "int8", requires=requires, details={**counts, **found, **told})


def _nothing(options: Options) -> str:
    if options.max_drop is not None:
        return "may be int8 for so small a loss; raise max_drop, or use bfloat16"
    return "could be quantized; exclude less, or use bfloat16"


def _with_alpha(
    read: Callable[[], Any], data: Dataset, options: Options, context: PassContext
) -> tuple[Options, dict[str, Any]]:
    """Return the options with the alpha to smooth with, and the error that each made: |int8 - float| / |float|."""
    if options.smooth_quant_alpha != "auto":
        return options, {"smooth_quant_alpha": options.smooth_quant_alpha}
    some = data.head(TRIED_ROWS)
    rows = _one_by_one(some, read())
    wanted = _answers(read(), rows)
    errors: dict[str, float] = {}
    for alpha in ALPHAS:
        context.progress(f"trying alpha {alpha:g}")
        quick = options.model_copy(update={"smooth_quant_alpha": alpha, "bias_correction": "none", "max_drop": None})
        got = _answers(_quantize(read(), some, quick, context, transformer=True)[0], rows)
        gap = sum(float(np.square(got[name] - wanted[name]).sum()) for name in wanted)
        power = sum(float(np.square(values).sum()) for values in wanted.values())
        errors[f"{alpha:g}"] = round((gap / max(power, 1e-30)) ** 0.5, 6)
    best = float(min(errors, key=lambda text: errors[text]))
    chosen = options.model_copy(update={"smooth_quant_alpha": best})
    return chosen, {"smooth_quant_alpha": best, "int8_error_by_alpha": errors}


def _check_names(model: Any, options: Options) -> None:
    operators = model.get_ordered_ops()
    for field, valid in (
        ("exclude", {operator.get_friendly_name() for operator in operators}),
        ("exclude_types", {operator.get_type_name() for operator in operators}),
    ):
        check_names(f"quantize_nncf: {field}", getattr(options, field), valid)


def _quantize(
    model: Any, data: Dataset, options: Options, context: PassContext, *, transformer: bool
) -> tuple[Any, dict[str, Any]]:
    """Return the quantized model, and what accuracy control found."""
    import nncf

    settings: dict[str, Any] = {
        "subset_size": data.rows,
        "fast_bias_correction": options.bias_correction != "full",
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        "preset": None if options.preset == "auto" else nncf.QuantizationPreset(options.preset),
        "ignored_scope": nncf.IgnoredScope(names=_excluded(model, options), types=list(options.exclude_types)),
    }
    advanced = _advanced(options)
    rows = _one_by_one(data, model)
    calibration = nncf.Dataset(rows)
    if options.max_drop is None:
        return nncf.quantize(model, calibration, advanced_parameters=advanced, **settings), {}
    own = OwnAnswers.of(
        context.loaded, _answers(model, rows), None if options.max_drop == "budget" else options.max_drop
    )
    made = nncf.quantize_with_accuracy_control(
        model,
        calibration,
        nncf.Dataset(list(range(data.rows)), lambda number: rows[number]),
        _validation(rows, own),
        max_drop=own.limit,
        drop_type=nncf.DropType.ABSOLUTE,
        advanced_quantization_parameters=advanced,
        **settings,
    )
    loss = own.lost(_answers(made, rows))
    return made, {"loss": float(f"{loss:.4g}"), "limit": own.limit, "loss_is": own.loss.words}


def _excluded(model: Any, options: Options) -> list[str]:
    names = contractions(model) if options.contractions == "float" else []
    return list(dict.fromkeys([*options.exclude, *names]))


def _advanced(options: Options) -> Any:
    """Return NNCF's own kind of options for what this pass calls otherwise."""
    from nncf.quantization import advanced_parameters as advanced

    alphas = advanced.AdvancedSmoothQuantParameters()
    if options.smooth_quant_alpha != "auto":
        alphas.matmul = -1 if options.smooth_quant_alpha == "none" else options.smooth_quant_alpha
    return advanced.AdvancedQuantizationParameters(
        overflow_fix=advanced.OverflowFix.ENABLE if options.seven_bits else advanced.OverflowFix.DISABLE,
        disable_bias_correction=options.bias_correction == "none",
        smooth_quant_alphas=alphas,
    )


def _one_by_one(data: Dataset, model: Any) -> list[Tensors]:
    """Return the rows, each by itself: values of a batch would share one range (NNCF, batch-wise statistics).

    A model that is made for a number of rows gets so many times the same.
    """
    size = model_rows(model, data.inputs) or 1
    return [data.of(np.full(size, number)).inputs for number in range(data.rows)]


def _validation(rows: list[Tensors], own: OwnAnswers) -> Callable[[Any, Iterable[int]], tuple[float, list[Any]]]:
    """Return what NNCF asks how good a compiled model is on rows of some numbers, and for its answers to each."""

    def validate(compiled: Any, numbers: Iterable[int]) -> tuple[float, list[Any]]:
        asked = list(numbers)
        answers = [_answer(compiled, rows[number]) for number in asked]
        got = np.concatenate([one[own.output] for one in answers])
        # From 1 down: NNCF divides by what the float model reaches.
        return 1 - own.loss.of(got, own.answers[asked]), [list(one.values()) for one in answers]

    return validate


def _answers(model: Any, rows: list[Tensors]) -> Tensors:
    """Return a model's outputs for all rows, computed in float32 where it isn't int8."""
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = [_answer(compiled, row) for row in rows]
    return {name: np.concatenate([one[name] for one in answers]) for name in answers[0]}


def _answer(compiled: Any, row: Tensors) -> Tensors:
    return {_name(output): np.array(value[:1]) for output, value in compiled(row).items()}


def _name(output: Any) -> str:
    return str(next(iter(sorted(output.get_names())), "output"))


@contextlib.contextmanager
def _quiet(progress: Callable[[str], None]) -> Iterator[list[str]]:
    """Turn what NNCF logs into the run's progress, and its bars into nothing; give the list of its warnings."""
    warnings: list[str] = []

    class Told(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines = record.getMessage().splitlines()
            text = lines[0].strip() if lines else ""
            (warnings.append if record.levelno >= logging.WARNING else progress)(text)

    with contextlib.redirect_stdout(io.StringIO()):
        from nncf.common.logging import nncf_logger

        before, told = list(nncf_logger.handlers), Told(logging.INFO)
        nncf_logger.handlers[:] = [told]
        try:
            yield warnings
        finally:
            nncf_logger.handlers[:] = [handler for handler in before if type(handler) is not logging.StreamHandler]
