"""How a model is best run on this host, measured in a second or two when it is loaded.

What is chosen: threads of one inference, batches in flight, rows of a batch, and whether the runtime is called on the
event loop or in threads. Each can be set instead (HONE_THREADS, HONE_IN_FLIGHT, HONE_MAX_BATCH_ROWS), and what was
chosen is printed with the figures it was chosen by.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import ArtifactError, one_line
from hone.hardware import cores
from hone.runtimes.base import Runtime
from hone.signature import Signature, Tensors

from ..batching.latency import LatencyModel
from ..batching.padding import Joiner, can_pad
from ..batching.queue import Work
from ..settings import Settings

logger = logging.getLogger("hone.serving")

INLINE_S = 0.003
"""A full batch faster than this runs on the event loop: handing it to a thread and back costs more than the pause."""

GAIN = 1.25
"""Several threads are used when they give at least so many times the rows/s: they spin between batches and take cores
from the event loop and the other workers."""

MOST_ROWS = 64
NEAR_PEAK = 0.97
INLINE_PEAK = 0.85
"""So much of the peak is worth more on the event loop than all of it in a thread."""

LONGEST_BATCH_S = 0.2
"""A larger batch than one of so many seconds isn't looked at: those who wait for it would notice."""

STEP_BUDGET_S = 0.3
SWEEP_PASSES = 3
PAD_TOLERANCE = 0.02


@dataclass(frozen=True)
class Measured:
    """Rows/s of one way of running.

    Attributes:
        threads: of one inference.
        in_flight: batches side by side.
        rows: of a batch.
        seconds: of a batch.
        rows_per_s: of all together.
    """

    threads: int
    in_flight: int
    rows: int
    seconds: float

    @property
    def rows_per_s(self) -> float:
        return self.in_flight * self.rows / self.seconds

    def describe(self) -> str:
        side = f", {self.in_flight} side by side" if self.in_flight > 1 else ""
        return f"{self.rows_per_s:,.0f} rows/s ({self.rows} rows, threads {self.threads}{side})"


@dataclass(frozen=True)
class Plan:
    """How a model is run.

    Attributes:
        threads: of one inference.
        in_flight: batches side by side.
        max_batch_rows: of one batch.
        inline: the runtime is called on the event loop.
        pad: rows of several lengths share a batch.
        max_batch_cells: rows times the size of a row, where rows have several lengths; else 0.
        latency: has seen the measured batches.
        measured: everything tried, in order.
        note: what a person should know, such as why rows aren't padded.
    """

    threads: int = 1
    in_flight: int = 1
    max_batch_rows: int = MOST_ROWS
    inline: bool = True
    pad: bool = False
    max_batch_cells: int = 0
    latency: LatencyModel = field(default_factory=LatencyModel)
    measured: tuple[Measured, ...] = ()
    note: str = ""

    def describe(self) -> str:
        """Return one line for the log."""
        tried = ", ".join(m.describe() for m in self.measured)
        where = "on the event loop" if self.inline else f"{self.in_flight} in flight"
        cells = f" and {self.max_batch_cells} cells" if self.max_batch_cells else ""
        return (
            f"threads {self.threads}, batches of up to {self.max_batch_rows} rows{cells}, {where}"
            f"{'; ' + self.note if self.note else ''}; measured: {tried or 'nothing'}"
        )


def recommend_workers(tag: str) -> int:
    """Return how many worker processes serve a stored model best on this host.

    A model that runs on the event loop shares one core with the handling of requests: a worker for each core. One
    that runs in threads already uses the cores from one worker, with one copy of its weights.
    """
    from hone import store

    from .loading import example_inputs

    artifact = store.resolve(tag).opened()
    runtime, plan = calibrate(artifact, example_inputs(artifact), Settings(workers=cores()))
    runtime.close()
    return cores() if plan.inline else 1


