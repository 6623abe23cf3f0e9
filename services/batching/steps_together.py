"""The steps before a model, for several callers in one turn of a thread.

Steps of one row take less than what a thread's turn costs, and rows that come back one by one would begin batches one
by one: what waits goes together, and comes back together. A row that can't be used costs its own caller only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from time import perf_counter

import numpy as np

from hone.signature import Signature, Tensors
from hone.steps.pipeline import ReadySteps

from .padding import dynamic_axes

Made = tuple[Tensors, np.ndarray | None]
"""A model's tensors, and the tokens of each row where there are some."""

TURN_S = 0.001
"""Work that is worth a thread of its own."""

LEARNS = 0.2
"""Share that the newest turn has in what a row is thought to take."""


@dataclass(frozen=True)
class _Caller:
    """Rows that wait.

    Attributes:
        raw: as the caller has them.
        rows: how many.
        shape: those of other callers must have the same.
        made: gets what the steps give.
    """

    raw: Tensors
    rows: int
    shape: tuple[object, ...]
    made: asyncio.Future[Made]


class StepsTogether:
    """Runs steps for callers that wait at the same time.

    Args:
        steps: of the model.
        signature: of the model.
        pool: the threads.
        threads: how many there are.
        most_bytes: of tensors that one turn may make; None: as many as it takes.
    """

    def __init__(
        self,
        steps: ReadySteps,
        signature: Signature,
        pool: ThreadPoolExecutor,
        threads: int,
        most_bytes: int | None = None,
    ) -> None:
        self._steps, self._signature, self._most_bytes = steps, signature, most_bytes
        self._pool, self._free = pool, threads
        grows = {axis for spec in signature.inputs for _, axis in dynamic_axes(spec)}
        # A function of the user's own may do more than compute: it sees each caller's rows once, and alone.
        self._joins = not steps.runs_code and len(grows) <= 1
        self._waiting: list[_Caller] = []
        self._called = False
        self._row_s = 0.0

    async def tensors(self, raw: Tensors) -> Made:
        """Return what the steps make of a caller's rows.

        Raises:
            InputError: a row can't be used; the message names the input.
            TooMuchError: more would be made of the rows than may be.
        """
        loop = asyncio.get_running_loop()
        shape = tuple((name, array.dtype, array.shape[1:]) for name, array in raw.items())
        caller = _Caller(raw, len(next(iter(raw.values()))), shape, loop.create_future())
        self._waiting.append(caller)
        if not self._called and self._free:
            # Not at once: others whose requests came in the same turn of the loop go along.
            self._called = True
            loop.call_soon(self._begin)
        return await caller.made

    def _begin(self) -> None:
        self._called = False
        self._waiting = [caller for caller in self._waiting if not caller.made.cancelled()]
        while self._waiting and self._free:
            group = self._next()
            try:
                turn = asyncio.get_running_loop().run_in_executor(self._pool, self._make, group)
            except RuntimeError as error:  # the threads have ended
                for caller in group:
                    _settle(caller.made, error)
                continue
            self._free -= 1
            turn.add_done_callback(partial(self._end, group))

    def _next(self) -> list[_Caller]:
        """Take those that go together, about as many as leave each free thread its share."""
        rows = sum(caller.rows for caller in self._waiting)
        parts = max(1, min(self._free, int(rows * self._row_s / TURN_S)))
        group: list[_Caller] = []
        first, taken = self._waiting[0], 0
        for caller in self._waiting:
            if group and (not self._joins or taken * parts >= rows or caller.shape != first.shape):
                continue
            group.append(caller)
            taken += caller.rows
        chosen = set(map(id, group))
        self._waiting = [caller for caller in self._waiting if id(caller) not in chosen]
        return group

    def _make(self, group: Sequence[_Caller]) -> list[Made | Exception]:
        """Run the steps, in a thread; one that fails doesn't fail the others."""
        started = perf_counter()
        try:
            made = self._together(group)
        except Exception as error:  # noqa: BLE001 - whatever steps raise is its caller's
            if len(group) == 1:
                return [error]
            return [self._make([caller])[0] for caller in group]
        row_s = (perf_counter() - started) / sum(caller.rows for caller in group)
        self._row_s += LEARNS * (row_s - self._row_s)
        return list(made)

    def _together(self, group: Sequence[_Caller]) -> list[Made]:
        raw = group[0].raw
        if len(group) > 1:
            raw = {name: np.concatenate([caller.raw[name] for caller in group]) for name in raw}
        inputs, counts = self._steps.tensors(raw, self._most_bytes)
        inputs = self._signature.check(inputs)
        if len(group) == 1:
            return [(inputs, counts)]
        parts, start = [], 0
        for caller in group:
            rows = slice(start, start + caller.rows)
            parts.append((self._cut(inputs, rows, counts), None if counts is None else counts[rows]))
            start += caller.rows
        return parts

    def _cut(self, inputs: Tensors, rows: slice, counts: np.ndarray | None) -> Tensors:
        """Return some rows, no longer than their longest text: as they would be had they come alone."""
        if counts is None:
            return {name: array[rows] for name, array in inputs.items()}
        longest, part = int(counts[rows].max()), {}
        for spec in self._signature.inputs:
            cut = [rows, *(slice(None) for _ in spec.shape[1:])]
            for position, _ in dynamic_axes(spec):
                cut[position] = slice(longest)
            part[spec.name] = np.ascontiguousarray(inputs[spec.name][tuple(cut)])
        return part

    def _end(self, group: Sequence[_Caller], turn: asyncio.Future[list[Made | Exception]]) -> None:
        self._free += 1
        failed = asyncio.CancelledError() if turn.cancelled() else turn.exception()
        results: Sequence[Made | BaseException] = [failed] * len(group) if failed else turn.result()
        for caller, made in zip(group, results, strict=True):
            _settle(caller.made, made)
        if self._waiting:
            self._begin()


def _settle(future: asyncio.Future[Made], made: Made | BaseException) -> None:
    """Give a caller what was made, unless he is gone."""
    if future.done():
        return
    if isinstance(made, tuple):
        future.set_result(made)
    else:
        future.set_exception(made)
