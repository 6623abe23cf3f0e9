"""How a model is best run on this host, measured in a second or two when it is loaded.

What is chosen: threads of one inference, batches in flight, rows of a batch, and whether the runtime is called on the
event loop or in threads. Each can be set instead (HONE_THREADS, HONE_IN_FLIGHT, HONE_MAX_BATCH_ROWS), and what was
chosen is printed with the figures it was chosen by.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import ArtifactError, one_line
from hone.hardware import cores
from hone.runtimes.base import Runtime
from hone.signature import Tensors

from ..batching.latency import LatencyModel
from ..batching.padding import Joiner
from ..settings import Settings
from .lengths import check_padding
from .measuring import INLINE_S, Measured, best_rows, best_wide, repeated, seconds_of, seconds_side_by_side, sweep

GAIN = 1.25
"""Several threads are used when they give at least so many times the rows/s: they spin between batches and take cores
from the event loop and the other workers."""

MOST_ROWS = 64


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
        seconds = seconds_of(runtime, example, 1)
        latency.observe(1, 1, seconds)
        note = "its signature can't be batched: one request at a time"
        return runtime, Plan(
            settings.threads or 1, 1, 1, seconds < INLINE_S, False, 0, latency, (Measured(1, 1, 1, seconds),), note
        )
    pad, note = check_padding(runtime, artifact, example)
    joiner = Joiner(signature, pad=pad)
    most = settings.max_batch_rows or MOST_ROWS
    one = sweep(runtime, example, most, settings.threads or 1)
    best = one[-1] if settings.max_batch_rows else best_rows(one)
    tried = [*dict.fromkeys([one[0], best])]
    chosen = best
    if best.seconds >= INLINE_S and share > 1:
        runtime, chosen, more = _use_cores(runtime, artifact, example, best, settings, share)
        tried += more
    for m in one if chosen.threads == (settings.threads or 1) else [chosen]:
        latency.observe(joiner.bucket(repeated(example, m.rows)).row_size, m.rows, m.seconds)
    in_flight = chosen.in_flight if runtime.concurrent else 1
    inline = chosen.seconds < INLINE_S and in_flight == 1
    row_size = joiner.bucket(repeated(example, 1)).row_size
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
        tried.append(best_wide(wide, example, best.rows, settings.max_batch_rows or MOST_ROWS, share))
        if tried[-1].rows_per_s > GAIN * chosen.rows_per_s:
            chosen = tried[-1]
    many = settings.in_flight or max(1, share // (settings.threads or 1))
    if narrow.concurrent and many > 1:
        side = Measured(best.threads, many, best.rows, seconds_side_by_side(narrow, example, best.rows, many))
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
