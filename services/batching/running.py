"""A batch in the runtime: each caller gets its own rows, or its own failure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from hone.errors import InputError, ModelError, RestartingError, one_line
from hone.signature import Tensors

from ..http.failures import InferenceError, RestartingModelError
from .padding import Joiner
from .queue import Work

logger = logging.getLogger("hone.batching")

Outcome = Tensors | Exception


class BatchTimes(NamedTuple):
    """What one batch took, for the metrics.

    Attributes:
        queued: seconds in the queue, one a work.
        inference: seconds in the runtime, with what went before it and came after it.
        rows: joined.
        joining: seconds of the inference that joined the works to one batch.
        splitting: seconds of it that took the answers apart.
        failed: the runtime failed on some of the works.
    """

    queued: list[float]
    inference: float
    rows: int
    joining: float = 0.0
    splitting: float = 0.0
    failed: bool = False


Ran = tuple[list[Outcome], float, float]
"""What became of each work of a batch, and the seconds that joining and splitting took; a work alone needs neither."""


class Runner:
    """Runs batches of one model.

    Args:
        run: the runtime: tensors in, tensors out.
        joiner: None runs each work alone.
    """

    def __init__(self, run: Callable[[Tensors], Tensors], joiner: Joiner | None) -> None:
        self._run = run
        self._joiner = joiner

    def call(self, works: list[Work]) -> Ran:
        """Return what became of each work.

        When a batch fails that holds several callers' rows, each runs alone: one caller's poison must not fail the
        others. The log gets every failure but those that are a caller's own mistake.
        """
        try:
            joiner = self._joiner
            if joiner is None:
                return [self._run(works[0].inputs)], 0.0, 0.0
            if len(works) == 1:
                return [self._run(joiner.alone(works[0].inputs))], 0.0, 0.0
            began = monotonic()
            inputs = joiner.join(works)
            joined = monotonic()
            outputs = self._run(inputs)
            ran = monotonic()
            parts = joiner.split(outputs, works)
            return [*parts], joined - began, monotonic() - ran
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what its callers get
            if len(works) > 1:
                return [self.call([work])[0][0] for work in works], 0.0, 0.0
            return [error if isinstance(error, InputError) else failed(error, works[0].rows)], 0.0, 0.0


def failed(error: Exception, rows: int) -> Exception:
    """Log that the runtime failed on some rows; return the error that their caller gets."""
    if isinstance(error, RestartingError):
        return RestartingModelError()
    if isinstance(error, ModelError):  # its own code, which has told the log where
        logger.error("inference failed on %d row(s): %s", rows, one_line(error))
    else:
        logger.exception("inference failed on %d row(s)", rows)
    failure = InferenceError(str(error))
    failure.__cause__ = error
    return failure


def settle(work: Work, outcome: Outcome) -> None:
    """Hand a caller its outcome, unless it has gone."""
    future = work.future
    if future is None or future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
