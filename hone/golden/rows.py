"""The file of golden rows: written by the proof, read and checked by every host that loads the artifact."""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hone.errors import ArtifactError, SignatureError, one_line
from hone.files import atomic_write
from hone.golden.record import Golden
from hone.signature import Signature, Tensors, as_objects, as_text
from hone.steps.packing import packed_columns, unpacked_columns

FILE = "golden.npz"
INPUT, OUTPUT = "input.", "output."
RAW, ANSWER = "raw.", "answer."
"""Of artifacts with steps: the first of the rows as callers have them, and what the steps make of all outputs."""
MOST_BYTES = 64_000_000
"""Of the arrays in a file that is read: it may come from anywhere."""


@dataclass(frozen=True)
class GoldenRows:
    """Rows and the answers to each of them alone, all with the rows on axis 0.

    Attributes:
        inputs, outputs: of the model.
        raw: the first of the rows as callers have them, where steps make the inputs of these.
        answers: what steps make of the outputs.
    """

    inputs: Tensors
    outputs: Tensors
    raw: Tensors = field(default_factory=dict)
    answers: Tensors = field(default_factory=dict)

    @property
    def count(self) -> int:
        return len(next(iter(self.inputs.values())))

    @property
    def size_bytes(self) -> int:
        """Of all arrays as the file holds them, before they are compressed."""
        return sum(as_text(array).nbytes for array in (*self.inputs.values(), *self.outputs.values()))

    def slice(self, start: int, stop: int) -> Tensors:
        """Return the inputs of some rows."""
        return {name: array[start:stop] for name, array in self.inputs.items()}

    def part(self, start: int, count: int) -> GoldenRows:
        """Return some of the rows, with their answers."""
        answers = {name: array[start : start + count] for name, array in self.outputs.items()}
        return GoldenRows(self.slice(start, start + count), answers)


def write_rows(folder: Path, rows: GoldenRows) -> Path:
    """Write golden rows into an artifact's folder; the same rows give the same file."""
    arrays = {f"{INPUT}{name}": as_text(array) for name, array in rows.inputs.items()}
    arrays |= {f"{OUTPUT}{name}": as_text(array) for name, array in rows.outputs.items()}
    arrays |= packed_columns(rows.raw, RAW) | packed_columns(rows.answers, ANSWER)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    file = folder / FILE
    atomic_write(file, stream.getvalue())
    return file


def read_rows(folder: Path, golden: Golden, signature: Signature) -> GoldenRows:
    """Read the golden rows of an artifact.

    Args:
        folder: of the artifact, whose files have been compared with their hashes.
        golden: of its manifest.
        signature: of its manifest.

    Raises:
        ArtifactError: they can't be read, are of another signature, or no answer could be beyond their tolerance.
    """
    file = folder / golden.file
    arrays = _read(file)
    inputs = {name.removeprefix(INPUT): array for name, array in arrays.items() if name.startswith(INPUT)}
    outputs = {name.removeprefix(OUTPUT): array for name, array in arrays.items() if name.startswith(OUTPUT)}
    try:
        checked = signature.check(inputs)
    except SignatureError as error:
        raise ArtifactError(f"{file}: rows of another signature: {error}; optimize the model again") from None
    named = sorted(signature.output_names)
    if any(sorted(found) != named for found in (outputs, golden.outputs, golden.joined)):
        there, wanted = ", ".join(sorted({*outputs, *golden.outputs, *golden.joined})), ", ".join(named)
        raise ArtifactError(f"{file}: answers of another signature: they are for {there}, its outputs are {wanted}")
    if {len(array) if array.ndim else 0 for array in (*checked.values(), *outputs.values())} != {golden.rows}:
        raise ArtifactError(f"{file}: holds other than the {golden.rows} rows that the manifest says")
    try:
        rows = GoldenRows(checked, outputs, unpacked_columns(arrays, RAW), unpacked_columns(arrays, ANSWER))
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{file}: rows of its steps that can't be read: {one_line(error)}") from None
    _check_tolerances(file, rows, golden)
    return rows


def _read(file: Path) -> Tensors:
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                raise ArtifactError(f"{file}: golden rows of over {MOST_BYTES / 1e6:.0f} MB")
        with np.load(file, allow_pickle=False) as content:
            return {name: as_objects(content[name]) for name in content.files}
    except ArtifactError:
        raise
    except Exception as error:  # what a broken file makes zipfile and numpy raise is of many kinds
        raise ArtifactError(f"{file}: golden rows that can't be read: {one_line(error)}") from error


def _check_tolerances(file: Path, rows: GoldenRows, golden: Golden) -> None:
    for name, tolerance in (*golden.outputs.items(), *golden.joined.items()):
        if rows.outputs[name].dtype.kind == "f" and tolerance.largest is None:
            raise ArtifactError(f"{file}: the tolerance of '{name}' must say how far values may be off")
        if rows.outputs[name].dtype.kind != "f" and tolerance.equal is None:
            raise ArtifactError(f"{file}: the tolerance of '{name}' must say which share is equal")
    if blind := too_wide(rows.outputs, golden):
        raise ArtifactError(
            f"{file}: the tolerance of '{blind}' is as wide as its values; no answer would be beyond it"
        )


def too_wide(answers: Tensors, golden: Golden) -> str:
    """Return the output whose tolerance no wrong answer would be beyond, or an empty string."""
    for name, tolerance in (*golden.outputs.items(), *golden.joined.items()):
        width = span(answers[name]) if answers[name].dtype.kind == "f" else 0.0
        if width and max(tolerance.largest or 0.0, tolerance.mean or 0.0) >= width:
            return name
    return ""


def span(array: np.ndarray) -> float:
    """Return the width of an array's finite values; 0 where they are all one."""
    finite = array[np.isfinite(array)]
    return float(np.ptp(finite.astype(np.float64))) if finite.size else 0.0
