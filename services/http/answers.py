"""Large answers: how large one will be, known before it is computed, and how many bytes of them a worker holds at once.

A few kilobytes of rows can stand for an answer of hundreds of megabytes. What it takes is estimated from the shapes of
the inputs, refused when that is more than one request may have, and taken from a budget until the caller has read it.
It is encoded beside the event loop and written in pieces; who reads slowly loses it when others wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import prod
from typing import TypeVar

from hone.signature import Signature, Tensors, TensorSpec

from .bodies import Bodies
from .budget import Budget
from .limits import Limits
from .responses import Body, Fields, Send, respond_in_pieces

T = TypeVar("T")

SMALL_BYTES = 65_536
"""An answer that takes no more is encoded and written at once, and counts nowhere."""

THREAD_VALUES = 65_536
"""More values are encoded in a thread."""

NUMBER_BYTES = 24
"""Of a number in JSON, about. In binary it takes what it takes as a tensor, once more."""

STRING_BYTES = 64
"""Of a short Python string and the pointer to it."""


class AnswerSizes:
    """How large the answers of a model are.

    Args:
        signature: of the model.
        limits: of one request.

    Attributes:
        small_rows: requests with so few rows have a small answer; -1 where rows alone don't say.
        known: False when outputs have axes that no input names: how large they are shows when they are there.
    """

    def __init__(self, signature: Signature, limits: Limits) -> None:
        self._limits = limits
        axes = {
            axis: (spec.name, index)
            for spec in reversed(signature.inputs)
            for index, axis in enumerate(spec.shape)
            if isinstance(axis, str)
        }
        self._outputs = [
            (
                prod(axis for axis in spec.shape if isinstance(axis, int)),
                _held(spec),
                [axes[axis] for axis in spec.shape if isinstance(axis, str) and axis in axes],
            )
            for spec in signature.outputs
        ]
        named = {axis for spec in signature.outputs for axis in spec.shape if isinstance(axis, str)}
        self.known = bool(signature.outputs) and named <= axes.keys()
        row_bytes = sum(values * (held + NUMBER_BYTES) for values, held, _ in self._outputs)
        plain = self.known and signature.batchable and len(named) == 1
        self.small_rows = SMALL_BYTES // max(1, row_bytes) if plain else -1

    def expected(self, inputs: Tensors, text: bool) -> tuple[int, int]:
        """Return the values of an answer and the bytes that it takes, as tensors and encoded.

        Args:
            inputs: checked.
            text: it is encoded as JSON.
        """
        values = taken = 0
        for size, held, axes in self._outputs:
            for name, index in axes:
                size *= inputs[name].shape[index]
            values += size
            taken += size * (held + (NUMBER_BYTES if text else held))
        return values, taken

    def check(self, inputs: Tensors) -> int:
        """Return the values that an answer in binary will have.

        Raises:
            BodyTooLargeError: it would take more memory than a request may.
        """
        values, taken = self.expected(inputs, False)
        self._limits.check_answer(taken)
        return values

    async def room(self, inputs: Tensors, text: bool, answers: Budget) -> LargeAnswer | None:
        """Return room for the answer to checked inputs; None for a small one, which needs none.

        Args:
            inputs: checked.
            text: it is encoded as JSON.
            answers: budget of the worker.

        Raises:
            BodyTooLargeError: it would take more memory than a request may.
            OverloadedError: the worker holds enough large answers.
        """
        values, taken = self.expected(inputs, text)
        return None if taken <= SMALL_BYTES else await self._take(values, taken, answers)

    def check_outputs(self, outputs: Tensors) -> int:
        """Return the values of an answer of outputs, as `check` where those are not known before."""
        values, taken = taken_by(outputs, False)
        self._limits.check_answer(taken)
        return values

    async def room_for(self, outputs: Tensors, text: bool, answers: Budget) -> LargeAnswer | None:
        """Return room for an answer of outputs, as `room` where those are not known before."""
        values, taken = taken_by(outputs, text)
        return None if taken <= SMALL_BYTES else await self._take(values, taken, answers)

    async def _take(self, values: int, taken: int, answers: Budget) -> LargeAnswer:
        self._limits.check_answer(taken)
        return LargeAnswer(values, await answers.take(taken), answers)


class LargeAnswer:
    """Room for one answer, to be released.

    Args:
        values: of its tensors.
        held: bytes taken from the budget.
        answers: the budget.
    """

    def __init__(self, values: int, held: int, answers: Budget) -> None:
        self._values = values
        self._held = held
        self._answers = answers

    async def encode(self, work: Callable[[], T], bodies: Bodies) -> T:
        """Return what encodes the answer, called in a thread when that takes long."""
        return work() if self._values <= THREAD_VALUES else await bodies.beside(work)

    async def write(
        self, send: Send, status: int, body: Body, fields: Fields, abort: Callable[[], None] | None
    ) -> None:
        """Write the answer as fast as it is read, and give its bytes back.

        Args:
            send, status, body, fields: as of `respond`.
            abort: closes the connection of a caller who reads slowly while others wait.
        """
        try:
            async with self._answers.paced() as pace:
                async for written in respond_in_pieces(send, status, body, fields):
                    pace.moved += written
        except TimeoutError:
            if abort is not None:
                abort()
            await asyncio.sleep(0)  # the connection learns of its end
        finally:
            self.release()

    def keep(self, size: int) -> None:
        """Give back what was taken beyond a size."""
        if size < self._held:
            self._answers.give(self._held - size)
            self._held = size

    def release(self) -> None:
        """Give the bytes back."""
        if self._held:
            self._answers.give(self._held)
            self._held = 0


def taken_by(outputs: Tensors, text: bool) -> tuple[int, int]:
    """Return the values of outputs and the bytes that they take, as tensors and encoded."""
    values = sum(array.size for array in outputs.values())
    held = sum(array.nbytes for array in outputs.values())
    return values, held + (values * NUMBER_BYTES if text else held)


def _held(spec: TensorSpec) -> int:
    """Return the bytes of one value of an output while it is a tensor."""
    return STRING_BYTES if spec.dtype == "string" else spec.numpy_dtype.itemsize