def calibrate(artifact: Artifact, example: Tensors, settings: Settings) -> tuple[Runtime, Plan]:
    """Load an artifact, warm it up and choose how to run it.

    Raises:
        ArtifactError: it loads but fails on its example rows.
    """
    share = max(1, cores() // max(1, settings.workers))
    runtime = runtimes.load(artifact, settings.threads or 1)
    try:
        return _choose(runtime, artifact, example, settings, share)
    except Exception as error:
        runtime.close()
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{artifact.path}: loads but fails on example rows: {one_line(error)}") from error


def _choose(
    runtime: Runtime, artifact: Artifact, example: Tensors, settings: Settings, share: int
) -> tuple[Runtime, Plan]:
    latency = LatencyModel()
    signature = artifact.signature
    if not signature.batchable:
        seconds = _time(runtime, example, 1)
        latency.observe(1, 1, seconds)
        note = "its signature can't be batched: one request at a time"
        return runtime, Plan(
            settings.threads or 1, 1, 1, seconds < INLINE_S, False, 0, latency, (Measured(1, 1, 1, seconds),), note
        )
    pad, note = _check_padding(runtime, artifact, example)
    joiner = Joiner(signature, pad=pad)
    most = settings.max_batch_rows or MOST_ROWS
    one = _sweep(runtime, example, most, settings.threads or 1)
    best = one[-1] if settings.max_batch_rows else _best_rows(one)
    tried = [*dict.fromkeys([one[0], best])]
    chosen = best
    if best.seconds >= INLINE_S and share > 1:
        runtime, chosen, more = _use_cores(runtime, artifact, example, best, settings, share)
        tried += more
    for m in one if chosen.threads == (settings.threads or 1) else [chosen]:
        latency.observe(joiner.bucket(_rows(example, m.rows)).row_size, m.rows, m.seconds)
    in_flight = chosen.in_flight if runtime.concurrent else 1
    inline = chosen.seconds < INLINE_S and in_flight == 1
    row_size = joiner.bucket(_rows(example, 1)).row_size
    rows, cells = (chosen.rows, 0) if row_size == 1 else (most, chosen.rows * row_size)
    return runtime, Plan(chosen.threads, in_flight, rows, inline, pad, cells, latency, tuple(tried), note)


def _use_cores(
    narrow: Runtime, artifact: Artifact, example: Tensors, best: Measured, settings: Settings, share: int
) -> tuple[Runtime, Measured, list[Measured]]:
    """Try all cores for one batch, and a batch for each core; keep what serves the most rows, if it is worth it."""
    tried: list[Measured] = []
    chosen = best
    wide: Runtime | None = None
    if not settings.threads and settings.in_flight <= 1 and narrow.threads_adjustable:
        wide = runtimes.load(artifact, share)
        tried.append(_best_wide(wide, example, best.rows, settings.max_batch_rows or MOST_ROWS, share))
        if tried[-1].rows_per_s > GAIN * chosen.rows_per_s:
            chosen = tried[-1]
    many = settings.in_flight or max(1, share // (settings.threads or 1))
    if narrow.concurrent and many > 1:
        side = Measured(best.threads, many, best.rows, _time_side_by_side(narrow, example, best.rows, many))
        tried.append(side)
        # At equal rows/s one wide batch answers sooner than several narrow ones, unless rows differ in length: then
        # batches are small, and small ones gain the least by more threads.
        needed = GAIN * best.rows_per_s
        if chosen is not best:
            needed = chosen.rows_per_s * (0.98 if artifact.signature.dynamic_axes[1:] else 1.1)
        if settings.in_flight or side.rows_per_s > needed:
            chosen = side
    if wide is not None and chosen.threads == share:
        narrow.close()
        return wide, chosen, tried
    if wide is not None:
        wide.close()
    return narrow, chosen, tried


def _best_wide(wide: Runtime, example: Tensors, least: int, most: int, threads: int) -> Measured:
    """Return the smallest batch near the peak of several threads: they need more rows each than one thread alone."""
    found: list[Measured] = []
    for rows in _doubled(least, most):
        found.append(Measured(threads, 1, rows, _time(wide, example, rows)))
        if found[-1].seconds > LONGEST_BATCH_S:
            break
    peak = max(m.rows_per_s for m in found)
    return next(m for m in found if m.rows_per_s >= NEAR_PEAK * peak)


def _sweep(runtime: Runtime, example: Tensors, most: int, threads: int) -> list[Measured]:
    """Time batches of 1, 2, 4 ... rows up to `most`; stop early where a batch takes very long.

    Passes over all sizes, and the best of each: a neighbor that slows the machine for a tenth of a second would
    otherwise fall on one size and make another look better.
    """
    sizes = _doubled(1, most)
    shortest: dict[int, float] = {}
    for _ in range(SWEEP_PASSES):
        for rows in sizes:
            seconds = _time(runtime, example, rows, STEP_BUDGET_S / 3 / SWEEP_PASSES)
            shortest[rows] = min(seconds, shortest.get(rows, seconds))
            if seconds > 2.0:
                sizes = [size for size in sizes if size <= rows]
                break
    return [Measured(threads, 1, rows, shortest[rows]) for rows in sizes]


def _doubled(least: int, most: int) -> list[int]:
    """Return sizes of batches, each twice the one before, the last one `most`."""
    sizes = [least]
    while sizes[-1] < most:
        sizes.append(min(sizes[-1] * 2, most))
    return sizes


def _best_rows(found: list[Measured]) -> Measured:
    """Return the largest batch that may run on the event loop at nearly the peak, else the smallest near the peak."""
    peak = max(m.rows_per_s for m in found)
    inline = [m for m in found if m.seconds < INLINE_S and m.rows_per_s >= INLINE_PEAK * peak]
    return inline[-1] if inline else next(m for m in found if m.rows_per_s >= NEAR_PEAK * peak)


def _rows(example: Tensors, rows: int) -> Tensors:
    index = np.arange(rows) % len(next(iter(example.values())))
    return {name: np.ascontiguousarray(array[index]) for name, array in example.items()}


def _time(runtime: Runtime, example: Tensors, rows: int, budget_s: float = STEP_BUDGET_S / 3) -> float:
    """Return the seconds of a batch, warm: the shortest of some, because a neighbor's noise only ever adds."""
    batch = _rows(example, rows) if rows > 0 else example
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


def _time_side_by_side(runtime: Runtime, example: Tensors, rows: int, many: int) -> float:
    """Return the seconds of a batch while `many` run at a time: the best of three rounds."""
    batch = _rows(example, rows)
    calls = 4 * many
    rounds: list[float] = []
    with ThreadPoolExecutor(many) as pool:
        list(pool.map(runtime.run, [batch] * many))
        for _ in range(3):
            started = time.perf_counter()
            list(pool.map(runtime.run, [batch] * calls))
            rounds.append((time.perf_counter() - started) * many / calls)
    return min(rounds)


def _check_padding(runtime: Runtime, artifact: Artifact, example: Tensors) -> tuple[bool, str]:
    """Return whether rows of several lengths may share a batch, and a line about it.

    A row runs alone, beside one of its own length, and filled up beside a longer one. What filling up may change is a
    small share of the values' range, or as much as company of the same length does: dynamic quantization scales
    activations by the whole batch, so with it any batch changes an answer a little.
    """
    signature = artifact.signature
    if not can_pad(signature):
        return False, ""
    row = _rows(example, 1)
    other = {name: array[-1:] for name, array in example.items()}
    longer = {
        spec.name: np.pad(
            other[spec.name],
            [
                (0, max(1, size // 8) if i and isinstance(spec.shape[i], str) else 0)
                for i, size in enumerate(other[spec.name].shape)
            ],
            mode="edge",
        )
        for spec in signature.inputs
    }
    alone = runtime.run(row)
    company = _changed(runtime, signature, alone, row, other)
    filled = _changed(runtime, signature, alone, row, longer)
    note = f"filling rows up changes an answer by {filled:.2g} of its range, company of equal length by {company:.2g}"
    if filled <= max(PAD_TOLERANCE, 1.5 * company):
        return True, note
    logger.warning("%s: lengths are kept apart: %s", artifact.path, note)
    return False, f"lengths are kept apart: {note}"


def _changed(runtime: Runtime, signature: Signature, alone: Tensors, row: Tensors, other: Tensors) -> float:
    """Return how far a row's answer is from the one it gets alone when it shares a batch with another."""
    joiner = Joiner(signature, pad=True)
    works = [Work(inputs, 1, 0.0, joiner.bucket(inputs)) for inputs in (row, other)]
    together = joiner.split(runtime.run(joiner.join(works)), works)[0]
    return max((_difference(alone[name], together[name]) for name in alone), default=0.0)


def _difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest difference as a share of the range of values."""
    if first.shape != second.shape or first.dtype.kind not in "fiub":
        return 0.0 if np.array_equal(first, second) else 1.0
    scale = float(np.ptp(first)) or float(np.abs(first).max()) or 1.0
    return float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max()) / scale
