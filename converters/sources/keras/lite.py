"""Keras models as LiteRT's: a traced call, its weights as constants."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hone.artifact import Artifact
from hone.errors import PassError, one_line, shorten
from hone.signature import Signature

from ...context import PassContext

MISSING = re.compile(r"'tf\.(\w+)' op is neither a custom op nor a flex op")


def convert(model: Artifact, rows: int, file: Path, context: PassContext) -> int:
    """Write a Keras artifact as a `.tflite` file; return the rows that it takes at a time, 0 for any number.

    Args:
        rows: that are wanted; 0: any number, or one where that can't be had, as of recurrent layers.

    Raises:
        PassError: an operation has no kernel in LiteRT.
    """
    from hone.runtimes.keras import read_model

    network = read_model(model.entry, model.manifest.runtime_options)
    context.progress("converting")
    try:
        file.write_bytes(_converted(network, model.signature, rows))
        return rows
    except PassError as error:
        if rows:
            raise
        context.progress(f"not for any number of rows, for one: {shorten(str(error), 80)}")
    file.write_bytes(_converted(network, model.signature, 1))
    return 1


def _converted(network: Any, signature: Signature, rows: int) -> bytes:
    from hone.runtimes.keras import frozen, import_tensorflow
    from hone.runtimes.silence import silent

    tf = import_tensorflow()
    try:
        module, call = frozen(network, signature, rows)
        with silent():  # it tells what it tries, and lowers
            content: bytes = tf.lite.TFLiteConverter.from_concrete_functions([call], module).convert()
    except Exception as error:
        if names := sorted(set(MISSING.findall(str(error)))):
            raise PassError(f"LiteRT has no kernel for TensorFlow's {', '.join(names)}") from None
        raise PassError(f"TensorFlow can't convert {type(network).__name__}: {one_line(error)}") from error
    return content
