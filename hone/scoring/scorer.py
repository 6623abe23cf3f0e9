"""A loaded model asked for the answers to blocks of rows, in batches as its plan says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hone.errors import HoneError, one_line
from hone.services.batching.padding import Joiner, dynamic_axes, groups_of, part_of
from hone.services.batching.sizes import BatchSizes
from hone.services.models.loading import LoadedModel
from hone.signature import Tensors
from hone.steps.pipeline import ReadySteps

from .columns import column_of
from .errors import RowError, ScoreError
from .mapping import Mapped
from .reading.base import Rows
from .sifting import FAULTS, sift


@dataclass(frozen=True)
class Block:
    """Rows that are scored together.

    Attributes:
        first: the number of its first row among all.
        file: that they are of, for messages.
        rows: as they were read.
    """

    first: int
    file: str
    rows: Rows

    @property
    def stop(self) -> int:
        return self.first + len(self.rows.table)


@dataclass
class Ready:
    """A block whose rows are tensors.

    Attributes:
        block: as it was read.
        good: places of the rows that can be used.
        inputs: of the model, of those rows; None: there are none.
        lengths: of those rows, where they differ and were filled up.
        bad: why the others can't be used, by place.
    """

    block: Block
    good: np.ndarray
    inputs: Tensors | None
    lengths: np.ndarray | None
    bad: dict[int, str]


@dataclass
class Running:
    """A block whose batches were begun: the rows of each, and what becomes of it."""

    ready: Ready
    batches: list[tuple[np.ndarray, Callable[[], Tensors]]] = field(default_factory=list)


@dataclass(frozen=True)
class Scored:
    """The answers to a block.

    Attributes:
        first, stop: its rows among all.
        table: what was kept and the answers, of the rows that could be used.
        bad: those that couldn't, as records: file, row, error and the row's values.
    """

    first: int
    stop: int
    table: Any
    bad: list[dict[str, Any]]


class Scorer:
    """Asks a model; `ready` may run in another thread than `start` and `finish`.

    Args:
        model: loaded, with its plan.
        mapped: where its inputs are.
        skips: rows that can't be used are put aside; else the first of them ends the run.
    """

    def __init__(self, model: LoadedModel, mapped: Mapped, *, skips: bool) -> None:
        signature, plan = model.artifact.signature, model.plan
        if not signature.batchable:
            raise ScoreError(f"{model.entry.tag} takes no rows: its tensors have no batch axis")
        self._model, self._mapped, self._skips = model, mapped, skips
        self._signature = signature
        self._joiner = Joiner(signature, pad=plan.pad)
        self._sizes = BatchSizes(plan.max_batch_rows, plan.max_batch_cells)
        grows = {axis for spec in signature.inputs for _, axis in dynamic_axes(spec)}
        self._by_length = len(grows) == 1
        self._exact = not self._joiner.pads or any(dynamic_axes(spec) for spec in signature.outputs)
        self._steps: ReadySteps | None = model.steps
        raw = model.steps is not None and model.steps.is_raw({spec.name: None for spec in mapped.signature.inputs})
        self._before = self._steps if raw else None
        self._pool = ThreadPoolExecutor(plan.in_flight) if plan.in_flight > 1 else None
        self._outputs = {spec.name: spec for spec in model.offered.outputs}

    def close(self) -> None:
        """End the threads; the model stays."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def ready(self, block: Block) -> Ready:
        """Return a block's rows as tensors: steps before the model run here.

        Raises:
            RowError: one can't be used, and none is to be put aside; or none of the first block can.
        """
        bad = dict(block.rows.broken)
        rows = np.array([place for place in range(len(block.rows.table)) if place not in bad]) if bad else None
        everything = np.arange(len(block.rows.table))
        good, made, found = sift(everything if rows is None else rows, lambda part: self._tensors(block, part))
        bad |= found
        if bad:
            self._refuse(block, bad)
        inputs, lengths = made if made is not None else (None, None)
        return Ready(block, good, inputs, lengths, bad)

    def _tensors(self, block: Block, rows: np.ndarray) -> tuple[Tensors, np.ndarray | None]:
        table = block.rows.table
        inputs, lengths = self._mapped.inputs(table if len(rows) == len(table) else table.take(rows), "")
        if self._before is None:
            return inputs, lengths
        inputs, lengths = self._before.tensors(inputs)
        return self._signature.check(inputs), lengths

    def _refuse(self, block: Block, bad: dict[int, str]) -> None:
        place = min(bad)
        where = f"{block.file}: row {block.rows.first + place}: {bad[place]}"
        if not self._skips:
            raise RowError(f"{where}; --skip-bad FILE puts such rows aside")
        if block.first == 0 and len(bad) == len(block.rows.table):
            raise RowError(f"{where}; none of the first {len(bad)} rows can be used")

    def start(self, ready: Ready) -> Running:
        """Begin a block's batches; where the plan has one at a time, they are done when this returns."""
        running = Running(ready)
        if ready.inputs is None:
            return running
        for rows, inputs in self._batches(ready.inputs, ready.lengths):
            if self._pool is None:
                running.batches.append((rows, _settled(self._run, inputs)))
            else:
                future: Future[Tensors] = self._pool.submit(self._run, inputs)
                running.batches.append((rows, future.result))
        return running

    def _batches(self, inputs: Tensors, lengths: np.ndarray | None) -> Iterator[tuple[np.ndarray, Tensors]]:
        count = len(inputs[self._joiner.first])
        if lengths is None or not self._by_length:
            yield from self._cut(np.arange(count), inputs)
            return
        for rows in groups_of(lengths, exact=self._exact):
            yield from self._cut(rows, part_of(inputs, self._signature, rows, lengths))

    def _cut(self, rows: np.ndarray, inputs: Tensors) -> Iterator[tuple[np.ndarray, Tensors]]:
        size = self._sizes.limit(self._joiner.bucket(inputs))
        for start in range(0, len(rows), size):
            yield rows[start : start + size], {name: array[start : start + size] for name, array in inputs.items()}

    def _run(self, inputs: Tensors) -> Tensors:
        outputs = self._model.runtime.run(inputs)
        return self._steps.after(outputs) if self._steps is not None else outputs

    def finish(self, running: Running) -> Scored:
        """Return the answers to a block, when all its batches are done.

        Raises:
            RowError: the model can't compute with a row, and none is to be put aside.
            ScoreError: the runtime failed.
        """
        ready, block = running.ready, running.ready.block
        order: list[np.ndarray] = []
        answers: list[Tensors] = []
        for rows, outcome in running.batches:
            for part, outputs in self._outcome(ready, rows, outcome):
                order.append(part)
                answers.append(outputs)
        return Scored(block.first, block.stop, self._table(ready, order, answers), self._aside(ready))

    def _outcome(
        self, ready: Ready, rows: np.ndarray, outcome: Callable[[], Tensors]
    ) -> Iterator[tuple[np.ndarray, Tensors]]:
        """Yield what became of a batch; of one that failed for some rows, of the others."""
        block = ready.block
        try:
            yield rows, outcome()
            return
        except FAULTS:
            good, outputs, bad = sift(rows, lambda part: self._again(ready, part))
        except HoneError:
            raise
        except Exception as error:
            numbers = ready.good[rows] + block.rows.first
            raise ScoreError(
                f"{block.file}: rows {numbers.min()} to {numbers.max()}: inference failed: {one_line(error)}"
            ) from error
        found = {int(ready.good[place]): reason for place, reason in bad.items()}
        ready.bad.update(found)
        self._refuse(block, found)
        if outputs is not None:
            yield good, outputs

    def _again(self, ready: Ready, rows: np.ndarray) -> Tensors:
        assert ready.inputs is not None
        if ready.lengths is not None:
            return self._run(part_of(ready.inputs, self._signature, rows, ready.lengths))
        return self._run({name: array[rows] for name, array in ready.inputs.items()})

    def _table(self, ready: Ready, order: list[np.ndarray], answers: list[Tensors]) -> Any:
        """Return what is kept of the rows beside their answers, in the rows' order."""
        import pyarrow as pa

        rows = np.concatenate(order) if order else np.arange(0)
        kept = ready.block.rows.table.select(list(self._mapped.keep))
        if not answers:
            return kept.slice(0, 0)
        columns = {name: column_of([part[name] for part in answers], self._outputs.get(name)) for name in answers[0]}
        table = pa.table(columns)
        if (np.diff(rows) < 0).any():
            back = np.argsort(rows)
            table, rows = table.take(back), rows[back]
        places = ready.good[rows]
        kept = kept if len(places) == len(kept) else kept.take(places)
        return pa.table([*kept.columns, *table.columns], names=[*kept.column_names, *table.column_names])

    def _aside(self, ready: Ready) -> list[dict[str, Any]]:
        """Return the rows that can't be used, with their values as JSON has them."""
        block, found = ready.block, []
        for place, reason in sorted(ready.bad.items()):
            (values,) = block.rows.table.slice(place, 1).to_pylist()
            plain = {name: value for name, value in values.items() if not isinstance(value, bytes)}
            row = {"file": block.file, "row": block.rows.first + place, "error": reason}
            found.append({**row, **({} if place in block.rows.broken else {"values": plain})})
        return found


def _settled(run: Callable[[Tensors], Tensors], inputs: Tensors) -> Callable[[], Tensors]:
    """Run now; return a function that says what became of it."""
    try:
        outputs = run(inputs)
    except Exception as error:  # noqa: BLE001 - whoever asks for the outcome gets it
        failure = error

        def fail() -> Tensors:
            raise failure

        return fail
    return lambda: outputs
