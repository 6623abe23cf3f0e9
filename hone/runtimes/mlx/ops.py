"""ONNX operators in MLX, by the ONNX operator specification (opset 13 and later).

A value is an `mx.array`, or a `np.ndarray` when it is known while the graph is traced: shapes and the integers that
are computed from them. An operator whose inputs are all known is computed with numpy, at trace time; so a reshape to
a computed shape costs nothing and works for every batch size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

Value = Any
Attributes = dict[str, Any]
Operator = Callable[..., Value]

OPERATORS: dict[str, Operator] = {}

# ONNX TensorProto.DataType to numpy names (onnx.proto3); the serving image has no onnx package.
DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float32",
}


def operator(*names: str) -> Callable[[Operator], Operator]:
    def add(function: Operator) -> Operator:
        for name in names:
            OPERATORS[name] = function
        return function

    return add


def known(*values: Value) -> bool:
    """True when every value is known at trace time."""
    return all(value is None or isinstance(value, np.ndarray) for value in values)


def library(*values: Value) -> Any:
    """Return numpy when all values are known, else MLX."""
    if known(*values):
        return np
    import mlx.core as mx

    return mx


def device(value: Value) -> Any:
    """Return a value as an MLX array."""
    import mlx.core as mx

    return mx.array(value) if isinstance(value, np.ndarray) else value


def integers(value: Value) -> list[int]:
    """Return a value that an operator needs as plain integers, such as a shape or axes.

    Raises:
        TypeError: it depends on the model's input values, so it isn't known at trace time.
    """
    if not isinstance(value, np.ndarray):
        raise TypeError("needs a shape or index that depends on input values; only input shapes may decide it")
    return [int(item) for item in value.reshape(-1)]


def _pair(a: Value, b: Value) -> tuple[Any, Value, Value]:
    lib = library(a, b)
    return (lib, a, b) if lib is np else (lib, device(a), device(b))


def _binary(name: str, method: str) -> None:
    def apply(_: Attributes, a: Value, b: Value) -> Value:
        lib, a, b = _pair(a, b)
        return getattr(lib, method)(a, b)

    OPERATORS[name] = apply


for _name, _method in (
    ("Add", "add"), ("Sub", "subtract"), ("Mul", "multiply"), ("Equal", "equal"), ("Greater", "greater"),
    ("GreaterOrEqual", "greater_equal"), ("Less", "less"), ("LessOrEqual", "less_equal"), ("And", "logical_and"),
    ("Or", "logical_or"), ("Pow", "power"),
):  # fmt: skip
    _binary(_name, _method)


def _unary(name: str, method: str) -> None:
    def apply(_: Attributes, x: Value) -> Value:
        return getattr(library(x), method)(x)

    OPERATORS[name] = apply


for _name, _method in (
    ("Sqrt", "sqrt"), ("Exp", "exp"), ("Log", "log"), ("Abs", "abs"), ("Neg", "negative"), ("Tanh", "tanh"),
    ("Sin", "sin"), ("Cos", "cos"), ("Floor", "floor"), ("Ceil", "ceil"), ("Reciprocal", "reciprocal"),
    ("Not", "logical_not"), ("Sign", "sign"),
):  # fmt: skip
    _unary(_name, _method)


@operator("Div")
def div(_: Attributes, a: Value, b: Value) -> Value:
    lib, a, b = _pair(a, b)
    if lib is np and a.dtype.kind in "iu":
        return np.trunc(a / b).astype(a.dtype)
    return lib.divide(a, b)


@operator("Erf")
def erf(_: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return mx.erf(device(x))


@operator("Sigmoid")
def sigmoid(_: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return mx.sigmoid(device(x))


@operator("Relu")
def relu(_: Attributes, x: Value) -> Value:
    return library(x).maximum(x, 0)


@operator("LeakyRelu")
def leaky_relu(attributes: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return mx.where(x > 0, x, x * attributes.get("alpha", 0.01))


@operator("Elu")
def elu(attributes: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return mx.where(x > 0, x, attributes.get("alpha", 1.0) * (mx.exp(x) - 1))


@operator("HardSigmoid")
def hard_sigmoid(attributes: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return mx.clip(attributes.get("alpha", 0.2) * x + attributes.get("beta", 0.5), 0, 1)


@operator("HardSwish")
def hard_swish(_: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return x * mx.clip(x / 6 + 0.5, 0, 1)


@operator("Softplus")
def softplus(_: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return mx.logaddexp(x, mx.array(0, x.dtype))


@operator("Gelu")
def gelu(attributes: Attributes, x: Value) -> Value:
    import mlx.core as mx

    if attributes.get("approximate", "none") == "tanh":
        return 0.5 * x * (1 + mx.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
    return 0.5 * x * (1 + mx.erf(x / math.sqrt(2)))


@operator("Clip")
def clip(_: Attributes, x: Value, low: Value = None, high: Value = None) -> Value:
    lib = library(x)
    if low is not None:
        x = lib.maximum(x, low if lib is np else device(low))
    return x if high is None else lib.minimum(x, high if lib is np else device(high))


@operator("Min")
def minimum(_: Attributes, *values: Value) -> Value:
    return _reduce_values("minimum", values)


@operator("Max")
def maximum(_: Attributes, *values: Value) -> Value:
    return _reduce_values("maximum", values)


def _reduce_values(method: str, values: tuple[Value, ...]) -> Value:
    result = values[0]
    for value in values[1:]:
        lib, a, b = _pair(result, value)
        result = getattr(lib, method)(a, b)
    return result


@operator("Where")
def where(_: Attributes, condition: Value, a: Value, b: Value) -> Value:
    lib = library(condition, a, b)
    return np.where(condition, a, b) if lib is np else lib.where(device(condition), device(a), device(b))


@operator("Softmax")
def softmax(attributes: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return mx.softmax(x, axis=attributes.get("axis", -1))


@operator("LogSoftmax")
def log_softmax(attributes: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return x - mx.logsumexp(x, axis=attributes.get("axis", -1), keepdims=True)


@operator("MatMul")
def matmul(_: Attributes, a: Value, b: Value) -> Value:
    lib, a, b = _pair(a, b)
    return lib.matmul(a, b)


@operator("Gemm")
def gemm(attributes: Attributes, a: Value, b: Value, c: Value = None) -> Value:
    a, b = device(a), device(b)
    if attributes.get("transA"):
        a = a.T
    if attributes.get("transB"):
        b = b.T
    product = attributes.get("alpha", 1.0) * (a @ b) if attributes.get("alpha", 1.0) != 1.0 else a @ b
    return product if c is None else product + attributes.get("beta", 1.0) * device(c)


@operator("QuantizedLinear")
def quantized_linear(
    attributes: Attributes, x: Value, weight: Value, scales: Value, offsets: Value, bias: Value = None
) -> Value:
    """Our own operator: x @ W.T + bias with W in groups of 4 or 8 bit integers (`mx.quantize`)."""
    import mlx.core as mx

    product = mx.quantized_matmul(
        x, weight, scales, offsets, transpose=True, group_size=attributes["group_size"], bits=attributes["bits"]
    )
    return product if bias is None else product + bias
