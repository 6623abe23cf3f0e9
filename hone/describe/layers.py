"""The weights of an artifact layer by layer: statistics, and how far two artifacts' layers are from each other."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.artifact import Artifact
from hone.errors import ArtifactError, UnavailableError, one_line

if TYPE_CHECKING:
    import onnx

SUFFIXES = re.compile(r"(_(quantized|smooth|turned|int8|int4|Q\d+\w*|DQ_Q\d+|transposed|MatMul|scales))+(_\d+)?$")
"""What passes append to the name of a weight that they rewrite."""

LEAST_VALUES = 16
"""Smaller constants are biases of one number, shapes and scales: no layer's weights."""


@dataclass(frozen=True)
class LayerWeights:
    """One stored weight tensor.

    Attributes:
        name: without what passes append.
        values: as the runtime computes with them, float32; quantized ones are dequantized.
        bits: of one stored value.
    """

    name: str
    values: np.ndarray = field(repr=False)
    bits: int

    @property
    def sparsity(self) -> float:
        """Share of values that are exactly zero."""
        return float((self.values == 0).mean())


@dataclass(frozen=True)
class LayerDifference:
    """One layer in two artifacts.

    Attributes:
        cosine: of the values; None when the layer is in one artifact only or has another shape.
    """

    name: str
    first: LayerWeights | None
    second: LayerWeights | None
    cosine: float | None


def layer_weights(artifact: Artifact) -> list[LayerWeights]:
    """Return an artifact's weights in the order of its file.

    Raises:
        ArtifactError: the file can't be read.
        UnavailableError: its format holds no weights that could be read, such as an engine's.
    """
    if artifact.runtime == "onnx":
        return _from_onnx(artifact)
    if artifact.entry.suffix == ".safetensors":
        return _from_safetensors(artifact)
    raise UnavailableError(
        f"the weights of a {artifact.runtime} artifact ({artifact.entry.name}) can't be read",
        "compare the ONNX variant that it was built from",
    )


def compare_layers(first: Artifact, second: Artifact) -> list[LayerDifference]:
    """Return every layer of two artifacts, in the first's order; layers are matched by name, else by shape in order.

    Raises:
        ArtifactError, UnavailableError: as `layer_weights`.
    """
    ours, theirs = layer_weights(first), layer_weights(second)
    left = {layer.name: layer for layer in theirs}
    pairs: list[tuple[LayerWeights | None, LayerWeights | None]] = []
    pairs += [(layer, left.pop(layer.name, None)) for layer in ours]
    for index, layer in enumerate(ours):
        match = next((item for item in left.values() if _fits(layer.values, item.values)), None)
        if pairs[index][1] is None and match is not None:
            del left[match.name]
            pairs[index] = (layer, match)
    pairs += [(None, layer) for layer in left.values()]
    return [_difference(layer, other) for layer, other in pairs]


def _difference(layer: LayerWeights | None, other: LayerWeights | None) -> LayerDifference:
    name = layer.name if layer is not None else other.name if other is not None else ""
    similarity = _cosine(layer.values, other.values) if layer is not None and other is not None else None
    return LayerDifference(name, layer, other, similarity)


def _fits(a: np.ndarray, b: np.ndarray) -> bool:
    return a.shape == b.shape or (a.ndim == b.ndim == 2 and a.shape == b.shape[::-1])


def _cosine(a: np.ndarray, b: np.ndarray) -> float | None:
    if not _fits(a, b):
        return None
    # A square matrix may have been transposed, too: the better of both readings is meant.
    readings = [b] if a.shape == b.shape else []
    if a.ndim == 2 and a.shape == b.shape[::-1]:
        readings.append(b.T)
    left = a.reshape(-1).astype(np.float64)
    best = -1.0
    for reading in readings:
        right = np.ascontiguousarray(reading).reshape(-1).astype(np.float64)
        norms = float(np.linalg.norm(left) * np.linalg.norm(right))
        equal = 1.0 if not left.any() and not right.any() else 0.0
        best = max(best, float(left @ right) / norms if norms else equal)
    return min(best, 1.0)


def _from_safetensors(artifact: Artifact) -> list[LayerWeights]:
    from safetensors.numpy import load_file

    try:
        tensors = load_file(artifact.entry)
    except Exception as error:
        raise ArtifactError(f"{artifact.entry}: can't be read: {one_line(error)}") from error
    return [
        LayerWeights(name, values.astype(np.float32), values.dtype.itemsize * 8)
        for name, values in tensors.items()
        if values.size >= LEAST_VALUES and values.dtype.kind == "f"
    ]


def _from_onnx(artifact: Artifact) -> list[LayerWeights]:
    import onnx

    try:
        model = onnx.load(artifact.entry)
    except Exception as error:
        raise ArtifactError(f"{artifact.entry}: can't be read: {one_line(error)}") from error
    reader = _Reader(model)
    found: dict[str, LayerWeights] = {}
    for tensor in model.graph.initializer:
        layer = reader.layer(tensor)
        if layer is not None and layer.name not in found:
            found[layer.name] = layer
    return list(found.values())


