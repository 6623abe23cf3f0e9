"""Ways in which a model that was sound when it was proven answers wrongly elsewhere, as changes of its ONNX graph."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

LARGEST_16, SMALLEST_16 = 32767.0, -32768.0


def saturating(model: onnx.ModelProto, spare: int | None = None) -> int:
    """Let integer products compute as x86 processors without VNNI do, all but one; return how many there are.

    Those multiply unsigned activations with signed weights and add neighbors in 16 bits, where what doesn't fit is cut
    off (VPMADDUBSW); pairs are then added in 32 bits, and the zero point's share is taken off.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMulInteger" else None
        if weight is None or weight.dtype != np.int8 or weight.ndim != 2 or len(weight) % 2:
            nodes.append(node)
            continue
        mark = f"pair{count}_"
        nodes += [node] if count == spare else _pairwise(graph, node, weight.astype(np.float32), mark)
        count += 1
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def _pairwise(graph: onnx.GraphProto, node: onnx.NodeProto, weight: np.ndarray, mark: str) -> list[onnx.NodeProto]:
    rows, columns = weight.shape
    for name, value in (
        ("even", weight[None, 0::2]), ("odd", weight[None, 1::2]), ("sums", weight.sum(0)),
        ("pairs", np.array([-1, rows // 2, 2])), ("first", np.array([0])), ("last", np.array([-1])),
        ("one", np.array([1])), ("columns", np.array([columns])),
        ("low", np.float32(SMALLEST_16)), ("high", np.float32(LARGEST_16)),
    ):  # fmt: skip
        graph.initializer.append(numpy_helper.from_array(np.asarray(value), mark + name))

    def made(kind: str, inputs: list[str], output: str | list[str], **attributes: object) -> onnx.NodeProto:
        outputs = [output] if isinstance(output, str) else output
        return helper.make_node(kind, inputs, outputs, **attributes)

    m = mark
    return [
        made("Cast", [node.input[0]], m + "x", to=TensorProto.FLOAT),
        made("Reshape", [m + "x", m + "pairs"], m + "by_pair"),
        made("Split", [m + "by_pair"], [m + "x_even", m + "x_odd"], axis=2, num_outputs=2),
        made("Mul", [m + "x_even", m + "even"], m + "left"),
        made("Mul", [m + "x_odd", m + "odd"], m + "right"),
        made("Add", [m + "left", m + "right"], m + "wide"),
        made("Clip", [m + "wide", m + "low", m + "high"], m + "cut"),
        made("ReduceSum", [m + "cut", m + "one"], m + "sum", keepdims=0),
        made("Cast", [node.input[2]], m + "zero", to=TensorProto.FLOAT),
        made("Mul", [m + "zero", m + "sums"], m + "offset"),
        made("Sub", [m + "sum", m + "offset"], m + "flat"),
        made("Shape", [node.input[0]], m + "shape"),
        made("Slice", [m + "shape", m + "first", m + "last"], m + "lead"),
        made("Concat", [m + "lead", m + "columns"], m + "whole", axis=0),
        made("Reshape", [m + "flat", m + "whole"], m + "shaped"),
        made("Cast", [m + "shaped"], node.output[0], to=TensorProto.INT32),
    ]


def flip(model: onnx.ModelProto, generator: np.random.Generator, count: int = 1) -> str:
    """Flip the highest bit but the sign's of random weights (of int8 the sign); return which tensor it was."""
    tensors = [tensor for tensor in model.graph.initializer if np.prod(tensor.dims) >= 64]
    sizes = np.array([float(np.prod(tensor.dims)) for tensor in tensors])
    tensor = tensors[generator.choice(len(tensors), p=sizes / sizes.sum())]
    values = numpy_helper.to_array(tensor).copy()
    flat = values.reshape(-1)
    bits = flat.view({1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64}[flat.itemsize])
    bit = 7 if flat.itemsize == 1 else 8 * flat.itemsize - 2
    bits[generator.choice(flat.size, count, replace=False)] ^= bits.dtype.type(1 << bit)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return tensor.name


def swap_outputs(model: onnx.ModelProto) -> None:
    """Let the first two outputs have each other's names."""
    first, second = (output.name for output in model.graph.output[:2])
    names = {first: second, second: first}
    for node in model.graph.node:
        for places in (node.input, node.output):
            for index, name in enumerate(places):
                places[index] = names.get(name, name)


def other_words(model: onnx.ModelProto, table: str, generator: np.random.Generator) -> None:
    """Give every token the place of another in the table of embeddings, as another tokenizer would."""
    for tensor in model.graph.initializer:
        if tensor.name == table:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(values[generator.permutation(len(values))], table))
