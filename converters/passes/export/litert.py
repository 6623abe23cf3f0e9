"""Convert a Keras or torch model to LiteRT's format (.tflite)."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError, UnavailableError, one_line

from ...context import Built, PassContext
from ...registry import PassOptions, register

ENTRY = "model.tflite"


class Options(PassOptions):
    """LiteRT (TensorFlow Lite), a small runtime for CPUs, phones and boards. For int8 put quantize_litert behind it."""

    rows: int = Field(
        0,
        ge=0,
        description="Rows that the model takes at a time; more run in parts. 0: any number, or one where the converter "
        "can't make a model for any.",
    )


@register(
    "litert",
    consumes="keras|torch",
    produces="litert",
    options=Options,
    needs=("sample",),
    tools=("tensorflow-cpu", "tensorflow", "keras", "tf-keras", "torch", "ai-edge-litert"),
    runtime="litert",
)
def litert(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Keras: a traced call with its weights as constants, by TensorFlow's converter. torch: litert-torch, in an
    environment of its own where it isn't in this one.

    Raises PassError when an operator has no kernel in LiteRT.
    """
    if model.runtime == "keras":
        from ...sources.keras.lite import convert
    else:
        from ...sources.torch.lite import convert
    file = out / ENTRY
    fixed = options.rows
    try:
        convert(model, fixed, file, context)
    except UnavailableError:
        raise
    except Exception as error:
        if fixed:
            raise PassError(f"litert: {one_line(error)}") from error
        context.progress(f"not for any number of rows ({one_line(error)[:80]}); for one")
        fixed = 1
        try:
            convert(model, fixed, file, context)
        except Exception as again:
            raise PassError(f"litert: {one_line(again)}") from again
    details = {"rows": fixed} if fixed else {}
    return Built(ENTRY, signature=model.signature, runtime_options={}, details=details)
