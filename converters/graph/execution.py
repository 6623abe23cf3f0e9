"""Running a graph here while it is worked on: on the processor, without warnings, over calibration rows in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

from hone.data import Dataset
from hone.errors import PassError, one_line
from hone.runtimes.parts import rows_at_once, run_in_parts
from hone.signature import Tensors

from .onnx_graph import is_large, load_graph, save_graph

BATCH_ROWS = 16
"""Calibration rows that run together: enough to fill the cores, few enough for every value of a graph to fit in
memory."""

Shape = tuple[int | str, ...]
"""Sizes of axes; texts stand for those that depend on the rows."""

ERRORS_ONLY, FATAL_ONLY = 3, 4
"""ONNX Runtime's log levels."""


def cpu_session(
    graph: Path | onnx.ModelProto, settings: Any = None, *, disabled: Sequence[str] = (), severity: int = ERRORS_ONLY
) -> Any:
    """Return an `onnxruntime.InferenceSession` on the processor that logs no warnings.

    Args:
        graph: a file, with its external data beside it, or a model.
        settings: `onnxruntime.SessionOptions` with what else should differ from the default.
        disabled: names of optimizers to leave out.
        severity: least level that is logged; where a graph may be wrong and that is no error, fatal ones only.

    Raises:
        Exception: whatever ONNX Runtime raises for a graph that it can't load.
    """
    import onnxruntime as ort

    if not isinstance(graph, Path) and is_large(graph):
        with TemporaryDirectory(prefix="hone-graph-") as scratch:
            file = Path(scratch) / "model.onnx"
            save_graph(graph, file)
            return cpu_session(file, settings, disabled=disabled, severity=severity)
    settings = settings or ort.SessionOptions()
    settings.log_severity_level = severity
    source = str(graph) if isinstance(graph, Path) else graph.SerializeToString()
    return ort.InferenceSession(
        source, settings, providers=["CPUExecutionProvider"], disabled_optimizers=list(disabled) or None
    )


def run_rows(graph: Path | onnx.ModelProto, data: Dataset, step: str, names: Sequence[str] = ()) -> Iterator[Tensors]:
    """Run a graph on all rows; yield its outputs, or those named, batch after batch: as many rows as it is made for.

    Raises:
        PassError: beginning with `step`: the graph doesn't load, or fails on the rows.
    """
    try:
        session = cpu_session(graph)
        wanted = list(names) or [value.name for value in session.get_outputs()]
        rows = rows_at_once({node.name: node.shape for node in session.get_inputs()}, data.inputs)

        def run(batch: Mapping[str, np.ndarray]) -> Tensors:
            return dict(zip(wanted, session.run(wanted, dict(batch)), strict=True))

        for batch in data.batches(rows or BATCH_ROWS):
            yield run(batch) if rows is None else run_in_parts(run, batch, rows)
    except Exception as error:
        raise PassError(f"{step}: the graph fails on the calibration rows: {one_line(error)}") from error


def shapes_met(graph: onnx.ModelProto, first: Tensors, second: Tensors) -> dict[str, Shape]:
    """Return the shapes of all values of a graph as they come about: an axis that differs between two runs is text.

    What a file says of shapes is often less, and sometimes wrong.

    Args:
        graph: whose values are looked at.
        first, second: inputs of other sizes along each dynamic axis.

    Raises:
        Exception: whatever ONNX Runtime raises for a graph that it can't load or run.
    """
    watched = onnx.ModelProto()
    watched.CopyFrom(graph)
    known = {value.name for value in graph.graph.output}
    names = dict.fromkeys(name for node in graph.graph.node for name in node.output if name)
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    session = cpu_session(watched)
    met = [{**rows, **dict(zip(names, session.run(list(names), rows), strict=True))} for rows in (first, second)]
    return {
        name: tuple(a if a == b else f"{a}|{b}" for a, b in zip(met[0][name].shape, met[1][name].shape, strict=True))
        for name in met[0]
        if hasattr(met[0][name], "shape") and met[0][name].ndim == met[1][name].ndim
    }


def equal_batches(data: Dataset, graph: Path | None = None) -> Iterator[Tensors]:
    """Yield batches of the same number of rows, that which a graph is made for; what is left over is left out."""
    size = _made_for(graph, data) if graph else None
    if size and data.rows < size:
        data = data.of(np.arange(size) % data.rows)
    size = size or min(BATCH_ROWS, data.rows)
    return data.head(data.rows // size * size).batches(size)


def _made_for(graph: Path, data: Dataset) -> int | None:
    """Return the fixed number of rows of a graph's inputs; None: any."""
    shapes = {
        value.name: [dim.dim_value or None for dim in value.type.tensor_type.shape.dim]
        for value in load_graph(graph, weights=False).graph.input
    }
    return rows_at_once(shapes, data.inputs)
