"""Convert a Keras model, a SavedModel or a torch model to LiteRT's format (.tflite)."""

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
        description="Rows that the model takes at a time; more run in parts. 0: any number where that can be made, "
        "else one, as for torch models and recurrent layers.",
    )

    def missing(self, given: str) -> UnavailableError | None:
        """litert-torch asks for other versions of packages than Hone has, so no extra of Hone's brings it."""
        if given != "torch":
            return None
        from ...sources.torch.lite import no_litert_torch

        return no_litert_torch()


@register(
    "litert",
    consumes="keras|savedmodel|torch",
    produces="litert",
    options=Options,
    needs=("sample",),
    tools=("tensorflow-cpu", "tensorflow", "keras", "tf-keras", "torch", "ai-edge-litert"),
    runtime="litert",
)
def litert(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Keras and SavedModels: a traced call with its weights as constants, by TensorFlow's converter. torch:
    litert-torch, in an environment of its own where it isn't in this one.

    Raises PassError when an operator has no kernel in LiteRT.
    """
    if model.runtime == "torch":
        from ...sources.torch.lite import convert
    else:
        from ...sources.keras.lite import convert
    try:
        fixed = convert(model, options.rows, out / ENTRY, context)
    except PassError as error:
        raise PassError(f"litert: {one_line(error)}") from error
    return Built(ENTRY, signature=model.signature, runtime_options={}, details={"rows": fixed} if fixed else {})