class _Reader:
    """Reads a graph's initializers as float weights, with the scales that stand beside quantized ones."""

    def __init__(self, model: onnx.ModelProto) -> None:
        from onnx import numpy_helper

        self._array = numpy_helper.to_array
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._nodes: dict[str, onnx.NodeProto] = {}
        self._helpers: set[str] = set()
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                self._nodes.setdefault(name, node)
                if place and node.op_type in ("DequantizeLinear", "QuantizeLinear", "MatMulNBits"):
                    self._helpers.update([name] if place != 1 or node.op_type != "MatMulNBits" else [])

    def layer(self, tensor: onnx.TensorProto) -> LayerWeights | None:
        """Return a weight tensor; None for scales, zero points, shapes and other small constants."""
        if (
            tensor.name in self._helpers
            or self._beside(tensor.name)
            or np.prod(tensor.dims, dtype=np.int64) < LEAST_VALUES
        ):
            return None
        values = self._array(tensor)
        name, node = SUFFIXES.sub("", tensor.name), self._nodes.get(tensor.name)
        if values.dtype.kind == "f":
            return LayerWeights(name, values.astype(np.float32), values.dtype.itemsize * 8)
        if node is not None and node.op_type == "GatherBlockQuantized":
            scales = self._array(self._stored[node.input[2]])
            blocks = values.astype(np.float32).reshape(*scales.shape, -1) * scales[..., None]
            return LayerWeights(name, blocks.reshape(values.shape), 4)
        if node is None or values.dtype not in (np.int8, np.uint8, np.int32):
            return None
        if node.op_type == "MatMulNBits":
            return LayerWeights(name, *self._blocks(node, values))
        if values.dtype == np.int32 and node.op_type != "DequantizeLinear":
            return None  # shapes and indices; a quantized layer's bias is dequantized
        return LayerWeights(name, self._scaled(tensor.name, node, values), values.dtype.itemsize * 8)

    def _beside(self, name: str) -> bool:
        """Return whether a value is the scale or zero point of a quantized weight, by its name."""
        base = re.sub(r"_(scales?|zero_point)$", "", name)
        return base != name and any(f"{base}_{part}" in self._stored for part in ("quantized", "int8", "int4"))

    def _blocks(self, node: onnx.NodeProto, packed: np.ndarray) -> tuple[np.ndarray, int]:
        """Unpack a MatMulNBits weight [N, blocks, bytes] to float [K, N] (ONNX Runtime's docs/ContribOperators.md)."""
        settings = {item.name: item.i for item in node.attribute}
        inner, outer, bits = settings["K"], settings["N"], settings.get("bits", 4)
        raw = packed.reshape(outer, -1)
        if bits == 4:
            raw = np.stack([raw & 15, raw >> 4], axis=-1).reshape(outer, -1)
        scales = self._array(self._stored[node.input[2]]).reshape(outer, -1)
        middle = 1 << (bits - 1)
        values = raw.astype(np.float32).reshape(outer, scales.shape[1], -1)
        offsets: Any = middle
        if len(node.input) > 3 and node.input[3] in self._stored:
            zeros = self._array(self._stored[node.input[3]]).reshape(outer, -1)
            if bits == 4:
                zeros = np.stack([zeros & 15, zeros >> 4], axis=-1).reshape(outer, -1)[:, : scales.shape[1]]
            offsets = zeros.astype(np.float32)[..., None]
        turned = ((values - offsets) * scales[..., None]).reshape(outer, -1)[:, :inner]
        return np.ascontiguousarray(turned.T), bits

    def _scaled(self, name: str, node: onnx.NodeProto, values: np.ndarray) -> np.ndarray:
        """Dequantize int8 values by the scale that stands beside them, by node or by name."""
        base = re.sub(r"_(quantized|int8)$", "", name)
        candidates = [f"{base}_scale", f"{base}_scales", f"{name}_scale"]
        axis = next((item.i for item in node.attribute if item.name == "axis"), None)
        zero: np.ndarray | None = None
        if node.op_type == "DequantizeLinear":
            candidates.insert(0, node.input[1])
            if len(node.input) > 2 and node.input[2] in self._stored:
                zero = self._array(self._stored[node.input[2]])
        scale = next((self._array(self._stored[item]) for item in candidates if item in self._stored), np.float32(1))
        if zero is None and f"{base}_zero_point" in self._stored:
            zero = self._array(self._stored[f"{base}_zero_point"])
        centered = values.astype(np.float32) - _along(zero, values, axis)
        return centered * _along(scale, values, axis, neutral=1.0)


def _along(parameter: Any, values: np.ndarray, axis: int | None, neutral: float = 0.0) -> Any:
    """Shape a scale or zero point for broadcasting: one number, or one for each index of an axis."""
    if parameter is None:
        return neutral
    array = np.asarray(parameter, dtype=np.float32)
    if array.size == 1:
        return float(array.reshape(-1)[0])
    if array.ndim == values.ndim:
        return array
    if axis is None or values.shape[axis] != array.size:
        axis = next((i for i in range(values.ndim - 1, -1, -1) if values.shape[i] == array.size), 0)
    shape = [1] * values.ndim
    shape[axis] = array.size
    return array.reshape(shape)
