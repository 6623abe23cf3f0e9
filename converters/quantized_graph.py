"""What the quantizing passes share: counting what was quantized, and keeping ONNX Runtime's tool quiet."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator

import onnx

from converters.embedding_tables import is_table

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
    "MatMulNBits": "MatMul",
}


def count_quantized(model: onnx.ModelProto) -> dict[str, object]:
    """Return how many heavy operators run in int8 and which stayed in float, by name.

    A QDQ operator counts as quantized when its first two inputs come from DequantizeLinear.
    """
    dequantized = {output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    quantized: Counter[str] = Counter()
    left: list[str] = []
    for node in model.graph.node:
        if node.op_type in _INTEGER:
            quantized[_INTEGER[node.op_type]] += 1
        elif node.op_type == "Gather" and node.input[0] not in dequantized:
            # Others look up shapes, or the scales beside a table.
            table = stored.get(node.input[0])
            if table is not None and table.data_type == onnx.TensorProto.INT8:
                quantized[node.op_type] += 1
            elif table is not None and is_table(node, table):
                left.append(node.name or node.output[0])
        elif node.op_type in _HEAVY:
            if any(name in dequantized for name in node.input[:2]):
                quantized[node.op_type] += 1
            else:
                left.append(node.name or node.output[0])
    return {"quantized": sum(quantized.values()), "by_operator": dict(quantized), "left_in_float": left}


def heavy_nodes(model: onnx.ModelProto) -> list[str]:
    """Return the names of the heavy operators that are in float: those that `count_quantized` calls left in float."""
    return list(count_quantized(model)["left_in_float"])  # type: ignore[call-overload]


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
