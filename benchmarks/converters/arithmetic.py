"""How much arithmetic a row of a model takes, and how much this machine can do."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from hone.artifact import Artifact
from hone.data import load_dataset
from hone.recipe import load_recipe

MULTIPLYING = ("MatMul", "Gemm", "Conv")
PROVIDERS = ["CPUExecutionProvider"]


def macs_per_row(plain: Artifact, recipe: Path) -> float:
    """Return the multiplications of one evaluation row: those of MatMul, Gemm and Conv, from the shapes they meet.

    Args:
        plain: an ONNX artifact.
        recipe: whose evaluation data the row is of.
    """
    loaded = load_recipe(recipe)
    row = load_dataset(loaded, "evaluation", loaded.recipe.evaluation, plain.signature).head(1).inputs
    model = onnx.load(plain.entry)
    heavy = [node for node in model.graph.node if node.op_type in MULTIPLYING]
    if not heavy:
        return 0.0  # trees are compared, not multiplied
    shapes = _shapes(model, heavy, row)
    return sum(_macs(node, shapes) for node in heavy)


def _shapes(model: onnx.ModelProto, heavy: list[onnx.NodeProto], row: dict[str, np.ndarray]) -> dict[str, list[int]]:
    """Return the shapes of what the heavy nodes read and write when the model computes a row; changes the model."""
    stored = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    watched = list(dict.fromkeys(name for node in heavy for name in (node.output[0], *node.input[:2])))
    watched = [name for name in watched if name not in stored and name not in row]
    known = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in watched if name not in known)
    session = ort.InferenceSession(model.SerializeToString(), providers=PROVIDERS)
    met = {**row, **dict(zip(watched, session.run(watched, row), strict=True))}
    return {name: list(array.shape) for name, array in met.items()} | stored


def _macs(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> float:
    output, weight = shapes[node.output[0]], shapes[node.input[1]]
    if node.op_type == "Conv":
        inner = math.prod(weight[1:])
    else:
        turned = node.op_type == "Gemm" and any(item.name == "transB" and item.i for item in node.attribute)
        inner = weight[1] if turned else weight[-2] if len(weight) > 1 else weight[0]
    return float(math.prod(output) * inner)


def peak(size: int = 1024) -> dict[str, float]:
    """Return what this machine reaches in one large matrix product on all cores, in 1e9 operations a second.

    A measured peak, the best of ten: what the processor's data sheet promises depends on a clock that nobody sees.
    """
    rows = np.ones((size, size), np.float32), np.ones((size, size), np.uint8)
    return {
        "float32": _rate("MatMul", rows[0], np.float32, TensorProto.FLOAT),
        "int8": _rate("MatMulInteger", rows[1], np.int8, TensorProto.INT32),
    }


def _rate(operator: str, rows: np.ndarray, dtype: type[np.generic], answers: int) -> float:
    """Return 1e9 operations a second of one matrix product with weights of a dtype."""
    size = len(rows)
    weights = np.random.default_rng(0).integers(-50, 50, (size, size)).astype(dtype)
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["c"])],
        "peak",
        [helper.make_tensor_value_info("a", helper.np_dtype_to_tensor_dtype(rows.dtype), [size, size])],
        [helper.make_tensor_value_info("c", answers, [size, size])],
        [onnx.numpy_helper.from_array(weights, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=PROVIDERS)
    timings = []
    for _ in range(11):
        started = time.perf_counter()
        session.run(None, {"a": rows})
        timings.append(time.perf_counter() - started)
    return round(2 * size**3 / min(timings[1:]) / 1e9, 1)


def note_shares(model: dict[str, Any], peaks: dict[str, float]) -> None:
    """Note in each variant of a report's model what share of the machine's peak it reaches at its best batch.

    Args:
        model: its entry; of what other tools made, bfloat16 has no peak here.
        peaks: of `peak`.
    """
    kinds = [("int8" if "int8" in entry["variant"] else "float32", entry) for entry in model["variants"]]
    kinds += [("int8", entry) for entry in model["peers"] if entry.get("precision", "int8") == "int8"]
    for kind, entry in kinds:
        rates = entry.get("rows_per_s")
        if not rates or not model.get("mmacs_per_row"):
            continue
        done = max(rates.values()) * model["mmacs_per_row"] * 2e-3
        entry["peak_share"] = {"of": kind, "share": round(done / peaks[kind], 4)}
