"""Capacity: the highest arrival rate at which a service still meets its latency and error limits.

Each trial is an open loop with Poisson arrivals (`benchmarks.load.run.run_load`), so a rate that the service can't keep
up with shows as latency, not as a slower generator. The search doubles until a rate fails, then halves the gap; the
rate that it ends with is tried again and again, and lowered until most of those trials pass. What the repeats differ by
is part of the result.
"""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil

from hone.capacity import Capacity, Slo, Trial
from hone.errors import HoneError
from hone.files import atomic_write
from hone.hardware import host

from ..load.run import calls_for, run_load
from ..load.target import Target
from ..records import LATE_SHARE, measure
from ..sampling import sampled
from ..scenarios import Scenario

Sample = tuple[float, float]
"""Processor seconds so far, and resident memory in MiB, of a service's processes."""

GAP = 0.05
"""The search ends when the rate that passed and the one that failed are so close."""

FIRST_RATE = 20.0
ENOUGH = 5
"""Requests that a trial at the lowest rate should have."""

HIGHEST_RATE = 200_000.0


def find_capacity(
    target: Target,
    *,
    slo: Slo,
    rows: int = 1,
    duration_s: float = 10.0,
    repeats: int = 3,
    workers: int = 1,
    ready_s: float | None = None,
    image: str | None = None,
    command: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> Capacity:
    """Search the capacity of a running service.

    Args:
        target: the model; the service's processes are watched when they run on this host.
        slo: the limits.
        rows: in each request.
        duration_s: of each trial, after a second of warm-up.
        repeats: trials at the rate that is reported.
        workers: of the service, for the record, where the service doesn't tell its plan.
        ready_s: how long it took to become ready, for the record.
        image: that the service runs from, for the record; None: from none.
        command: for the record.
        progress: told of each trial, in words.

    Raises:
        HoneError: the service misses the limits at any load.
    """
    trial = Trials(target, slo, rows, duration_s, progress)
    search = list(_search(trial, ENOUGH / duration_s))
    rate, again = _confirm(trial, _best(search, target, slo), repeats)
    return Capacity(
        model=target.tag,
        digest=target.digest,
        image=image,
        plan=target.plan,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        host=host(),
        command=command,
        slo=slo,
        rows=rows,
        workers=target.plan.workers if target.plan is not None else workers,
        ready_s=None if ready_s is None else round(ready_s, 2),
        search=search,
        **_measured(rate, rows, slo, search, again),
    )


def _best(search: list[Trial], target: Target, slo: Slo) -> float:
    """Return the highest rate that passed.

    Raises:
        HoneError: none did.
    """
    passed = [found.rate for found in search if found.passed]
    if passed:
        return max(passed)
    worst = search[-1]
    raise HoneError(
        f"{target.tag} misses {slo.percentile.removesuffix('_ms')} <= {slo.limit_ms:g} ms even at {worst.rate:g} "
        f"requests/s ({getattr(worst, slo.percentile):.1f} ms, {worst.error_share:.1%} errors); raise the limit"
    )


def _measured(rate: float, rows: int, slo: Slo, search: list[Trial], again: list[Trial]) -> dict[str, Any]:
    """Return the measured fields of a capacity: a rate, and what its repeats and the search tell of it."""
    values = [getattr(found, slo.percentile) for found in again]
    return {
        "rate": round(rate, 1),
        "rows_per_s": round(rate * rows, 1),
        "spread": round((max(values) - min(values)) / statistics.median(values), 4),
        "in_flight_rows": round(rate * rows * statistics.median(found.mean_ms for found in again) / 1e3, 3),
        "limited_by": _limited_by(rate, search),
        "repeats": again,
    }


def _limited_by(rate: float, search: list[Trial]) -> Literal["service", "generator"]:
    """Return what gave out above a rate: the generator, when it was late in every trial that failed there."""
    failed = [found for found in search if not found.passed and found.rate > rate]
    return "generator" if failed and all(found.late_share > LATE_SHARE for found in failed) else "service"


class Trials:
    """Loads one service at one rate after another; each trial has arrivals of its own.

    Args:
        target: the model; the service's processes are watched when they run on this host.
        slo: the limits.
        rows: in each request.
        duration_s: of each trial, after a second of warm-up.
        progress: told of each trial, in words.
    """

    def __init__(self, target: Target, slo: Slo, rows: int, duration_s: float, progress: Callable[[str], None]) -> None:
        self._target = target
        self._slo = slo
        self._scenario = Scenario(rows=rows, duration_s=duration_s, warm_up_s=1.0)
        self._progress = progress
        self._calls = calls_for(target, rows)
        self._processes = _listeners(target.url)

    def __call__(self, rate: float) -> Trial:
        """Return what a trial at so many requests per second found."""
        self._scenario = self._scenario.model_copy(update={"rate": rate, "seed": self._scenario.seed + 1})
        with _watched(self._processes) as usage:
            found = measure(run_load(self._target, self._scenario, self._calls), self._scenario)
        errors, value = found["errors"] / found["requests"], found[self._slo.percentile]
        passed = value <= self._slo.limit_ms and errors <= self._slo.errors
        self._progress(
            f"{rate:,.1f}/s: {self._slo.percentile.removesuffix('_ms')} {value:.1f} ms, {'met' if passed else 'missed'}"
        )
        return Trial(
            rate=rate,
            answered=found["rate"],
            **{name: found[name] for name in ("p50_ms", "p95_ms", "p99_ms", "p999_ms", "mean_ms", "late_share")},
            error_share=round(errors, 5),
            cpu_cores=usage.get("cpu_cores"),
            rss_mb=usage.get("rss_mb"),
            passed=passed,
        )


def write_capacity(capacity: Capacity, file: Path) -> None:
    atomic_write(file, capacity.model_dump_json(indent=2) + "\n")


def _search(trial: Callable[[float], Trial], lowest: float = 0.05) -> Iterator[Trial]:
    """Double the rate until it fails, then halve the gap between what passed and what failed.

    Args:
        trial: of a rate.
        lowest: rate that is tried: under it, a trial has too few requests to say anything.
    """
    passed, failed, rate = 0.0, 0.0, FIRST_RATE
    while rate <= HIGHEST_RATE:
        found = trial(rate)
        yield found
        if not found.passed:
            failed = rate
            break
        passed, rate = rate, rate * 2
    # A service that is slower than the first guess is searched downward.
    while failed and not passed and failed / 4 >= lowest:
        found = trial(failed / 4)
        yield found
        passed, failed = (failed / 4, failed) if found.passed else (0.0, failed / 4)
    while passed and failed and (failed - passed) / failed > GAP:
        found = trial((passed + failed) / 2)
        yield found
        passed, failed = (found.rate, failed) if found.passed else (passed, found.rate)


def _confirm(trial: Callable[[float], Trial], rate: float, repeats: int) -> tuple[float, list[Trial]]:
    """Return a rate at which more than half of the repeats pass, at or a little under one that passed once."""
    for _ in range(8):
        again = [trial(rate) for _ in range(repeats)]
        if sum(found.passed for found in again) * 2 > repeats:
            return rate, again
        rate *= 1 - GAP
    raise HoneError("the service passes at no rate twice; the host is too noisy to measure on")


def _listeners(url: str) -> list[psutil.Process]:
    """Return the process that listens on a local URL's port with its whole family, or nothing."""
    address = urlsplit(url)
    if address.hostname not in ("127.0.0.1", "localhost", "::1"):
        return []
    try:
        found = {c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr.port == address.port and c.pid
                 and c.status == psutil.CONN_LISTEN}  # fmt: skip
        roots = [psutil.Process(pid) for pid in found]
    except psutil.Error:
        return []  # macOS shows other processes' sockets to root only
    family = {process.pid: process for root in roots for process in (root, *root.children(recursive=True))}
    return list(family.values())


@contextmanager
def _watched(processes: list[psutil.Process]) -> Iterator[dict[str, float]]:
    """Fill in, at the end, the cores that processes kept busy on average and the most memory they had."""
    result: dict[str, float] = {}
    if not processes:
        yield result
        return
    started, before = time.monotonic(), _usage(processes)
    with sampled(lambda: _usage(processes)[1], 0.5) as memory:
        yield result
    after = _usage(processes)
    result["cpu_cores"] = round((after[0] - before[0]) / (time.monotonic() - started), 3)
    result["rss_mb"] = round(max([*memory, after[1]]), 1)


def _usage(processes: list[psutil.Process]) -> Sample:
    seconds, memory = 0.0, 0.0
    for process in processes:
        try:
            times = process.cpu_times()
            seconds += times.user + times.system
            memory += process.memory_info().rss / 2**20
        except psutil.NoSuchProcess:
            continue
    return seconds, memory
