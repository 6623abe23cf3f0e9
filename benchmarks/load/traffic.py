"""Loads that were recorded: the times of a trace, or all of what a service was asked, replayed as it came."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hone.errors import HoneError, one_line
from hone.services.observe.recording import read
from hone.signature import Signature, TensorSpec

from ..scenarios import MOST_ARRIVALS, Scenario
from .payload import Pool, Rows, count_distinct, fit
from .run import Options, make
from .target import Target
from .wire import WIRES
from .workload import MOST_BYTES, Workload, calls_of

MOST_SIZES = 100
"""Different numbers of rows that a report's scenario tells."""


def replayed(
    target: Target,
    scenario: Scenario,
    options: Options,
    *,
    traffic: Path | None = None,
    trace: Path | None = None,
    duration: float | None = None,
) -> tuple[Scenario, Options]:
    """Return the scenario and the options that replay a recording; both as they are where none is given.

    Args:
        target: the model.
        scenario: of the other options.
        options: of the other options; rows of a trace's requests are chosen as without it.
        traffic: folder that a service recorded (HONE_RECORD_DIR); its rows, sizes and times are sent.
        trace: `.csv` with a column `time`, in seconds, and `rows` where requests differ in them.
        duration: seconds of the recording to replay; None: all.

    Raises:
        HoneError: the recording can't be read, has a hole or goes back in time, or is of another model.
    """
    source = traffic or trace
    if source is None:
        return scenario, options
    option = "--traffic" if traffic else "--trace"
    if traffic and trace:
        raise HoneError("--traffic and --trace are both recordings; leave one out")
    plain = Scenario(seed=scenario.seed, duration_s=scenario.duration_s)
    if scenario.model_copy(update={"arrival": "poisson"}) != plain and options.baseline is None:
        raise HoneError(f"{option} says when requests come and how large they are; leave --rate, --users, --rows, "
                        "--sizes and --arrivals out")  # fmt: skip
    if traffic and options.rows:
        raise HoneError("--traffic has rows of its own; leave --data out")
    workload = recorded(target, traffic, duration, options.wire) if traffic else _traced(
        target, read_trace(source, duration), scenario, options
    )  # fmt: skip
    assert workload.arrivals is not None
    sizes, counts = np.unique([workload.calls[call].rows or 1 for call in workload.order], return_counts=True)
    seconds = max(float(workload.arrivals[-1]), 1e-3)
    told = (
        zip(sizes.tolist(), (counts / counts.sum()).round(6).tolist(), strict=True) if len(sizes) <= MOST_SIZES else ()
    )
    again = Scenario(
        kind="open", arrival="trace", rate=round(len(workload.order) / seconds, 3), sizes=tuple(told), warm_up_s=0.0,
        duration_s=seconds, seed=scenario.seed,
    )  # fmt: skip
    return again, replace(options, workload=workload)


