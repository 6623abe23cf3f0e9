"""How one model is batched: what its lane and the scheduler both go by."""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass


@dataclass(frozen=True)
class LaneOptions:
    """How a model is run.

    Attributes:
        max_batch_rows: of one call of the runtime; a larger request is split.
        max_queue_rows: that may wait.
        max_batch_cells: rows times the size of a row, for rows of several lengths; 0: no limit.
        in_flight: batches that run side by side; more than 1 only where the runtime is concurrent.
        threads: cores that one batch keeps busy.
        executor: where the runtime is called; None calls it on the event loop, which is cheaper than a thread for
            models that answer in less time than a thread switch is worth.
    """

    max_batch_rows: int = 64
    max_queue_rows: int = 4096
    max_batch_cells: int = 0
    in_flight: int = 1
    threads: int = 1
    executor: Executor | None = None
