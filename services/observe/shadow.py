"""Shadow traffic: another model gets a copy of requests; its answers are compared with the real ones, then dropped."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from hone.signature import Tensors

CLOSE = {"rtol": 1e-3, "atol": 1e-5}


@dataclass(frozen=True)
class Comparison:
    """How a shadow's answer compares with the one that was given.

    Attributes:
        rows: of the request.
        agreeing: rows for which both decide alike: the same highest class, or close values where there are no classes.
        max_abs_difference: over all floats.
        problem: why they can't be compared, or that the shadow failed; then no row agrees.
    """

    rows: int
    agreeing: int = 0
    max_abs_difference: float = 0.0
    problem: str = ""


def compare(primary: Tensors, shadow: Tensors, rows: int) -> Comparison:
    """Compare two answers to one request."""
    if primary.keys() != shadow.keys():
        return Comparison(rows, problem=f"outputs are {sorted(shadow)}, not {sorted(primary)}")
    agree = np.ones(rows, dtype=bool)
    worst = 0.0
    for name, first in primary.items():
        second = shadow[name]
        if first.shape != second.shape or len(first) != rows:
            return Comparison(rows, problem=f"output '{name}' is {list(second.shape)}, not {list(first.shape)}")
        if first.dtype.kind == "f" and first.size:
            gap = np.abs(first.astype(np.float64) - second.astype(np.float64))
            worst = max(worst, float(np.nanmax(gap, initial=0.0)))
        agree &= _agreement(first, second)
    return Comparison(rows, int(agree.sum()), worst)


def _agreement(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return a truth value a row."""
    rows = len(first)
    if first.ndim > 1 and first.shape[-1] > 1 and first.dtype.kind in "fiu":
        same = first.argmax(axis=-1) == second.argmax(axis=-1)
    elif first.dtype.kind == "f":
        same = np.isclose(first, second, equal_nan=True, **CLOSE)
    else:
        same = first == second
    return np.array([row.all() for row in np.asarray(same).reshape(rows, -1)], dtype=bool)


class Shadow:
    """Mirrors requests to a candidate.

    Args:
        candidate: computes the candidate's answer.
        sample: share of requests, 0 to 1.
        max_in_flight: copies at a time; more are dropped, so that a slow candidate takes no more than that.
        observe: told about every comparison.
        seed: of the sampling.
    """

    def __init__(
        self,
        candidate: Callable[[Tensors], Awaitable[Tensors]],
        *,
        sample: float = 1.0,
        max_in_flight: int = 32,
        observe: Callable[[Comparison], None] = lambda _: None,
        seed: int | None = None,
    ) -> None:
        self._candidate = candidate
        self._sample = sample
        self._max_in_flight = max_in_flight
        self._observe = observe
        self._random = random.Random(seed)
        self._tasks: set[asyncio.Task[None]] = set()
        self.dropped = 0

    def mirror(self, inputs: Tensors, outputs: Tensors) -> None:
        """Copy an answered request if it is sampled; never blocks, never fails."""
        if self._random.random() >= self._sample:
            return
        if len(self._tasks) >= self._max_in_flight:
            self.dropped += 1
            return
        task = asyncio.get_running_loop().create_task(self._run(inputs, outputs))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, inputs: Tensors, outputs: Tensors) -> None:
        rows = len(next(iter(inputs.values())))
        try:
            comparison = compare(outputs, await self._candidate(inputs), rows)
        except Exception as error:  # noqa: BLE001 - the caller has his answer; the shadow's trouble is a figure
            comparison = Comparison(rows, problem=str(error))
        self._observe(comparison)

    async def close(self) -> None:
        """Call off what runs."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
