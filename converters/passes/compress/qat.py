"""Quantization-aware training: fine-tune with int8 in the loop, then export int8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError, UnavailableError, one_line

from ...context import Built, PassContext
from ...graph.onnx_graph import load_graph, save_graph
from ...graph.quantized_graph import count_quantized, quiet_quantizer, start_ranges_at_zero, store_weights_in_int8
from ...registry import PassOptions, register

if TYPE_CHECKING:
    import torch


class Options(PassOptions):
    """Static int8 whose weights learned to live with it; the result is an ONNX graph in QDQ form, as `export` gives."""

    epochs: int = Field(4, ge=1, description="For the recipe's `train` hook, which is required.")
    opset: int = Field(20, ge=13, le=25, description="ONNX operator set, as for export.")


@register(
    "qat",
    consumes="torch|keras",
    produces="onnx",
    options=Options,
    needs=("train", "sample"),
    tools=("torch", "torchao", "onnxscript", "onnx", "tensorflow-cpu", "tf-keras", "tf2onnx",
           "tensorflow-model-optimization"),
)  # fmt: skip
def qat(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Train with fake quantization, per-channel weights and learned activation ranges.

    torch: torchao's PT2E flow (its documentation, 'PyTorch 2 Export Quantization-Aware Training') with the quantizer
    for x86. Keras: tensorflow-model-optimization's `quantize_model`.

    Raises PassError when the model can't be prepared or nothing was quantized, RecipeError without a `train` hook.
    """
    train = _keras if model.runtime == "keras" else _torch
    facts = train(model, options, out, context)
    counts = count_quantized(load_graph(out / "model.onnx"))
    if not counts["quantized"]:
        raise PassError("qat: no operator of the graph was quantized; use quantize_static or fp16")
    return Built("model.onnx", "int8", runtime_options={}, details={**counts, "epochs": options.epochs, **facts})


def _keras(model: Artifact, options: Options, out: Path, context: PassContext) -> dict[str, Any]:
    from ...sources.keras.source import to_onnx
    from ...sources.keras.training import train_quantized

    network, layers = train_quantized(model, options.epochs, context)
    graph, _ = to_onnx(network, model.signature, options.opset)
    # tf2onnx folds the weights' fake quantization away and leaves floats that lie on int8's grid.
    store_weights_in_int8(graph)
    start_ranges_at_zero(graph)
    onnx.checker.check_model(graph)
    save_graph(graph, out / "model.onnx")
    return {"trained_layers": layers}


def _torch(model: Artifact, options: Options, out: Path, context: PassContext) -> dict[str, Any]:
    import torch

    from hone.runtimes.torch.calls import calling
    from hone.runtimes.torch.runtime import load_trainable

    from ...sources.torch.export import example_rows, export_graph, trace

    module = load_trainable(model)
    how = calling(module, model.signature.input_names)
    example = example_rows(module, model.signature, context)
    torch.manual_seed(0)
    program = trace(module.train(), how, model.signature, example, "qat")
    try:
        with quiet_quantizer():
            prepared = _prepare(program.module())
    except UnavailableError:
        raise
    except Exception as error:
        raise PassError(f"qat: {type(module).__name__} can't be prepared for training: {one_line(error)}") from error
    context.progress(f"quantization-aware training, {options.epochs} epochs")
    if context.fine_tune(prepared, options.epochs, "qat") is not prepared:
        raise PassError(f"qat: {context.loaded.recipe.train} must train the model it gets, and return it")
    prepared.eval()
    with quiet_quantizer():
        converted = _convert(prepared)
    export_graph(converted, model.signature, context, options.opset, out / "model.onnx")
    return {}


def _prepare(traced: torch.fx.GraphModule) -> Any:
    """Put fake quantization into a traced module and let it take `train()` and `eval()`, which hooks call.

    Raises:
        UnavailableError: torchao is not installed.
    """
    try:
        from torchao.quantization.pt2e import allow_exported_model_train_eval
        from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
    except ImportError as error:
        raise UnavailableError(f"{error.name} is not installed", "pip install 'hone[torch]'") from None
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
    return _returning_itself(allow_exported_model_train_eval(prepare_qat_pt2e(traced, quantizer)))


def _returning_itself(module: Any) -> Any:
    """`nn.Module.train` and `eval` return the module, and hooks end with `return model.eval()`; torchao's don't."""
    for name in ("train", "eval"):
        own = getattr(module, name)

        def switch(*arguments: Any, _own: Any = own) -> Any:
            _own(*arguments)
            return module

        setattr(module, name, switch)
    return module


def _convert(prepared: Any) -> Any:
    from torchao.quantization.pt2e import allow_exported_model_train_eval
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    converted = allow_exported_model_train_eval(convert_pt2e(prepared))
    converted.eval()
    return converted
