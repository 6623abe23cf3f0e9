"""What the quantizing passes share: counting what was quantized, and keeping ONNX Runtime's tool quiet."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator

import onnx

# Operators that carry the arithmetic of a model; the others only move or reshape values.
_HEAVY = {"Conv", "ConvTranspose", "MatMul", "Gemm", "LSTM", "GRU", "Attention", "Gather"}
_INTEGER = {
    "ConvInteger": "Conv",
    "MatMulInteger": "MatMul",
    "QLinearConv": "Conv",
    "QLinearMatMul": "MatMul",
    "DynamicQuantizeLSTM": "LSTM",
    "QAttention": "Attention",
    "DynamicQuantizeMatMul": "MatMul",
}


def count_quantized(model: onnx.ModelProto) -> dict[str, object]:
    """Return how many heavy operators run in int8 and which stayed in float, by name.

    A QDQ operator counts as quantized when its first two inputs come from DequantizeLinear.
    """
    dequantized = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    quantized: Counter[str] = Counter()
    left: list[str] = []
    for node in model.graph.node:
        if node.op_type in _INTEGER:
            quantized[_INTEGER[node.op_type]] += 1
        elif node.op_type in _HEAVY:
            if any(name in dequantized for name in node.input[:2]):
                quantized[node.op_type] += 1
            else:
                left.append(node.name or node.output[0])
    return {"quantized": sum(quantized.values()), "by_operator": dict(quantized), "left_in_float": left}


@contextlib.contextmanager
def quiet_quantizer() -> Iterator[None]:
    """ONNX Runtime's quantizer prints its progress and logs advice about its own command line tools; drop both."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(level)
