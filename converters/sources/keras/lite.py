"""Keras models as LiteRT's: a traced call, its weights as constants."""

from __future__ import annotations

import re
from pathlib import Path

from hone.artifact import Artifact
from hone.errors import PassError, one_line

from ...context import PassContext

MISSING = re.compile(r"tf\.(\w+)(?=[ \(])")


def convert(model: Artifact, rows: int, file: Path, context: PassContext) -> None:
    """Write a Keras artifact as a `.tflite` file.

    Args:
        rows: that it takes at a time; 0: any number.

    Raises:
        PassError: an operator has no kernel in LiteRT.
    """
    from hone.runtimes.keras import frozen, import_tensorflow, read_model
    from hone.runtimes.silence import silent

    tf = import_tensorflow()
    network = read_model(model.entry, model.manifest.runtime_options)
    context.progress("converting")
    module, call = frozen(network, model.signature, rows)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([call], module)
    try:
        with silent():  # it tells what it tries, and lowers
            content = converter.convert()
    except Exception as error:
        text = str(error)
        if "ops are not supported by the native TFLite runtime" in text:
            names = sorted(set(MISSING.findall(text.partition("Flex ops:")[2] or text)))
            raise PassError(f"LiteRT has no kernel for TensorFlow's {', '.join(names)}") from None
        raise PassError(f"TensorFlow can't convert {type(network).__name__}: {one_line(error)}") from error
    file.write_bytes(content)
