"""Compile to MLX: the graph as JSON, the weights as safetensors, optionally in groups of 4 or 8 bit integers.

`graph.json`, version 1: `nodes` in order (`op`, `name`, `inputs`, `outputs`, `attributes`), `constants` (integers and
scalars that shape the graph), `compressed` (weights stored quantized and expanded at load) and `dtype`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from onnx import numpy_helper
from pydantic import Field

from hone.artifact import Artifact
from hone.errors import PassError

from ...context import Built, PassContext
from ...graph.onnx_graph import load_graph
from ...registry import PassOptions, register

VERSION = 1
SMALL = 64


class Options(PassOptions):
    """MLX on Apple silicon's GPU; its CPU backend on Linux serves for tests."""

    bits: Literal[4, 8] | None = Field(None, description="Quantize weights to groups of 4 or 8 bit integers.")
    group_size: Literal[32, 64, 128] = Field(64, description="Weights that share a scale; halved where it must be.")
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"


@register("mlx", consumes="onnx", produces="mlx", options=Options, tools=("mlx", "onnx"), runtime="mlx")
def mlx(model: Artifact, options: Options, out: Path, context: PassContext) -> Built:
    """Translate an ONNX graph into one that `hone.runtimes.mlx.runtime` runs.

    With `bits`, matrix products with constant weights run quantized (`mx.quantized_matmul`). MLX has no quantized
    convolution: convolution weights are stored quantized, which saves space, and expanded at load.

    Raises PassError naming the node whose operator MLX support lacks, before any work.
    """
    import mlx.core as mx

    graph = load_graph(model.entry).graph
    _require_supported(graph)
    writer = _Writer(graph, options)
    for node in graph.node:
        writer.add(node)
    mx.save_safetensors(str(out / "weights.safetensors"), writer.weights())
    (out / "graph.json").write_text(json.dumps(writer.content()))
    precision = (
        f"int{options.bits}" if options.bits else {"float16": "fp16", "bfloat16": "bf16"}.get(options.dtype, "fp32")
    )
    return Built("graph.json", precision, runtime_options={}, details=writer.report)


def _require_supported(graph: onnx.GraphProto) -> None:
    from hone.runtimes.mlx.operators import OPERATORS

    for node in graph.node:
        if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
            raise PassError(
                f"mlx: node '{node.name or node.output[0]}' has operator {node.domain or 'ai.onnx'}.{node.op_type}, "
                "which the MLX runtime doesn't have; add it to hone/runtimes/mlx, or leave MLX out for this model"
            )


