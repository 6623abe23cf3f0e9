"""ONNX operators in MLX, by the ONNX operator specification (opset 13 and later).

A value is an `mx.array`, or a `np.ndarray` when it is known while the graph is traced: shapes and the integers that
are computed from them. An operator whose inputs are all known is computed with numpy, at trace time; so a reshape to
a computed shape costs nothing and works for every batch size.

Images come in ONNX's layout, channels first; MLX convolves channels last, so convolution and pooling transpose at
their edges. Convolution weights arrive channels last already: `converters.passes.mlx` stores them so.
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


@operator("Conv")
def conv(attributes: Attributes, x: Value, weight: Value, bias: Value = None) -> Value:
    """Convolve 1, 2 or 3 spatial axes; the weight is [filters, *kernel, channels / groups]."""
    import mlx.core as mx

    spatial = x.ndim - 2
    kernel = weight.shape[1:-1]
    strides = attributes.get("strides", [1] * spatial)
    dilations = attributes.get("dilations", [1] * spatial)
    begin, end = _padding(attributes, x.shape[2:], kernel, strides, dilations)
    result = mx.conv_general(
        _channels_last(x), weight, stride=strides, padding=(begin, end), kernel_dilation=dilations,
        groups=attributes.get("group", 1),
    )  # fmt: skip
    return _channels_first(result if bias is None else result + device(bias))


def _channels_last(x: Value) -> Value:
    return x.transpose(0, *range(2, x.ndim), 1)


def _channels_first(x: Value) -> Value:
    return x.transpose(0, x.ndim - 1, *range(1, x.ndim - 1))


def _padding(
    attributes: Attributes, sizes: Any, kernel: Any, strides: Any, dilations: Any
) -> tuple[list[int], list[int]]:
    """Return padding before and after each spatial axis (ONNX `pads` and `auto_pad`)."""
    spatial = len(kernel)
    mode = attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        pads = attributes.get("pads", [0] * 2 * spatial)
        return list(pads[:spatial]), list(pads[spatial:])
    if mode == "VALID":
        return [0] * spatial, [0] * spatial
    begin, end = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max((-(-size // stride) - 1) * stride + (width - 1) * dilation + 1 - size, 0)
        small, large = total // 2, total - total // 2
        begin.append(large if mode == "SAME_LOWER" else small)
        end.append(small if mode == "SAME_LOWER" else large)
    return begin, end


@operator("MaxPool")
def max_pool(attributes: Attributes, x: Value) -> Value:
    import mlx.core as mx

    return mx.max(_windows(attributes, x, -math.inf), axis=-1)


@operator("AveragePool")
def average_pool(attributes: Attributes, x: Value) -> Value:
    import mlx.core as mx

    total = mx.sum(_windows(attributes, x, 0.0), axis=-1)
    if attributes.get("count_include_pad", 0):
        return total / math.prod(attributes["kernel_shape"])
    return total / mx.sum(_windows(attributes, mx.ones_like(x), 0.0), axis=-1)


def _windows(attributes: Attributes, x: Value, fill: float) -> Value:
    """Return [batch, channels, *out, kernel size]: every pooling window, flattened, on the last axis."""
    import mlx.core as mx

    kernel = attributes["kernel_shape"]
    strides = attributes.get("strides", [1] * len(kernel))
    dilations = attributes.get("dilations", [1] * len(kernel))
    begin, end = _padding(attributes, x.shape[2:], kernel, strides, dilations)
    if attributes.get("ceil_mode"):
        end = _ceil_padding(x.shape[2:], kernel, strides, dilations, begin, end)
    if any(begin) or any(end):
        x = mx.pad(x, [(0, 0), (0, 0), *zip(begin, end, strict=True)], constant_values=fill)
    outs = [
        (size - (width - 1) * dilation - 1) // stride + 1
        for size, width, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    parts = []
    for offset in np.ndindex(*kernel):
        index: list[Any] = [slice(None), slice(None)]
        for at, out, stride, dilation in zip(offset, outs, strides, dilations, strict=True):
            start = at * dilation
            index.append(slice(start, start + (out - 1) * stride + 1, stride))
        parts.append(x[tuple(index)])
    return mx.stack(parts, axis=-1)


def _ceil_padding(sizes: Any, kernel: Any, strides: Any, dilations: Any, begin: Any, end: Any) -> list[int]:
    """Pad the end so that the last, incomplete window counts (ceil_mode); it must start inside the input."""
    padded = []
    for size, width, stride, dilation, low, high in zip(sizes, kernel, strides, dilations, begin, end, strict=True):
        span = (width - 1) * dilation + 1
        out = -(-(size + low + high - span) // stride) + 1
        if (out - 1) * stride >= size + low:
            out -= 1
        padded.append(max(high, (out - 1) * stride + span - size - low))
    return padded


@operator("GlobalAveragePool")
def global_average_pool(_: Attributes, x: Value) -> Value:
    return x.mean(axis=tuple(range(2, x.ndim)), keepdims=True)


@operator("GlobalMaxPool")
def global_max_pool(_: Attributes, x: Value) -> Value:
    return x.max(axis=tuple(range(2, x.ndim)), keepdims=True)


@operator("BatchNormalization")
def batch_normalization(
    attributes: Attributes, x: Value, scale: Value, bias: Value, mean: Value, variance: Value
) -> Value:
    shape = (1, -1, *[1] * (x.ndim - 2))
    inverse = device(scale) / (device(variance) + attributes.get("epsilon", 1e-5)).sqrt()
    return x * inverse.reshape(shape) + (device(bias) - device(mean) * inverse).reshape(shape)


@operator("LayerNormalization")
def layer_normalization(attributes: Attributes, x: Value, scale: Value, bias: Value = None) -> Value:
    axis = attributes.get("axis", -1)
    axes = tuple(range(axis % x.ndim, x.ndim))
    centered = x - x.mean(axis=axes, keepdims=True)
    variance = (centered * centered).mean(axis=axes, keepdims=True)
    result = centered / (variance + attributes.get("epsilon", 1e-5)).sqrt() * device(scale)
    return result if bias is None else result + device(bias)


@operator("InstanceNormalization")
def instance_normalization(attributes: Attributes, x: Value, scale: Value, bias: Value) -> Value:
    axes, shape = tuple(range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    centered = x - x.mean(axis=axes, keepdims=True)
    variance = (centered * centered).mean(axis=axes, keepdims=True)
    normal = centered / (variance + attributes.get("epsilon", 1e-5)).sqrt()
    return normal * device(scale).reshape(shape) + device(bias).reshape(shape)