def read_trace(file: Path, duration: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Return the times of a trace, in seconds from its first, and the rows of its requests (1 where it says none).

    Raises:
        HoneError: naming the line that is no time, goes back, or says no rows.
    """
    times: list[float] = []
    rows: list[int] = []
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if "time" not in (reader.fieldnames or []):
                raise HoneError(f"{file}: no column 'time'; write a header: time,rows")
            for entry in reader:
                times.append(_time(entry["time"], times, f"{file}: line {reader.line_num}"))
                rows.append(_rows(entry.get("rows", "1"), f"{file}: line {reader.line_num}"))
                if duration is not None and times[-1] - times[0] > duration:
                    return np.array(times[:-1]) - times[0], np.array(rows[:-1])
                if len(times) > MOST_ARRIVALS:
                    raise HoneError(f"{file}: over {MOST_ARRIVALS:,} requests; give --duration to replay fewer")
    except FileNotFoundError:
        raise HoneError(f"{file}: no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise HoneError(f"{file}: can't be read as .csv: {one_line(error)}") from None
    if not times:
        raise HoneError(f"{file}: the trace has no request")
    return np.array(times) - times[0], np.array(rows)


def _time(text: str | None, before: list[float], where: str) -> float:
    try:
        moment = float(text or "")
    except ValueError:
        moment = math.nan
    if not math.isfinite(moment):
        raise HoneError(f"{where}: '{text or ''}' is no time in seconds: the trace has a hole")
    if before and moment < before[-1]:
        raise HoneError(f"{where}: {text} comes after {before[-1]:g}: the trace goes back in time")
    return moment


def _rows(text: str | None, where: str) -> int:
    if text is not None and text.strip().isdecimal() and int(text) > 0:
        return int(text)
    raise HoneError(f"{where}: '{text or ''}' is no number of rows: the trace has a hole")


def _traced(target: Target, trace: tuple[np.ndarray, np.ndarray], scenario: Scenario, options: Options) -> Workload:
    """Return a trace's times and sizes with rows from elsewhere."""
    times, rows = trace
    sizes = np.unique(rows)
    mixed = Scenario(sizes=tuple((int(size), 1.0) for size in sizes), seed=scenario.seed)
    workload = make(target, mixed, options.rows, options.wire)
    known = np.array([len(next(iter(part.values()))) for part in workload.inputs])
    order = np.zeros(len(rows), np.uint32)
    for size in sizes:
        chosen = np.flatnonzero(rows == size)
        order[chosen] = np.resize(
            np.flatnonzero(known == size) if len(sizes) > 1 else np.arange(len(known)), len(chosen)
        )
    return replace(workload, order=order, arrivals=times)


def recorded(target: Target, folder: Path, duration: float | None = None, wire: str = "json") -> Workload:
    """Return what a service was asked of a model, with the times at which it was asked.

    Raises:
        HoneError: nothing was recorded, parts are missing, or it is of another model.
    """
    if not target.signature.batchable:
        raise HoneError(f"{folder}: the model has no batch axis: its recorded rows aren't requests")
    table = read(folder, target.name).sort_by(
        [("time", "ascending"), ("request_id", "ascending"), ("row", "ascending")]
    )
    where = f"{folder}: model={target.name}"
    starts = np.flatnonzero(table["row"].to_numpy() == 0)
    numbers = table["row"].to_numpy()
    ends = np.append(starts[1:], len(numbers))
    whole = len(starts) and starts[0] == 0 and all(
        numbers[end - 1] == end - start - 1 for start, end in zip(starts, ends, strict=True)
    )  # fmt: skip
    if not whole:
        raise HoneError(f"{where}: requests have rows missing: the recording has a hole")
    ended = table["time"].cast("int64").to_numpy()[starts] / 1e6
    began = ended - table["latency_ms"].to_numpy()[starts] / 1e3
    first = np.argsort(began, kind="stable")
    times = began[first] - began[first[0]]
    if duration is not None:
        first, times = first[times <= duration], times[times <= duration]
    if sum(int(ends[place] - starts[place]) for place in first) * _row_bytes(table) > MOST_BYTES:
        raise HoneError(f"{where}: over {MOST_BYTES:,} bytes of rows; give --duration to replay fewer")
    columns = {spec.name: _column(table, spec, where) for spec in target.signature.inputs}
    inputs = [_request(columns, slice(starts[place], ends[place]), target.signature, where) for place in first]
    sizes = np.array([ends[place] - starts[place] for place in first])
    rows = Rows({}, f"recorded in {folder}, {len(inputs):,} requests", count_distinct(inputs))
    order = np.arange(len(inputs), dtype=np.uint32)
    return Workload(calls_of(target, inputs, sizes, WIRES[wire]), inputs, rows, order, times)


def _row_bytes(table: Any) -> int:
    return max(1, int(table.nbytes) // max(1, table.num_rows))


def _column(table: Any, spec: TensorSpec, where: str) -> list[np.ndarray]:
    """Return the recorded rows of an input, each in its shape."""
    name = f"input.{spec.name}"
    if name not in table.column_names:
        raise HoneError(f"{where}: no rows for input '{spec.name}': it wasn't recorded, or is another model's")
    values = table[name].to_pylist()
    shapes = table[f"{name}.shape"].to_pylist() if f"{name}.shape" in table.column_names else [None] * len(values)
    rows = []
    try:
        for value, shape in zip(values, shapes, strict=True):
            row = np.asarray(value, spec.numpy_dtype)
            rows.append(row if shape is None else row.reshape(shape))
    except (ValueError, TypeError) as error:
        raise HoneError(f"{where}: input '{spec.name}' is {spec.describe()}: {one_line(error)}") from None
    return rows


def _request(columns: dict[str, list[np.ndarray]], rows: slice, signature: Signature, where: str) -> Pool:
    try:
        return fit({name: np.stack(values[rows]) for name, values in columns.items()}, signature, where)
    except ValueError:
        raise HoneError(f"{where}: rows of one request have different shapes: the recording has a hole") from None
