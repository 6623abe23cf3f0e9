"""Take golden rows of a variant that is kept: rows, the answers that it was proven by, and what they may differ by."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hone.artifact import Artifact
from hone.data import Dataset, read_dataset, save_dataset
from hone.errors import HoneError, PassError, one_line
from hone.golden.made_up import synthetic
from hone.golden.record import Golden
from hone.golden.rows import FILE, GoldenRows, too_wide
from hone.golden.rows import MOST_BYTES as MOST_READ
from hone.golden.tolerance import differences, rounding, tolerances
from hone.hardware import cores
from hone.runtimes import runtime_class
from hone.runtimes.onnx.providers import on_gpu
from hone.signature import Tensors, as_text
from hone.steps.base import Columns
from hone.steps.pipeline import ReadySteps

from .evaluate import EVALUATION_BATCH
from .judge import Judge
from .probe_process import ProbeProcess
from .subject import Subject

FEWEST, MOST = 32, 256
CHECK_S = 0.1
"""That all rows of an artifact should take with one thread."""
MOST_BYTES = 8_000_000
"""Of the rows and their answers, for which there are fewer than FEWEST of them, too: they travel with the model."""
MOST_RAW, MOST_RAW_BYTES = 32, 4_000_000
"""Of those rows that are kept as callers have them, too, where the recipe has steps."""
BATCHES = (8, EVALUATION_BATCH)

OF_CLASSES = frozenset({"accuracy", "balanced_accuracy", "f1", "precision", "recall", "top_k"})
"""Metrics of outputs that hold a score for each class."""


@dataclass(frozen=True)
class Taken:
    """Golden rows of a variant, and what its manifest says of them; or why there are none."""

    record: Golden | None = None
    rows: GoldenRows | None = None
    reason: str = ""


@dataclass(frozen=True)
class Taker:
    """Takes golden rows of the variants of a run.

    Attributes:
        evaluation: what `hone.data.save_dataset` wrote.
        scratch: a folder for outputs and logs.
        judge: of the run.
        real: rows of the evaluation set may travel with the model; False: random ones stand for them.
        steps: the recipe's steps, where it has some.
    """

    evaluation: Path
    scratch: Path
    judge: Judge
    real: bool
    steps: ReadySteps | None = None

    def take(self, subject: Subject) -> Taken:
        """Let a proven variant answer its golden rows again, by other threads, batches and sessions.

        It runs in processes of its own; whatever goes wrong costs the golden rows, not the run.
        """
        dataset = read_dataset(self.evaluation)
        artifact, data = subject.artifact, dataset.inputs
        if not artifact.signature.batchable:
            return Taken(reason="its signature can't be batched")
        if FILE in artifact.manifest.files:
            return Taken(reason=f"it has a file {FILE} of its own")
        count = how_many(data, subject.some_outputs, seconds_of_a_row(subject))
        picked = spread_over(data, count) if self.real else None
        inputs = {name: rows[picked] for name, rows in data.items()} if picked is not None else synthetic(data, count)
        if inputs is None:
            return Taken(reason="evaluation rows must not leave the data, and text can't be made up")
        answered = picked is not None and subject.outputs  # one that was stopped early has not answered all rows
        own = [{name: rows[picked] for name, rows in subject.outputs.items()}] if answered else []
        try:
            alone, joined = self._repeats(subject.name, artifact, inputs)
            taken = self._sealed(artifact, inputs, alone, [*own, *joined])
            raw = dataset.of(picked[:MOST_RAW]).raw if picked is not None else {}
            return self._with_steps(taken, raw) if self.steps else taken
        except HoneError as error:
            return Taken(reason=str(error))
        except OSError as error:
            return Taken(reason=f"{self.scratch}: {error.strerror or one_line(error)}")

    def _repeats(self, name: str, artifact: Artifact, inputs: Tensors) -> tuple[list[Tensors], list[Tensors]]:
        """Return the answers of several sessions: to each row alone, and in batches."""
        file = self.scratch / f"{name}-golden.npz"
        save_dataset(Dataset(inputs), file)
        out = self.scratch / f"{name}-golden-answers.npz"
        alone: list[Tensors] = []
        joined: list[Tensors] = []
        probe = ProbeProcess(name, artifact.path, file, self.scratch / f"{name}-golden.log")
        counts = dict.fromkeys((1, min(2, cores()), cores()))
        sessions: list[dict[str, int | bool]] = [{"threads": threads} for threads in counts]
        if "optimized" in runtime_class(artifact.runtime).options.model_fields:
            # Kernels of the graph as it is: they round in another order, as those of another processor do.
            sessions.append({"threads": 1, "optimized": False})
        try:
            probe.answer()
            for session in sessions:
                try:
                    probe.ask("load", **session)
                except PassError:
                    if session.get("optimized", True):
                        raise
                    continue  # a graph that has kernels for its fused operators only
                for batch, found in ((1, alone), *((batch, joined) for batch in BATCHES)):
                    found.append(probe.answers(out, batch)[0])
        finally:
            probe.close()
        return alone, joined

    def _sealed(self, artifact: Artifact, inputs: Tensors, alone: list[Tensors], joined: list[Tensors]) -> Taken:
        """Return the rows with the first session's answers; the others, and the proof's, say what these may be off."""
        fitted = {spec.name: spec.fit(inputs[spec.name]) for spec in artifact.signature.inputs}
        answers = {name: alone[0][name] for name in artifact.signature.output_names}
        rows = len(next(iter(fitted.values())))
        if problem := unusable(answers, rows):
            return Taken(reason=problem)
        if unsteady := next((name for name in answers if not steady(answers, [*alone, *joined], name)), ""):
            return Taken(reason=f"its answers have other shapes, or NaN elsewhere, from run to run: '{unsteady}'")
        rounded = rounding(artifact.manifest.precision, on_gpu(artifact))
        record = Golden(
            file=FILE,
            rows=rows,
            source="evaluation" if self.real else "synthetic",
            repeats=len(alone) + len(joined),
            outputs=tolerances(answers, alone[1:], rounded, self._classes()),
            joined=tolerances(answers, [*alone[1:], *joined], rounded, self._classes()),
        )
        if blind := too_wide(answers, record):
            return Taken(reason=f"its answers differ from run to run as much as its values span: '{blind}'")
        taken = GoldenRows(fitted, answers)
        if taken.size_bytes > MOST_READ:
            return Taken(reason=f"{rows} of them, the fewest, take {taken.size_bytes / 1e6:,.0f} MB with their answers")
        return Taken(record, taken)

    def _with_steps(self, taken: Taken, raw: Columns) -> Taken:
        """Add rows as callers have them, and what the steps make of the answers."""
        assert self.steps is not None
        if taken.rows is None:
            return taken
        while raw and size_of(raw) > MOST_RAW_BYTES:
            raw = {name: array[: len(array) // 2] for name, array in raw.items() if len(array) > 1}
        answers = self.steps.after(taken.rows.outputs)
        changed = {name: array for name, array in answers.items() if array is not taken.rows.outputs.get(name)}
        return replace(taken, rows=replace(taken.rows, raw=raw, answers=changed))

    def _classes(self) -> Collection[str]:
        return {self.judge.output} if self.judge.name in OF_CLASSES else ()


def size_of(raw: Columns) -> int:
    """Return the bytes of rows as callers have them, about."""
    objects = [item for array in raw.values() if array.dtype.kind == "O" for item in array.reshape(-1)]
    return sum(map(len, objects)) + sum(array.nbytes for array in raw.values())


def seconds_of_a_row(subject: Subject) -> float:
    """Return what a row takes with the fewest threads that were measured, in batches of the smallest size."""
    first = min(subject.measured.latency, key=lambda latency: (latency.threads, latency.batch))
    return first.p50 / 1e3 / first.batch


def how_many(data: Tensors, answers: Tensors, row_s: float) -> int:
    """Return how many golden rows there are to be, by the time that one takes and the room with its answer."""
    rows = len(next(iter(data.values())))
    arrays = (*data.values(), *answers.values())
    row_bytes = max(1, sum(as_text(array).nbytes // max(1, len(array)) for array in arrays))
    by_time = min(MOST, max(FEWEST, int(CHECK_S / row_s)))
    return max(1, min(by_time, MOST_BYTES // row_bytes, rows))


def spread_over(data: Mapping[str, np.ndarray], count: int) -> np.ndarray:
    """Return the places of so many rows all over a data set: the first ones are often of one kind."""
    rows = len(next(iter(data.values())))
    return np.unique(np.linspace(0, rows - 1, min(count, rows)).round().astype(int))


def steady(answers: Tensors, repeats: Sequence[Tensors], name: str) -> bool:
    """Return whether all repeats of an output can be compared with the first answers."""
    first = answers[name]
    if first.dtype.kind != "f":
        return all(first.shape == repeat[name].shape for repeat in repeats)
    return all(np.isfinite(differences(first, repeat[name])).all() for repeat in repeats)


def unusable(answers: Tensors, rows: int) -> str:
    """Return why answers can't be golden, or an empty string."""
    for name, array in answers.items():
        if array.ndim == 0 or len(array) != rows:
            return f"output '{name}' has not one value for each row"
        if array.dtype.kind == "f" and not np.isfinite(array).any():
            return f"output '{name}' has no finite value"
    return ""
