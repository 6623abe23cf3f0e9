"""What batches of a model take on this host: rows/s by the rows of a batch, the threads, and the batches side by side.

A neighbor on the machine only ever slows a batch down, so of several timings the shortest counts.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from math import inf

import numpy as np

from hone.plan import Measured
from hone.runtimes.base import Runtime
from hone.signature import Tensors

INLINE_S = 0.001
"""A full batch faster than this runs on the event loop: handing it to a thread and back costs more than the pause.

Meanwhile nobody is read, decided on or refused: a refusal takes up to a batch longer.
"""

GAIN = 1.25
"""Several threads, or batches, are used when they give at least so many times the rows/s: they take cores from the
event loop and the other workers."""

NEAR_PEAK = 0.97
INLINE_PEAK = 0.85
"""So much of the peak is worth more on the event loop than all of it in a thread."""

LONGEST_BATCH_S = 0.2
"""A larger batch than one of so many seconds isn't looked at: those who wait for it would notice."""

STEP_BUDGET_S = 0.1
"""For the timings of one size of batch."""

SWEEP_PASSES = 3
LONGEST_SWEEP_S = 2.0
"""A sweep goes no further than the first batch that takes so long."""


def sweep(runtime: Runtime, example: Tensors, most: int, threads: int) -> list[Measured]:
    """Time batches of 1, 2, 4 ... rows up to `most`; stop early where a batch takes very long.

    Passes over all sizes, and the best of each: a neighbor that slows the machine for a tenth of a second would
    otherwise fall on one size and make another look better.
    """
    sizes = _doubled(1, most)
    shortest: dict[int, float] = {}
    for _ in range(SWEEP_PASSES):
        for rows in sizes:
            seconds = seconds_of(runtime, example, rows, STEP_BUDGET_S / SWEEP_PASSES)
            shortest[rows] = min(seconds, shortest.get(rows, seconds))
            if seconds > LONGEST_SWEEP_S:
                sizes = [size for size in sizes if size <= rows]
                break
    return [Measured(threads=threads, in_flight=1, rows=rows, seconds=shortest[rows]) for rows in sizes]


def best_rows(found: list[Measured], longest_s: float = inf) -> Measured:
    """Return the largest batch that may run on the event loop at nearly the peak, else the smallest near the peak.

    Args:
        found: by rows.
        longest_s: what takes longer is no choice, unless nothing else is.
    """
    found = [m for m in found if m.seconds <= longest_s] or found[:1]
    peak = max(m.rows_per_s for m in found)
    inline = [m for m in found if m.seconds < INLINE_S and m.rows_per_s >= INLINE_PEAK * peak]
    return inline[-1] if inline else next(m for m in found if m.rows_per_s >= NEAR_PEAK * peak)


def best_wide(wide: Runtime, example: Tensors, least: int, most: int, threads: int, longest_s: float = inf) -> Measured:
    """Return the smallest batch near the peak of several threads: they need more rows each than one thread alone."""
    found: list[Measured] = []
    for rows in _doubled(least, most):
        found.append(Measured(threads=threads, in_flight=1, rows=rows, seconds=seconds_of(wide, example, rows)))
        if found[-1].seconds > min(LONGEST_BATCH_S, longest_s):
            break
    found = [m for m in found if m.seconds <= longest_s] or found[:1]
    peak = max(m.rows_per_s for m in found)
    return next(m for m in found if m.rows_per_s >= NEAR_PEAK * peak)


def side_by_side(cores: int, threads: int, given: int) -> int:
    """Return how many batches may run at a time: as many as the cores that a worker may use have room for.

    Args:
        cores: of the worker.
        threads: of one inference.
        given: the setting, which is followed; 0: none.
    """
    return given or max(1, cores // threads)


def most_rows_served(
    best: Measured, wide: Measured | None, side: Measured | None, uneven: bool, longest_s: float = inf
) -> Measured:
    """Return the way to run that serves the most rows, where that is worth the cores that it takes.

    Args:
        best: one batch at a time, on one thread.
        wide: on several threads, where that was measured.
        side: several at a time, where that was measured.
        uneven: rows differ in length: batches are small then, and small ones gain the least by more threads.
        longest_s: a batch beside others that takes longer is no choice.
    """
    chosen = wide if wide is not None and wide.rows_per_s > GAIN * best.rows_per_s else best
    if side is None or side.seconds > longest_s:
        return chosen
    # At equal rows/s one wide batch answers sooner than several narrow ones.
    needed = GAIN * best.rows_per_s if chosen is best else (0.98 if uneven else 1.1) * chosen.rows_per_s
    return side if side.rows_per_s > needed else chosen


def _doubled(least: int, most: int) -> list[int]:
    """Return sizes of batches, each twice the one before, the last one `most`."""
    sizes = [least]
    while sizes[-1] < most:
        sizes.append(min(sizes[-1] * 2, most))
    return sizes


def seconds_of(runtime: Runtime, example: Tensors, rows: int, budget_s: float = STEP_BUDGET_S) -> float:
    """Return the seconds of a batch, warm: the shortest of 2 to 20, as many as `budget_s` allows."""
    batch = repeated(example, rows)
    runtime.run(batch)
    timings: list[float] = []
    started = time.perf_counter()
    while len(timings) < 2 or (len(timings) < 20 and time.perf_counter() - started < budget_s):
        before = time.perf_counter()
        runtime.run(batch)
        timings.append(time.perf_counter() - before)
        if timings[-1] > 1.0:
            break
    return min(timings)


def seconds_side_by_side(runtime: Runtime, example: Tensors, rows: int, many: int) -> float:
    """Return the seconds of a batch while `many` run at a time: the best of three rounds."""
    batch = repeated(example, rows)
    calls = 4 * many
    rounds: list[float] = []
    with ThreadPoolExecutor(many) as pool:
        list(pool.map(runtime.run, [batch] * many))
        for _ in range(3):
            started = time.perf_counter()
            list(pool.map(runtime.run, [batch] * calls))
            rounds.append((time.perf_counter() - started) * many / calls)
    return min(rounds)


def repeated(example: Tensors, rows: int) -> Tensors:
    """Return a batch of so many rows, made of the example's over and over."""
    index = np.arange(rows) % len(next(iter(example.values())))
    return {name: np.ascontiguousarray(array[index]) for name, array in example.items()}
