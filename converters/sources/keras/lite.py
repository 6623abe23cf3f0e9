"""Keras models and SavedModels as LiteRT's: a traced call, its weights as constants."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hone.artifact import Artifact
from hone.errors import PassError, one_line, shorten

from ...context import PassContext

MISSING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")


def convert(model: Artifact, rows: int, file: Path, context: PassContext) -> int:
    """Write a Keras model or a SavedModel as a `.tflite` file; return the rows that it takes at a time, 0 for any.

    Args:
        rows: that are wanted; 0: any number, or one where that can't be had, as of recurrent layers.

    Raises:
        PassError: an operation has no kernel in LiteRT.
    """
    context.progress("converting")
    try:
        file.write_bytes(_converted(model, rows))
        return rows
    except PassError as error:
        if rows:
            raise
        context.progress(f"not for any number of rows, for one: {shorten(str(error), 80)}")
    file.write_bytes(_converted(model, 1))
    return 1


def _call(model: Artifact, names: list[str]) -> Any:
    """Return the model as a `tf.function` that wasn't traced yet: one that was is for any number of rows."""
    from hone.runtimes.keras import read_model, traced
    from hone.runtimes.savedmodel import called

    inputs = model.signature.input_names
    if model.runtime == "keras":
        return traced(read_model(model.entry, model.manifest.runtime_options), inputs, names)
    return called(model.entry.parent, inputs, names)


def _converted(model: Artifact, rows: int) -> bytes:
    from hone.runtimes.keras import frozen, import_tensorflow
    from hone.runtimes.silence import silent

    tf = import_tensorflow()
    names: list[str] = []
    function = _call(model, names)
    try:
        module, call = frozen(function, names, model.signature, rows)
        with silent():  # it tells what it tries, and lowers
            content: bytes = tf.lite.TFLiteConverter.from_concrete_functions([call], module).convert()
    except Exception as error:
        if names := sorted(set(MISSING.findall(str(error)))):
            raise PassError(f"LiteRT has no kernel for TensorFlow's {', '.join(names)}") from None
        raise PassError(f"TensorFlow can't convert it: {one_line(error)}") from error
    return content
