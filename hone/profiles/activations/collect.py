"""Look at the values inside a model: some at a time are made outputs of its graph, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hone import store
from hone.artifact import Artifact
from hone.errors import HoneError, UnavailableError, one_line
from hone.profiles.activations.graph import RECTIFIERS, Value, values_of
from hone.profiles.activations.record import Activations, Layer, Outlier
from hone.profiles.activations.remarks import OUTLYING, remarks
from hone.profiles.activations.statistics import Statistics
from hone.profiles.rows import rows_of
from hone.signature import Tensors
from hone.store.trust import Policy, open_to_run

if TYPE_CHECKING:
    import onnx

AT_ONCE = 32
"""Values that one session gives."""
MOST_BYTES = 64_000_000
"""Of what one run gives: the first row tells how large its values are."""
MOST_ROWS = 64
DEFAULT_ROWS = 256
NAMED = 8
"""Outlying channels that are told by number."""
ENDS = {"Sigmoid": (0.0, 1.0), "HardSigmoid": (0.0, 1.0), "Tanh": (-1.0, 1.0)}


def activations(reference: str, rows: int | None = None) -> Activations:
    """Look at the values inside a stored model.

    Args:
        reference: of a stored artifact; of several that may be served, the one that this host serves.
        rows: of those that are kept, at most.

    Raises:
        StoreError: nothing answers to the reference, or none of it can run here.
        UnavailableError: it is no ONNX graph, or the package `onnx` isn't installed.
        HoneError: it may not run here, is corrupt, or fails on the rows.
    """
    entry = store.choose(store.serving_set(reference)).entry
    return look(entry.tag, open_to_run(entry, Policy.from_environment()), rows or DEFAULT_ROWS)


def look(tag: str, artifact: Artifact, rows: int) -> Activations:
    """Look at the values inside an artifact; raises as `activations`."""
    model = _read(tag, artifact)
    found, source = rows_of(artifact)
    inputs = {spec.name: spec.fit(found[spec.name][:rows]) for spec in artifact.signature.inputs}
    count = min(len(array) for array in inputs.values())
    values = values_of(model)
    made: dict[str, Statistics] = {}
    try:
        for start in range(0, len(values), AT_ONCE):
            part = values[start : start + AT_ONCE]
            made |= _watched(model, artifact, part, inputs, count)
    except HoneError:
        raise
    except Exception as error:
        raise HoneError(f"{tag} fails on its rows: {one_line(error)}") from error
    notes = [] if source.startswith("rows") else [f"{source}: ranges of real rows may be others"]
    if artifact.manifest.precision == "int8":
        notes.append("it is quantized already: look at the float variant that it was made from")
    return Activations(
        model=tag,
        digest=artifact.digest,
        precision=artifact.manifest.precision,
        rows=count,
        rows_from=source,
        layers=tuple(_layer(value, made[value.name]) for value in values if value.name in made),
        notes=tuple(notes),
    )


def _read(tag: str, artifact: Artifact) -> onnx.ModelProto:
    if artifact.runtime != "onnx":
        raise UnavailableError(
            f"{tag} is for {artifact.runtime}, which shows no values inside", "name the ONNX variant of the same run"
        )
    try:
        import onnx
    except ImportError:
        raise UnavailableError("onnx is not installed", "pip install onnx") from None
    try:
        return onnx.load(artifact.entry, load_external_data=False)
    except Exception as error:
        raise HoneError(f"{artifact.entry}: can't be read: {one_line(error)}") from error


@dataclass(frozen=True)
class _Session:
    """A session that gives values from inside a graph, and the rows that the graph takes at a time; None: any."""

    run: Any
    names: list[str]
    fixed: int | None


def _watched(
    model: onnx.ModelProto, artifact: Artifact, values: Sequence[Value], inputs: Tensors, count: int
) -> dict[str, Statistics]:
    """Return the figures of some values over all rows, of those that are floats."""
    session = _session(model, artifact, [value.name for value in values])
    found: dict[str, Statistics] = {}
    by_name = {value.name: value for value in values}
    signature = artifact.signature
    by_row = {spec.name for spec in signature.inputs if spec.batchable or not signature.batchable}
    rows = inputs.items()
    size = session.fixed or 1
    done = 0
    while done < count:
        batch = {
            name: _padded(array[done : done + size], size) if name in by_row else array[:1] for name, array in rows
        }
        given = dict(zip(session.names, session.run(session.names, batch), strict=True))
        floats = {name: array for name, array in given.items() if array.dtype.kind == "f" and array.ndim}
        real = min(size, count - done)
        for name, array in floats.items():
            if name not in found:
                found[name] = Statistics(by_name[name].axis, ENDS.get(by_name[name].operator))
            found[name].add(array[:real] if len(array) == size else array)
        done += real
        if session.fixed is None:
            room = MOST_BYTES // max(1, sum(array.nbytes for array in given.values()) // size)
            size = max(1, min(MOST_ROWS, room, count - done)) if signature.batchable else 1
    return {name: statistics for name, statistics in found.items() if statistics.count}


def _padded(rows: np.ndarray, size: int) -> np.ndarray:
    """Fill up the last part with its last row, whose values are left out again."""
    short = size - len(rows)
    return np.concatenate([rows, np.repeat(rows[-1:], short, axis=0)]) if short > 0 else rows


def _session(model: onnx.ModelProto, artifact: Artifact, names: list[str]) -> _Session:
    import onnx
    import onnxruntime as ort

    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    there = {value.name for value in watched.graph.output}
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in there)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL  # it would join layers
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(artifact.path))
    session = ort.InferenceSession(watched.SerializeToString(), options, providers=["CPUExecutionProvider"])
    batched = {spec.name for spec in artifact.signature.inputs if spec.batchable}
    sizes = {node.shape[0] for node in session.get_inputs() if node.name in batched and node.shape}
    size = sizes.pop() if len(sizes) == 1 else None
    return _Session(session.run, names, size if isinstance(size, int) else None)


def _layer(value: Value, made: Statistics) -> Layer:
    percentiles = made.percentiles()
    layer = Layer(
        tensor=value.name,
        operator=value.operator,
        feeds=value.feeds,
        shape=made.shape,
        least=made.least,
        most=made.most,
        mean=made.mean,
        std=made.std,
        percentiles=percentiles,
        zeros=made.zero / made.count,
        not_finite=made.not_finite,
        channels=0 if made.largest is None else len(made.largest),
        dead=_dead(value, made),
        outliers=tuple(_outliers(made)),
        saturated=made.near / made.count if value.operator in ENDS else None,
        int8_noise=made.noise(made.least, made.most),
        clipped_noise=made.noise(percentiles["0.1"], percentiles["99.9"]),
    )
    return layer.model_copy(update={"remarks": remarks(layer, value)})


def _dead(value: Value, made: Statistics) -> int:
    if value.operator not in RECTIFIERS or made.largest is None or made.least < 0:
        return 0
    return int((made.largest == 0).sum())


def _outliers(made: Statistics) -> Iterator[Outlier]:
    if made.largest is None or len(made.largest) < 4:
        return
    alive = made.largest[made.largest > 0]
    middle = float(np.median(alive)) if alive.size else 0.0
    if not middle:
        return
    for channel in np.argsort(-made.largest)[:NAMED]:
        if made.largest[channel] < OUTLYING * middle:
            return
        yield Outlier(channel=int(channel), ratio=float(made.largest[channel]) / middle)
