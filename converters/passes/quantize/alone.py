"""What quantizing one layer of a graph, and no other, does to the outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from hone.data import Dataset
from hone.errors import PassError, one_line
from hone.signature import Tensors

from ...graph.execution import BATCH_ROWS, cpu_session
from ...graph.onnx_graph import free_name, load_graph, name_nodes, save_graph, value_names

Quantize = Callable[[Path, Dataset], Path]
"""From a graph's file and rows of its inputs to the file of the quantized graph."""


@dataclass(frozen=True)
class _Layer:
    """A node that errors can be added behind.

    Attributes:
        node: as it is in the float graph.
        inputs: of it, that are no weights.
        outputs: of it; "" for those that nothing reads are left out.
        given: what it computes, by its names in the graph that takes errors.
        errors: inputs of that graph, one for each output.
    """

    node: onnx.NodeProto
    inputs: list[str]
    outputs: list[str]
    given: list[str]
    errors: list[str]


class Alone:
    """The float graph with a place for errors behind each layer, in one session.

    A layer is cut out and quantized as a graph of its own, which takes milliseconds where the whole graph takes
    seconds. It is run on what the float graph feeds it, and what it answers wrongly is added to the float layer's
    answer: the layers after it see what they would if this one alone were quantized.

    Args:
        file: of the float graph.
        layers: names of nodes with float outputs, as `name_nodes` gives them.
        data: rows of the graph's inputs.
        scratch: an empty folder.

    Raises:
        PassError: the graph with its places for errors doesn't load, or fails on the rows.
    """

    def __init__(self, file: Path, layers: Sequence[str], data: Dataset, scratch: Path) -> None:
        graph = load_graph(file)
        name_nodes(graph)
        self._versions = graph.opset_import
        self._ir_version = graph.ir_version
        self._weights = {tensor.name: tensor for tensor in graph.graph.initializer}
        self._outputs = [value.name for value in graph.graph.output]
        self._layers = _opened(graph, layers, self._weights)
        self._scratch = scratch
        shown = {name for layer in self._layers.values() for name in (*layer.inputs, *layer.given)}
        known = {value.name for value in (*graph.graph.input, *graph.graph.output)}
        graph.graph.output.extend(onnx.ValueInfoProto(name=name) for name in sorted(shown - known))
        save_graph(graph, scratch / "open.onnx")
        try:
            self._session = cpu_session(scratch / "open.onnx")
            self._batches = [self._floats(batch) for batch in data.batches(BATCH_ROWS)]
        except Exception as error:
            raise PassError(f"quantize_mixed: the graph fails on the calibration rows: {one_line(error)}") from error

    def power(self, layer: str, quantize: Quantize) -> float:
        """Return the power of the error that a layer makes in the outputs over their power: the mean over those of
        floats.

        Raises:
            PassError: the layer can't be quantized, or not be run, on its own.
        """
        one = self._layers[layer]
        inputs = [{name: values[name] for name in one.inputs} for _, values in self._batches]
        file = self._scratch / "layer.onnx"
        save_graph(self._cut(one), file)
        errors, signals = dict.fromkeys(self._outputs, 0.0), dict.fromkeys(self._outputs, 0.0)
        try:
            rows = Dataset({name: np.concatenate([batch[name] for batch in inputs]) for name in one.inputs})
            session = cpu_session(quantize(file, rows))
            for (fed, values), given in zip(self._batches, inputs, strict=True):
                answers = session.run(one.outputs, given)
                wrong = {
                    name: answer - values[right]
                    for name, right, answer in zip(one.errors, one.given, answers, strict=True)
                }
                for name, got in zip(self._outputs, self._session.run(self._outputs, {**fed, **wrong}), strict=True):
                    if got.dtype.kind == "f":
                        wanted = values[name].astype(np.float64)
                        errors[name] += float(((got - wanted) ** 2).sum())
                        signals[name] += float((wanted**2).sum())
        except PassError:
            raise
        except Exception as error:
            raise PassError(f"quantize_mixed: {layer} fails on its own: {one_line(error)}") from error
        floats = [name for name in self._outputs if self._batches[0][1][name].dtype.kind == "f"]
        return float(np.mean([errors[name] / max(signals[name], 1e-30) for name in floats])) if floats else 0.0

    def _floats(self, batch: Tensors) -> tuple[Tensors, Tensors]:
        """Return what a batch without errors is fed as, and every value that is shown."""
        dtypes = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
        errors = {name for layer in self._layers.values() for name in layer.errors}
        none = {one.name: np.zeros(1, dtypes[one.type]) for one in self._session.get_inputs() if one.name in errors}
        names = [value.name for value in self._session.get_outputs()]
        return {**batch, **none}, {
            **batch,
            **dict(zip(names, self._session.run(names, {**batch, **none}), strict=True)),
        }

    def _cut(self, layer: _Layer) -> onnx.ModelProto:
        """Return a layer as a graph of its own."""
        values = self._batches[0][1]

        def declared(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            return helper.make_tensor_value_info(name, kind, [None] * array.ndim)

        graph = helper.make_graph(
            [layer.node],
            "layer",
            [declared(name, values[name]) for name in layer.inputs],
            [declared(name, values[given]) for name, given in zip(layer.outputs, layer.given, strict=True)],
            [self._weights[name] for name in dict.fromkeys(layer.node.input) if name in self._weights],
        )
        return helper.make_model(graph, opset_imports=self._versions, ir_version=self._ir_version)


def _opened(model: onnx.ModelProto, layers: Sequence[str], weights: dict[str, onnx.TensorProto]) -> dict[str, _Layer]:
    """Add an input for an error, and its sum with what the layer gives, behind each output of each layer."""
    wanted, taken, found = set(layers), value_names(model), {}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        if node.name not in wanted:
            continue
        before = onnx.NodeProto()
        before.CopyFrom(node)
        outputs = [output for output in node.output if output]
        given = [free_name(f"{output}_given", taken) for output in outputs]
        errors = [free_name(f"{output}_error", taken) for output in outputs]
        node.output[:] = [dict(zip(outputs, given, strict=True)).get(output, "") for output in node.output]
        kind = next((weights[name].data_type for name in node.input if name in weights), onnx.TensorProto.FLOAT)
        for output, right, error in zip(outputs, given, errors, strict=True):
            nodes.append(helper.make_node("Add", [right, error], [output]))
            model.graph.input.append(helper.make_tensor_value_info(error, kind, None))
        inputs = [one for one in dict.fromkeys(node.input) if one and one not in weights]
        found[node.name] = _Layer(before, inputs, outputs, given, errors)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return found
