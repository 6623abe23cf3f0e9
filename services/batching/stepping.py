"""A model's steps beside its lane: rows become tensors in threads, several callers' together, then join the other rows
that wait.

Text of several lengths in one request goes to the lane in parts, one for each bucket of lengths, so that short ones
share their batches with other callers' short ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hone.signature import Signature, Tensors
from hone.steps.answer import Answer
from hone.steps.pipeline import ReadySteps

from ..http.failures import OverloadedError
from .padding import Joiner, dynamic_axes, groups_of, part_of
from .steps_together import StepsTogether

THREADS = 4
"""At most, for the steps of a model: they share the cores with its inference."""

INLINE_VALUES = 16_384
"""Outputs of no more values are worked on where they arrive: that takes less than a thread costs."""


class Stepping:
    """Runs a model's steps.

    Args:
        steps: of the model.
        signature: of the model.
        joiner: of its lane; None: its rows share no batches.
        cores: that the worker may use.
        most_rows: that may wait for a thread; more are refused.
    """

    def __init__(
        self, steps: ReadySteps, signature: Signature, joiner: Joiner | None, cores: int, most_rows: int
    ) -> None:
        self._steps = steps
        self._signature = signature
        self._most_rows = most_rows
        self._rows = 0
        threads = max(1, min(THREADS, cores))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="steps")
        self._together = StepsTogether(steps, signature, self._pool, threads)
        pads = joiner is not None and joiner.pads
        grows = {axis for spec in signature.inputs for _, axis in dynamic_axes(spec)}
        self._by_length = pads and len(grows) == 1 and not any(dynamic_axes(spec) for spec in signature.outputs)

    def takes(self, inputs: Tensors) -> bool:
        """Return whether inputs are what callers have, rather than the model's own tensors."""
        return self._steps.is_raw(inputs)

    async def answer(self, raw: Tensors, infer: Callable[[Tensors], Awaitable[Tensors]]) -> Answer:
        """Return the answer to rows as callers have them.

        Args:
            raw: checked against what callers give.
            infer: the model.

        Raises:
            OverloadedError: too many rows wait for the steps.
            InputError: a row can't be used; the message names the input.
            what `infer` raises.
        """
        rows = len(next(iter(raw.values())))
        inputs, counts = await self._beside(rows, raw)
        groups = self._groups(inputs, counts)
        if groups is None:
            outputs = await infer(inputs)
        else:
            assert counts is not None
            cut = (part_of(inputs, self._signature, group, counts) for group in groups)
            parts = await asyncio.gather(*(infer(part) for part in cut))
            back = np.argsort(np.concatenate(groups))
            outputs = {name: np.concatenate([part[name] for part in parts])[back] for name in parts[0]}
        small = sum(array.size for array in outputs.values()) <= INLINE_VALUES
        if small and not self._steps.runs_code:
            answers = self._steps.after(outputs)
        else:
            answers = await asyncio.get_running_loop().run_in_executor(self._pool, self._steps.after, outputs)
        return Answer(answers, inputs, outputs, 0 if counts is None else int(counts.sum()))

    async def _beside(self, rows: int, raw: Tensors) -> tuple[Tensors, np.ndarray | None]:
        """Return what the steps make of rows, in a thread."""
        if self._rows and self._rows + rows > self._most_rows:
            raise OverloadedError(f"the queue is full: {self._rows} rows wait for steps, {self._most_rows} may")
        self._rows += rows
        try:
            return await self._together.tensors(raw)
        finally:
            self._rows -= rows

    def _groups(self, inputs: Tensors, counts: np.ndarray | None) -> list[np.ndarray] | None:
        """Return the numbers of the rows of each bucket of lengths; None: they are in one."""
        if counts is None or len(counts) < 2 or not self._by_length:
            return None
        found = groups_of(counts)
        return found if len(found) > 1 else None

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False)
