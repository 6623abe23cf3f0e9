"""What of an OpenVINO model is int8, and whether it has attention: by its operators, without running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

HEAVY = {
    "Convolution": "Conv", "GroupConvolution": "Conv", "ConvolutionBackpropData": "ConvTranspose",
    "GroupConvolutionBackpropData": "ConvTranspose", "MatMul": "MatMul", "LSTMSequence": "LSTM", "GRUSequence": "GRU",
    "ScaledDotProductAttention": "Attention",
}  # fmt: skip
"""Operators that carry the arithmetic of a model, and what ONNX calls them."""

MOVES = {
    "Broadcast", "Concat", "Convert", "MaxPool", "Reshape", "Split", "Squeeze", "StridedSlice", "Transpose",
    "Unsqueeze", "VariadicSplit",
}  # fmt: skip
"""Operators that give what they get in another order, shape or type: what is int8 before is int8 behind."""

SCALES = {"Multiply", "Subtract", *MOVES}
"""Those that bring stored integers back to floats."""

BYTES = ("i8", "u8")


def count_quantized(model: Any) -> dict[str, Any]:
    """Return how many heavy operators of an `openvino.Model` compute in int8 and which stayed in float, by name."""
    quantized: Counter[str] = Counter()
    left: list[str] = []
    for operator in model.get_ordered_ops():
        kind = HEAVY.get(operator.get_type_name())
        if kind is None:
            continue
        if all(_is_quantized(operator.input_value(number).get_node()) for number in range(2)):
            quantized[kind] += 1
        else:
            left.append(operator.get_friendly_name())
    return {"quantized": sum(quantized.values()), "by_operator": dict(quantized), "left_in_float": left}


def _is_quantized(maker: Any) -> bool:
    """Return whether a value was quantized where it is made, or is stored in int8."""
    while maker.get_type_name() in MOVES:
        if _is_stored(maker):
            return True
        maker = maker.input_value(0).get_node()
    return maker.get_type_name() == "FakeQuantize" or _is_stored(maker)


def _is_stored(maker: Any) -> bool:
    """Return whether a value is integers of a constant and their scale."""
    while maker.get_type_name() in SCALES:
        maker = maker.input_value(0).get_node()
    return maker.get_type_name() == "Constant" and maker.get_element_type().get_type_name() in BYTES


def contractions(model: Any) -> list[str]:
    """Return the names of the matrix products with weights that give fewer values than they take."""
    found = []
    for operator in model.get_ordered_ops():
        if operator.get_type_name() != "MatMul" or not _is_constant(operator.input_value(1).get_node()):
            continue
        *_, taken, given = operator.input_value(1).get_partial_shape().to_shape()
        if operator.get_attributes()["transpose_b"]:
            taken, given = given, taken
        if given < taken:
            found.append(operator.get_friendly_name())
    return found


def _is_constant(maker: Any) -> bool:
    while maker.get_type_name() in MOVES:
        maker = maker.input_value(0).get_node()
    return maker.get_type_name() == "Constant"


def has_attention(model: Any) -> bool:
    """Return whether weights of a softmax go into a matrix product, as attention's do."""
    operators = model.get_ordered_ops()
    if any(operator.get_type_name() == "ScaledDotProductAttention" for operator in operators):
        return True
    softmaxes = [operator for operator in operators if operator.get_type_name() == "Softmax"]
    return any(user.get_type_name() == "MatMul" for softmax in softmaxes for user in _users(softmax))


def _users(operator: Any) -> Iterator[Any]:
    """Give what takes an operator's values, behind what only moves or masks them."""
    for output in operator.outputs():
        for target in output.get_target_inputs():
            user = target.get_node()
            if user.get_type_name() in MOVES | {"Multiply", "Select"}:
                yield from _users(user)
            else:
                yield user
