"""How a model is best run on this host, measured in a second or two when it is loaded.

What is chosen: threads of one inference, batches in flight, rows of a batch, and whether the runtime is called on the
event loop or in threads. Each can be set instead (HONE_THREADS, HONE_IN_FLIGHT, HONE_MAX_BATCH_ROWS), and what was
chosen is printed with the figures it was chosen by. With a plan (HONE_PLAN) nothing is measured: see `planned`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

from hone import runtimes
from hone.artifact import Artifact
from hone.errors import ArtifactError, one_line
from hone.hardware import cores, cpu_name
from hone.plan import Host, Measured, Plan
from hone.runtimes.base import Runtime
from hone.signature import Tensors

from ..batching.latency import LatencyModel
from ..batching.padding import Joiner
from ..batching.sizes import BATCH_SHARE
from ..settings import Settings
from .lengths import check_padding
from .measuring import (
    INLINE_S,
    best_rows,
    best_wide,
    most_rows_served,
    repeated,
    seconds_side_by_side,
    side_by_side,
    sweep,
)
from .prepared import Prepared, spins

MOST_ROWS = 64


def calibrate(tag: str, artifact: Artifact, example: Tensors, settings: Settings) -> Prepared:
    """Load an artifact, warm it up and choose how to run it.

    Args:
        tag: of the artifact in the store, for the plan.
        artifact: opened.
        example: rows that it can be tried with.
        settings: what is set isn't measured.

    Raises:
        ArtifactError: it loads but fails on its example rows.
    """
    runtime = runtimes.load(artifact, settings.threads or 1)
    try:
        return _choose(tag, runtime, artifact, example, settings)
    except Exception as error:
        runtime.close()
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{artifact.path}: loads but fails on example rows: {one_line(error)}") from error


def _choose(tag: str, runtime: Runtime, artifact: Artifact, example: Tensors, settings: Settings) -> Prepared:
    threads, most = settings.threads or 1, settings.max_batch_rows or MOST_ROWS
    pad, note, row_size = False, "its signature can't be batched: one request at a time", 1
    if artifact.signature.batchable:
        pad, note = check_padding(runtime, artifact, example)
        row_size = Joiner(artifact.signature, pad=pad).bucket(repeated(example, 1)).row_size
    else:
        most = 1
    one = sweep(runtime, example, most, threads)
    chosen = best = one[-1] if settings.max_batch_rows else best_rows(one, _longest_s(settings))
    tried = [*dict.fromkeys([one[0], chosen])]
    share = max(1, cores() // max(1, settings.workers))
    if artifact.signature.batchable and chosen.seconds >= INLINE_S and share > 1:
        runtime, chosen, more = _use_cores(runtime, artifact, example, chosen, settings, share)
        tried += more
    latency = LatencyModel()
    beside = chosen.seconds / best.seconds if chosen.in_flight > 1 else 1.0
    for found in one if chosen.threads == threads else [chosen]:
        latency.observe(row_size, found.rows, found.seconds * beside)
    in_flight = chosen.in_flight if runtime.concurrent else 1
    plan = Plan(
        model=tag,
        digest=artifact.digest,
        workers=settings.workers,
        threads=chosen.threads,
        in_flight=in_flight,
        max_batch_rows=chosen.rows if row_size == 1 else most,
        max_batch_cells=0 if row_size == 1 else chosen.rows * row_size,
        inline=chosen.seconds < INLINE_S and in_flight == 1 and not runtime.waits,
        pad=pad,
        spin=spins(artifact),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        host=Host(cpu=cpu_name(), cores=cores()),
        measured=tuple(tried),
        note=note,
    )
    return Prepared(runtime, plan, latency)


def _use_cores(
    narrow: Runtime, artifact: Artifact, example: Tensors, best: Measured, settings: Settings, share: int
) -> tuple[Runtime, Measured, list[Measured]]:
    """Try all cores for one batch, and a batch for each core; keep what serves the most rows, if it is worth it."""
    wide: Runtime | None = None
    on_all: Measured | None = None
    side: Measured | None = None
    longest_s = _longest_s(settings)
    if not settings.threads and settings.in_flight <= 1 and narrow.threads_adjustable:
        wide = runtimes.load(artifact, share)
        on_all = best_wide(wide, example, best.rows, settings.max_batch_rows or MOST_ROWS, share, longest_s)
    many = side_by_side(share, settings.threads or 1, settings.in_flight)
    if narrow.concurrent and many > 1:
        seconds = seconds_side_by_side(narrow, example, best.rows, many)
        side = best.model_copy(update={"in_flight": many, "seconds": seconds})
    uneven = bool(artifact.signature.dynamic_axes[1:])
    chosen = most_rows_served(best, on_all, side, uneven, longest_s)
    if settings.in_flight and side is not None:
        chosen = side
    tried = [one for one in (on_all, side) if one is not None]
    if wide is not None and chosen is on_all:
        narrow.close()
        return wide, chosen, tried
    if wide is not None:
        wide.close()
    return narrow, chosen, tried


def _longest_s(settings: Settings) -> float:
    """Return the seconds that a batch may take for callers who say nothing of a deadline."""
    return BATCH_SHARE * settings.default_timeout_ms / 1e3 if settings.default_timeout_ms else inf