class _Writer:
    """Collects nodes, constants and weights of the MLX graph."""

    def __init__(self, graph: onnx.GraphProto, options: Options) -> None:
        self._options = options
        self._arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        self._uses: dict[str, int] = {}
        for node in graph.node:
            for name in node.input:
                self._uses[name] = self._uses.get(name, 0) + 1
        self._nodes: list[dict[str, Any]] = []
        self._ready: dict[str, Any] = {}
        self._compressed: dict[str, dict[str, Any]] = {}
        self.report: dict[str, Any] = {"quantized": 0, "stored_quantized": 0, "left_in_float": []}

    def add(self, node: onnx.NodeProto) -> None:
        values = ((attribute.name, onnx.helper.get_attribute_value(attribute)) for attribute in node.attribute)
        attributes = {name: _plain(value) for name, value in values}
        if node.op_type == "Constant":
            self._arrays[node.output[0]] = _constant(attributes)
            return
        attributes = {key: v.tolist() if isinstance(v, np.ndarray) else v for key, v in attributes.items()}
        name = node.name or node.output[0]
        entry = {
            "op": node.op_type,
            "name": name,
            "inputs": list(node.input),
            "outputs": list(node.output),
            "attributes": attributes,
        }
        special: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "Conv": self._conv,
            "Gemm": self._linear,
            "MatMul": self._linear,
        }
        self._nodes.append(special.get(node.op_type, lambda same: same)(entry))

    def _conv(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Store the weight channels last: [filters, channels, *kernel] becomes [filters, *kernel, channels]."""
        name = entry["inputs"][1]
        if name not in self._arrays:
            raise PassError(f"mlx: node '{entry['name']}' (Conv) computes its weight; only constant weights work")
        stored = f"{name}.channels_last"
        entry["inputs"][1] = stored
        if stored in self._ready or stored in self._compressed:
            return entry
        weight = np.ascontiguousarray(np.moveaxis(self._arrays[name], 1, -1))
        group = self._group(weight.size // len(weight))
        if self._options.bits and group:
            self._compress(stored, weight.reshape(len(weight), -1), group)
            self._compressed[stored] = {"shape": weight.shape, "group_size": group, "bits": self._options.bits}
            self.report["stored_quantized"] += 1
        else:
            self._ready[stored] = self._cast(weight)
            if self._options.bits:
                self.report["left_in_float"].append(entry["name"])
        return entry

    def _linear(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Replace a product with a constant matrix by a quantized one where its size allows."""
        name, attributes = entry["inputs"][1], entry["attributes"]
        matrix = self._arrays.get(name)
        if not self._options.bits or matrix is None or matrix.ndim != 2:
            return entry
        plain = attributes.get("alpha", 1.0) == 1.0 and attributes.get("beta", 1.0) == 1.0
        weight = matrix if attributes.get("transB") else matrix.T
        group = self._group(weight.shape[1])
        if not plain or attributes.get("transA") or not group:
            self.report["left_in_float"].append(entry["name"])
            return entry
        stored = f"{name}.quantized{'' if attributes.get('transB') else '.transposed'}"
        if stored not in self._ready:
            self._compress(stored, np.ascontiguousarray(weight), group)
        self.report["quantized"] += 1
        inputs = [entry["inputs"][0], stored, f"{stored}.scales", f"{stored}.biases", *entry["inputs"][2:]]
        options = {"group_size": group, "bits": self._options.bits}
        return {**entry, "op": "QuantizedLinear", "inputs": inputs, "attributes": options}

    def _group(self, width: int) -> int | None:
        """Return the largest group size that divides a row, not over the option's; None when none does."""
        return next((size for size in (self._options.group_size, 64, 32) if width % size == 0), None)

    def _compress(self, name: str, weight: np.ndarray, group: int) -> None:
        import mlx.core as mx

        quantized = mx.quantize(mx.array(weight), group_size=group, bits=self._options.bits or 8)
        for suffix, array in zip(("", ".scales", ".biases"), quantized, strict=True):
            self._ready[name + suffix] = array

    def _cast(self, array: np.ndarray) -> Any:
        import mlx.core as mx

        value = mx.array(array)
        return value.astype(getattr(mx, self._options.dtype)) if array.dtype == np.float32 else value

    def weights(self) -> dict[str, Any]:
        """Return every weight that a node still reads."""
        read = {name for node in self._nodes for name in node["inputs"]}
        for name in read & self._arrays.keys():
            if not self._is_constant(self._arrays[name]):
                self._ready[name] = self._cast(self._arrays[name])
        return self._ready

    @staticmethod
    def _is_constant(array: np.ndarray) -> bool:
        """Integers decide shapes and axes, so they must be known while the graph is traced; so are scalars."""
        return array.size <= SMALL and (array.dtype.kind in "iub" or array.ndim == 0)

    def content(self) -> dict[str, Any]:
        read = {name for node in self._nodes for name in node["inputs"]}
        constants = {
            name: {"dtype": str(array.dtype), "shape": array.shape, "values": array.reshape(-1).tolist()}
            for name, array in self._arrays.items()
            if name in read and self._is_constant(array)
        }
        return {
            "version": VERSION,
            "dtype": self._options.dtype,
            "nodes": self._nodes,
            "constants": constants,
            "compressed": self._compressed,
        }


def _constant(attributes: dict[str, Any]) -> np.ndarray:
    for name, value in attributes.items():
        if name.startswith("value"):
            array = np.asarray(value)
            return array.astype(np.float32) if name.startswith("value_float") else array
    raise PassError("mlx: a Constant node without a value")


def _plain(value: Any) -> Any:
    """Turn an ONNX attribute into plain Python: bytes to text, tensors to arrays."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else value
