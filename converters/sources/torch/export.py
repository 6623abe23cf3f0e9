"""Tracing torch modules: as exported programs, and as ONNX graphs by the dynamo exporter.

Both exporters are told by name which axes are dynamic. A model that needs more of an axis than that, such as at least
four pixels for its pooling, is traced again with bounds that torch finds out by itself.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import onnx

from hone.errors import PassError
from hone.runtimes.base import picked_outputs
from hone.runtimes.torch.calls import Calling, calling, named_tensors
from hone.signature import BATCH, Signature

from ...context import PassContext
from ...graph.batch_axis import free_batch
from ...graph.onnx_graph import load_graph, rename_inputs, rename_outputs, save_graph
from .untraceable import cause_of, explained

if TYPE_CHECKING:
    import torch

PROGRAM = "model.pt2"

Traced = TypeVar("Traced")


def save_program(module: torch.nn.Module, signature: Signature, context: PassContext, file: Path) -> None:
    """Write a module as an exported program with the signature's dynamic axes.

    Raises:
        PassError: the module can't be traced.
    """
    import torch

    how = calling(module, signature.input_names)
    if how.form == "program":
        module, how = _flat(module, how, None)
    with _quiet():
        torch.export.save(trace(module, how, signature, example_rows(module, signature, context)), file)


def trace(
    module: torch.nn.Module, how: Calling, signature: Signature, example: dict[str, torch.Tensor], step: str = "export"
) -> torch.export.ExportedProgram:
    """Return a module as an exported program.

    Args:
        module: traced in the mode that it is in.
        how: it is called.
        signature: says which axes are dynamic.
        example: rows to trace with.
        step: who asks, for messages.

    Raises:
        PassError: it can't be traced.
    """
    import torch

    positional, keywords = how.arguments(example)

    def run(shapes: Any) -> torch.export.ExportedProgram:
        return torch.export.export(module, positional, keywords, dynamic_shapes=shapes)

    return _with_axes(run, module, how, signature, step)


def example_rows(module: torch.nn.Module, signature: Signature, context: PassContext) -> dict[str, torch.Tensor]:
    """Return real rows to trace with: at least two, because the exporter takes a batch of one for a constant.

    A program that was exported for a fixed number of rows gets that many.
    """
    import torch

    from hone.runtimes.torch.runtime import fixed_rows

    rows = context.sample.inputs
    count = len(next(iter(rows.values())))
    index = np.arange(fixed_rows(module, signature) or max(2, count)) % count
    return {name: torch.from_numpy(np.ascontiguousarray(rows[name][index])) for name in signature.input_names}


def export_graph(module: torch.nn.Module, signature: Signature, context: PassContext, opset: int, file: Path) -> int:
    """Write a module as an ONNX graph with the signature's names and axes; return its number of nodes.

    Raises:
        PassError: it can't be traced, or a dynamic axis became fixed.
    """
    from hone.runtimes.torch.runtime import fixed_rows

    example = example_rows(module, signature, context)
    rows = fixed_rows(module, signature)
    module, how = _exportable(module, signature, example)
    program = _run_exporter(module, how, signature if rows is None else _fixed(signature, rows), example, opset)
    with _quiet():
        program.save(file, external_data=False)
    graph = load_graph(file)
    rename_inputs(graph, signature.input_names)
    rename_outputs(graph, signature.output_names)
    if rows is not None:
        free_batch(graph, signature, rows, {name: tensor.numpy() for name, tensor in example.items()})
    else:
        _check_dynamic_axes(graph, signature)
    save_graph(graph, file)
    return len(graph.graph.node)


def _exportable(
    module: torch.nn.Module, signature: Signature, example: dict[str, torch.Tensor]
) -> tuple[torch.nn.Module, Calling]:
    """Return a module that takes tensors and gives the signature's outputs: itself where it does so already."""
    import torch

    how = calling(module, signature.input_names)
    with torch.no_grad():
        result = how.call(module, example)
    own = list(named_tensors(result))
    picked = picked_outputs(own, signature)
    members = result.values() if isinstance(result, dict) else result if isinstance(result, tuple | list) else (result,)
    plain = all(isinstance(member, torch.Tensor) for member in members)
    if plain and picked == own and how.form in ("keywords", "positions"):
        return module, how
    return _flat(module, how, picked)


