"""The figures of a load test, from what its senders noted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from hone.errors import HoneError

from .records import CPU_SHARE, LATE_MS, LATE_SHARE, Generator, Second, Sent
from .scenarios import Scenario


def measure(sent: Sent, scenario: Scenario, most_late: float = LATE_SHARE) -> dict[str, Any]:
    """Return the measured fields of a report.

    Args:
        sent: of each request; those meant for the warm-up are left out.
        scenario: the load.
        most_late: share of requests that may be started late; above it, the run is void.

    Raises:
        HoneError: no request was made.
    """
    counted = sent.after(scenario.warm_up_s)
    if not len(counted.intended):
        raise HoneError("the load test made no request; raise the rate or the duration")
    failed = counted.kinds > 0
    latencies = (counted.ended - counted.intended) * 1e3
    late = (counted.started - counted.intended) * 1e3
    late_share = round(float((late > LATE_MS).mean()), 4)
    good = latencies[~failed] if not failed.all() else latencies
    elapsed = float(counted.ended.max()) - scenario.warm_up_s
    if not sent.interrupted:
        elapsed = max(elapsed, scenario.duration_s)
    kinds, counts = np.unique(counted.kinds[failed], return_counts=True)
    by_kind = Counter({sent.words[kind]: int(count) for kind, count in zip(kinds, counts, strict=True)})
    sizes, requests = np.unique(counted.rows, return_counts=True)
    return {
        "duration_s": round(elapsed, 3),
        "requests": len(latencies),
        "errors": int(failed.sum()),
        "errors_by_kind": dict(by_kind.most_common()),
        "rate": round(int((~failed).sum()) / elapsed, 3),
        "rows_per_s": round(int(counted.rows[~failed].sum()) / elapsed, 3),
        **_latencies(good),
        "late_share": late_share,
        "generator": Generator(
            cpu_share=sent.cpu_share,
            late_p99_ms=round(float(np.percentile(late, 99)), 4),
            void=_why_void(sent.cpu_share, late_share, most_late),
            senders=sent.senders,
        ),
        "sizes": [(int(size), int(count)) for size, count in zip(sizes, requests, strict=True)],
        "interrupted": sent.interrupted,
        "histogram": _histogram(good),
        "timeline": _timeline(counted.intended - scenario.warm_up_s, latencies, failed),
    }


def _latencies(values: np.ndarray) -> dict[str, float]:
    names = {"p50_ms": 50, "p90_ms": 90, "p95_ms": 95, "p99_ms": 99, "p999_ms": 99.9}
    found = dict(zip(names, np.percentile(values, list(names.values())), strict=True))
    found |= {"mean_ms": values.mean(), "max_ms": values.max()}
    return {name: round(float(value), 4) for name, value in found.items()}


def _why_void(cpu_share: float, late_share: float, most_late: float) -> str | None:
    """Return why latencies are partly the generator's own; None when they are the service's."""
    if cpu_share > CPU_SHARE:
        return f"the generator used {cpu_share:.0%} of a core, over {CPU_SHARE:.0%}"
    if late_share > most_late:
        return f"the generator started {late_share:.1%} of the requests over {LATE_MS:g} ms late, over {most_late:.0%}"
    return None


def outcomes(sent: Sent, scenario: Scenario) -> tuple[np.ndarray, np.ndarray]:
    """Return latencies in ms and failures of the requests that count, in the order in which they were meant to start.

    Args:
        sent: as of `measure`.
        scenario: requests meant for its warm-up are left out.
    """
    counted = sent.after(scenario.warm_up_s)
    order = np.argsort(counted.intended, kind="stable")
    latencies = (counted.ended - counted.intended)[order] * 1e3
    return latencies, (counted.kinds > 0)[order]


def _histogram(latencies: np.ndarray) -> list[tuple[float, int]]:
    low = max(float(latencies.min()), 0.01)
    steps = np.ceil(np.log(np.maximum(latencies, low) / low) / np.log(1.1)).astype(int)
    counts = np.bincount(steps)
    return [(round(low * 1.1**step, 4), int(count)) for step, count in enumerate(counts) if count]


def _timeline(moments: np.ndarray, latencies: np.ndarray, failed: np.ndarray) -> list[Second]:
    seconds = []
    for second in range(int(moments.max()) + 1):
        here = (moments >= second) & (moments < second + 1)
        good = latencies[here & ~failed]
        p50, p99 = np.percentile(good, [50, 99]) if len(good) else (None, None)
        seconds.append(
            Second(
                second=second,
                requests=int(here.sum()),
                errors=int((here & failed).sum()),
                p50_ms=None if p50 is None else round(float(p50), 4),
                p99_ms=None if p99 is None else round(float(p99), 4),
            )
        )
    return seconds
