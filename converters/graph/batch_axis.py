"""Let a graph that was exported for a fixed number of rows take any number, where that gives the same answers.

Exporters write the example's batch size into the graph unless they are told otherwise: into the inputs, and into the
target shapes of Reshape and Expand. A graph that resists stays as it is, and its runtime runs it in parts of that size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx
from onnx import numpy_helper

from hone.runtimes.parts import run_in_parts
from hone.signature import BATCH, Signature

from .execution import FATAL_ONLY, cpu_session
from .onnx_graph import set_input_axes

TOLERANCE = 1e-4
"""Of the largest answer: batched kernels add in another order than those for one row."""


def common_rows(signature: Signature) -> int | None:
    """Return the fixed number of rows of a declared signature: the same axis 0 of every input and output.

    None when axis 0 is dynamic already, or no axis of rows: inputs that are plain vectors, or sizes that differ.
    """
    first = {spec.shape[0] if spec.shape else None for spec in (*signature.inputs, *signature.outputs)}
    size = first.pop() if len(first) == 1 else None
    matrices = all(len(spec.shape) > 1 for spec in signature.inputs)
    return size if isinstance(size, int) and matrices else None


def with_batch(signature: Signature) -> Signature:
    """Return a signature whose axis 0 is the batch."""
    inputs, outputs = (
        tuple(spec.model_copy(update={"shape": (BATCH, *spec.shape[1:])}) for spec in specs)
        for specs in (signature.inputs, signature.outputs)
    )
    return signature.model_copy(update={"inputs": inputs, "outputs": outputs})


def free_batch(model: onnx.ModelProto, signature: Signature, rows: int, example: Mapping[str, np.ndarray]) -> bool:
    """Make axis 0 of a graph dynamic, in place; return whether that worked, else the graph is as it was.

    Args:
        model: whose inputs have `rows` rows.
        signature: in which that axis is called `batch`.
        rows: that the graph was made for.
        example: real rows, to compare answers on; any number.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(model)
    set_input_axes(freed, signature)
    del freed.graph.value_info[:]
    for value in freed.graph.output:
        dims = value.type.tensor_type.shape.dim
        if dims and dims[0].dim_value == rows:
            dims[0].dim_param = BATCH
    _free_shapes(freed.graph, rows)
    if not _same_answers(model, freed, rows, example):
        return False
    model.CopyFrom(freed)
    return True


def _free_shapes(graph: onnx.GraphProto, rows: int) -> None:
    """Let target shapes that begin with the number of rows take it from what they reshape."""
    targets = {node.input[1] for node in graph.node if node.op_type == "Reshape"}
    stays = {name for node in graph.node for index, name in enumerate(node.input)
             if name in targets and not (node.op_type == "Reshape" and index == 1)}  # fmt: skip
    constants: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    for name in targets - stays:
        if name not in constants:
            continue
        shape = numpy_helper.to_array(constants[name]).copy()
        if shape.ndim == 1 and len(shape) and shape[0] == rows:
            # -1 holds wherever the other sizes are known; 0, which copies axis 0, where one of them is not.
            shape[0] = 0 if -1 in shape[1:] else -1
            constants[name].CopyFrom(numpy_helper.from_array(shape, name))


def _same_answers(fixed: onnx.ModelProto, freed: onnx.ModelProto, rows: int, example: Mapping[str, np.ndarray]) -> bool:
    """Return whether the freed graph gives, for one row and for several parts at once, what the fixed one gives."""
    reference = _runner(fixed)
    trial = _runner(freed)
    if reference is None or trial is None:
        return False
    total = len(next(iter(example.values())))
    for count in (1, 2 * rows + 1):
        index = np.arange(count) % total
        inputs = {name: np.ascontiguousarray(array[index]) for name, array in example.items()}
        try:
            answers = trial(inputs)
        except Exception:  # noqa: BLE001 - a burnt-in size shows as one of many errors of the runtime
            return False
        for name, wanted in run_in_parts(reference, inputs, rows).items():
            if not _close(answers[name], wanted):
                return False
    return True


def _close(answer: np.ndarray, wanted: np.ndarray) -> bool:
    if answer.shape != wanted.shape:
        return False
    if wanted.dtype.kind != "f":
        return bool((answer == wanted).all())
    scale = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    return bool(np.allclose(answer, wanted, rtol=0, atol=TOLERANCE * max(scale, 1e-6), equal_nan=True))


def _runner(model: onnx.ModelProto) -> Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None:
    try:
        session = cpu_session(model, severity=FATAL_ONLY)
    except Exception:  # noqa: BLE001 - see above
        return None
    names = [value.name for value in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(names, dict(inputs)), strict=True))
