"""Convolution, pooling and normalization of ONNX in MLX; see `hone.runtimes.mlx.ops` for how values are kept.

Images come in ONNX's layout, channels first; MLX convolves channels last, so convolution transposes at its edges. Its
weights arrive channels last already: `converters.passes.export.mlx` stores them so.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hone.runtimes.mlx.ops import Attributes, Value, device, operator


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
