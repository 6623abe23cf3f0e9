"""A range of rows, scored by a process of a framework: it loads the model once, and keeps parts as a local run does."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYetError
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from hone.errors import HoneError, one_line
from hone.records import read_record
from hone.services.models.loading import candidates, load
from hone.services.settings import Settings

from ..errors import ScoreError
from ..mapping import mapped
from ..parts import RUN, Parts, Run
from ..reading.find import find
from ..run import Kept, Prepared, Progress, Request, Spread, blocks
from ..scorer import Scorer

LOOK_S = 1.0
"""Between two looks at what the workers have kept."""
TASKS_EACH = 8
"""So many ranges a worker, so that a slow one holds nobody up for long."""
MOST_BLOCKS = 64
"""Of a range."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Order:
    """What every worker has to know; the paths are the same on all machines.

    Attributes:
        source: the rows.
        folder: of the run, with its parts.
        skips: rows that can't be used are put aside.
        every_s: seconds between two parts that are kept.
        home: of the model store.
    """

    source: str
    folder: str
    skips: bool
    every_s: float
    home: str


@dataclass(frozen=True)
class Plan:
    """How a run is dealt out.

    Attributes:
        order: for the workers.
        ranges: of rows, whole blocks each.
        workers: processes.
        cores: that each of them keeps busy.
    """

    order: Order
    ranges: tuple[tuple[int, int], ...]
    workers: int
    cores: int


Deal = Callable[[Plan], Iterable[Row]]
"""Has all ranges worked on, and returns what `scored` said of each."""


def spread(deal: Deal, available: Callable[[], int], workers: int | None, stop: Callable[[], None]) -> Spread:
    """Return what scores a run's rows by a framework.

    Args:
        deal: of the framework.
        available: cores that it has.
        workers: processes; None: as many as the cores have room for.
        stop: ends what is being worked on.
    """

    def run(prepared: Prepared, request: Request, progress: Progress) -> None:
        plan = prepared.model.plan
        cores = plan.threads * plan.in_flight
        count = workers or max(1, available() // cores)
        source, parts = prepared.input, prepared.parts
        total = source.rows if source.rows is not None else source.count()
        ranges = tuple(_ranges(parts, total, count))
        order = Order(
            str(request.source.absolute()),
            str(parts.folder.absolute()),
            request.skip_bad is not None,
            request.every_s,
            os.environ.get("BENTOML_HOME", ""),
        )
        _watched(lambda: [*deal(Plan(order, ranges, count, cores))], parts, total, progress, stop)

    return run


def _ranges(parts: Parts, total: int, workers: int) -> Iterator[tuple[int, int]]:
    size = parts.run.block_rows
    size *= max(1, min(MOST_BLOCKS, total // (size * TASKS_EACH * workers)))
    for first, stop in parts.missing(total):
        for start in range(first, stop or total, size):
            yield start, min(start + size, stop or total)


def _watched(
    work: Callable[[], list[Row]], parts: Parts, total: int, progress: Progress, stop: Callable[[], None]
) -> None:
    """Do the work in a thread; meanwhile tell what is kept. Raises what the first worker that failed said."""
    pool = ThreadPoolExecutor(1)
    try:
        future = pool.submit(work)
        while True:
            try:
                found = future.result(LOOK_S)
                break
            except NotYetError:
                progress(sum(part.stop - part.first for part in parts.done()), total, 0)
        failed = sorted((row["first"], row["error"]) for row in found if row["error"])
        if failed:
            raise ScoreError(failed[0][1])
    except HoneError:
        raise
    except Exception as error:
        raise ScoreError(f"the engine failed: {one_line(error)}; the same command goes on") from error
    except KeyboardInterrupt:
        stop()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def scored(order: Order, first: int, stop: int) -> Row:
    """Score a range of rows and keep parts of the answers; return what became of it.

    A framework may have a range worked on twice, also at once: the parts are the same.
    """
    try:
        worker = _worker(order)
        worker.score(first, stop)
    except HoneError as error:
        return {"first": first, "stop": stop, "error": one_line(error)}
    return {"first": first, "stop": stop, "error": ""}


class _Worker:
    """A model in this process, loaded as the run's first process loaded it."""

    def __init__(self, order: Order) -> None:
        if order.home:
            os.environ["BENTOML_HOME"] = order.home
        folder = Path(order.folder)
        run = read_record(folder / RUN, Run, "what a run is of")
        settings = replace(Settings.from_environment(), default_timeout_ms=0.0, workers=1, plan=run.plan)
        model = load(candidates(run.model), settings)
        if model.artifact.digest != run.digest:
            raise ScoreError(f"{run.model} is another artifact here than where the run began")
        self._input, self._every_s = find(Path(order.source)), order.every_s
        given = {name: tuple(columns) for name, columns in run.columns.items()}
        self._mapped = mapped(model.offered, self._input.names, run.keep, given, order.source)
        self._parts = Parts(folder, run)
        self._scorer = Scorer(model, self._mapped, skips=order.skips)

    def score(self, first: int, stop: int) -> None:
        kept, scorer = Kept(self._parts, self._every_s), self._scorer
        try:
            for block in blocks(self._input, self._mapped.needed, first, stop, self._parts.run.block_rows):
                kept.take(scorer.finish(scorer.start(scorer.ready(block))))
        finally:
            kept.flush()


@cache
def _worker(order: Order) -> _Worker:
    return _Worker(order)