def _flat(module: torch.nn.Module, how: Calling, outputs: list[str] | None) -> tuple[torch.nn.Module, Calling]:
    """Return a module around another that takes tensors by position and gives the named outputs of it (None: all)."""
    import torch

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: torch.Tensor) -> Any:
            result = how.call(self.module, dict(zip(how.names, tensors, strict=True)))
            if outputs is None:
                return result
            found = named_tensors(result)
            return tuple(found[name] for name in outputs)

    return Flat(), Calling(how.names, "members")


def _run_exporter(
    module: torch.nn.Module, how: Calling, signature: Signature, example: dict[str, torch.Tensor], opset: int
) -> Any:
    import torch

    positional, keywords = how.arguments(example)

    def run(shapes: Any) -> Any:
        return torch.onnx.export(
            module,
            args=positional,
            kwargs=keywords or None,
            input_names=signature.input_names,
            dynamic_shapes=shapes,
            opset_version=opset,
            dynamo=True,
            external_data=False,
        )

    return _with_axes(run, module, how, signature, "export")


def _with_axes(
    run: Callable[[Any], Traced], module: torch.nn.Module, how: Calling, signature: Signature, step: str
) -> Traced:
    """Trace with the signature's axes by name; where a model sets bounds to one of them, with bounds found by torch.

    `Dim.DYNAMIC` lets torch infer ranges and divisors that a name's plain range would violate, and still refuses an
    axis that the model turns into a constant (torch.export's documentation, "Expressing Dynamism").
    """
    from torch.export import Dim

    try:
        with _quiet():
            try:
                return run(_shapes(how, signature, {axis: Dim(axis) for axis in signature.dynamic_axes}))
            except Exception as error:
                if not signature.dynamic_axes or "Constraints violated" not in str(cause_of(error)):
                    raise
                return run(_shapes(how, signature, dict.fromkeys(signature.dynamic_axes, Dim.DYNAMIC)))
    except Exception as error:
        raise explained(error, module, signature, step) from error


def _shapes(how: Calling, signature: Signature, axes: dict[str, Any]) -> Any:
    """Return the dynamic axes in the form of the module's arguments."""
    by_name = {
        spec.name: {index: axes[axis] for index, axis in enumerate(spec.shape) if isinstance(axis, str)}
        for spec in signature.inputs
    }
    if how.form == "members":
        return (tuple(by_name[name] for name in how.names),)
    positional, keywords = how.arguments(by_name)
    return keywords or positional


def _fixed(signature: Signature, rows: int) -> Signature:
    """Return a signature whose rows are a fixed number."""
    inputs = tuple(
        spec.model_copy(update={"shape": tuple(rows if axis == BATCH else axis for axis in spec.shape)})
        for spec in signature.inputs
    )
    return signature.model_copy(update={"inputs": inputs})


def _check_dynamic_axes(model: onnx.ModelProto, signature: Signature) -> None:
    """An axis that the signature calls dynamic must be dynamic in the graph, or serving another size would fail."""
    values = {value.name: value for value in (*model.graph.input, *model.graph.output)}
    for kind, specs in (("input", signature.inputs), ("output", signature.outputs)):
        for spec in specs:
            dims = values[spec.name].type.tensor_type.shape.dim
            for axis, dim in zip(spec.shape, dims, strict=False):
                if not isinstance(axis, str) or not dim.HasField("dim_value"):
                    continue
                if kind == "input":
                    raise PassError(f"export: axis '{axis}' of input '{spec.name}' was burnt in as {dim.dim_value}")
                dim.dim_param = axis  # the exporter declared it too narrow: running the model at two sizes showed it


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints its progress and logs warnings about packages nobody asked for; keep the terminal clean."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.onnx._internal.exporter._registration")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
