"""A model's steps beside its lane: rows become tensors in threads, several callers' together, then join the other rows
that wait.

Text of several lengths in one request goes to the lane in parts, one for each bucket of lengths, so that short ones
share their batches with other callers' short ones.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import numpy as np

from hone.signature import Signature, Tensors
from hone.steps.answer import Answer
from hone.steps.base import TooMuchError
from hone.steps.pipeline import ReadySteps

from ..http.answers import SMALL_BYTES, AnswerSizes
from ..http.budget import Budget
from ..http.failures import OverloadedError
from ..http.limits import Limits
from .padding import Joiner, dynamic_axes, groups_of, part_of
from .steps_together import StepsTogether

T = TypeVar("T")

THREADS = 4
"""At most, for the steps of a model: they share the cores with its inference."""

INLINE_VALUES = 16_384
"""Tensors of no more values are worked on where they arrive: that takes less than a thread costs."""


class Stepping:
    """Runs a model's steps.

    Args:
        steps: of the model.
        signature: of the model.
        joiner: of its lane; None: its rows share no batches.
        cores: that the worker may use.
        most_rows: that may wait for a thread; more are refused.
        limits: of one request.
    """

    def __init__(
        self,
        steps: ReadySteps,
        signature: Signature,
        joiner: Joiner | None,
        cores: int,
        most_rows: int,
        limits: Limits,
    ) -> None:
        self._steps = steps
        self._signature = signature
        self._most_rows = most_rows
        self._limits = limits
        self._sizes = AnswerSizes(signature, limits)
        self._made = Budget(limits.memory, what="rows made ready for the model", setting="HONE_MAX_READ_MB")
        self._rows = 0
        threads = max(1, min(THREADS, cores))
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="steps")
        self._together = StepsTogether(steps, signature, self._pool, threads, limits.memory)
        pads = joiner is not None and joiner.pads
        grows = {axis for spec in signature.inputs for _, axis in dynamic_axes(spec)}
        self._by_length = pads and len(grows) == 1 and not any(dynamic_axes(spec) for spec in signature.outputs)

    def takes(self, inputs: Tensors) -> bool:
        """Return whether inputs are what callers have, rather than the model's own tensors."""
        return self._steps.is_raw(inputs)

    def check(self, inputs: Tensors) -> None:
        """Refuse the model's tensors whose outputs would be too much; that shows before they are computed.

        Raises:
            BodyTooLargeError: they would take more memory than a request may.
        """
        self._sizes.check(inputs)

    async def answer(self, raw: Tensors, infer: Callable[[Tensors], Awaitable[Tensors]]) -> Answer:
        """Return the answer to rows as callers have them.

        Args:
            raw: checked against what callers give.
            infer: the model.

        Raises:
            OverloadedError: too many rows wait for the steps.
            InputError: a row can't be used; the message names the input.
            BodyTooLargeError: what would be made of the rows, or of that, is more than a request may take.
            what `infer` raises.
        """
        rows = len(next(iter(raw.values())))
        makes = rows * self._steps.row_bytes
        if makes <= SMALL_BYTES:
            return await self._answer(rows, raw, infer)
        self._limits.check_made(makes)
        held = await self._made.take(makes)
        try:
            return await self._answer(rows, raw, infer)
        finally:
            self._made.give(held)

    async def _answer(self, rows: int, raw: Tensors, infer: Callable[[Tensors], Awaitable[Tensors]]) -> Answer:
        inputs, counts = await self._beside(rows, raw)
        self.check(inputs)
        groups: Sequence[np.ndarray] = ()
        if counts is not None and len(counts) > 1 and self._by_length:
            size = sum(array.size for array in inputs.values())
            groups, parts = await self._aside(size <= INLINE_VALUES, partial(self._cut, inputs, counts))
        if groups:
            parts = await asyncio.gather(*map(infer, parts))
        else:
            parts = [await infer(inputs)]
        small = sum(array.size for part in parts for array in part.values()) <= INLINE_VALUES
        finish = partial(self._finish, groups, parts)
        outputs, answers = await self._aside(small and not self._steps.runs_code, finish)
        return Answer(answers, inputs, outputs, 0 if counts is None else int(counts.sum()))

    async def _aside(self, here: bool, work: Callable[[], T]) -> T:
        """Return what work gives, done here or in a thread."""
        return work() if here else await asyncio.get_running_loop().run_in_executor(self._pool, work)

    async def _beside(self, rows: int, raw: Tensors) -> tuple[Tensors, np.ndarray | None]:
        """Return what the steps make of rows, in a thread."""
        if self._rows and self._rows + rows > self._most_rows:
            raise OverloadedError(f"the queue is full: {self._rows} rows wait for steps, {self._most_rows} may")
        self._rows += rows
        try:
            return await self._together.tensors(raw)
        except TooMuchError as error:
            self._limits.check_made(error.needed)
            raise
        finally:
            self._rows -= rows

    def _cut(self, inputs: Tensors, counts: np.ndarray) -> tuple[Sequence[np.ndarray], list[Tensors]]:
        """Return the numbers of the rows of each bucket of lengths, and those rows; nothing when they are in one."""
        groups = groups_of(counts)
        if len(groups) == 1:
            return (), []
        return groups, [part_of(inputs, self._signature, group, counts) for group in groups]

    def _finish(self, groups: Sequence[np.ndarray], parts: Sequence[Tensors]) -> tuple[Tensors, Tensors]:
        """Return the model's outputs, in the order of the rows, and the answer that is made of them."""
        outputs = parts[0]
        if groups:
            back = np.argsort(np.concatenate(groups))
            outputs = {name: np.concatenate([part[name] for part in parts])[back] for name in outputs}
        return outputs, self._steps.after(outputs)

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False)
