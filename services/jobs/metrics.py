"""The metrics of jobs, on `/metrics` beside those of requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Literal

from .record import CANCELED, DONE, OPEN, Job, OpenJob

SECONDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 86_400.0)
SERVERS_FAULT = 500


def count_ended(job: Job, now_s: float) -> None:
    """Count a job that is done, has failed or is canceled."""
    families = _families()
    families["ended"].labels(model=job.model, result=result_of(job)).inc()
    if job.state == DONE:
        families["rows"].labels(model=job.model).inc(job.rows)
        families["seconds"].labels(model=job.model).observe(max(0.0, now_s - job.submitted))


def result_of(job: Job) -> str:
    """Return how a job ended: a body that is wrong is refused, what the service couldn't do has failed."""
    if job.state in (DONE, CANCELED):
        return job.state
    return "failed" if job.error_status >= SERVERS_FAULT else "refused"


def show_open(models: Iterable[str], jobs: Sequence[OpenJob], now_s: float) -> None:
    """Show how many jobs wait and run, and since when the oldest does.

    Args:
        models: that are loaded: of one without a job it is 0.
        jobs: that are not done, of all workers that share the store.
    """
    families, counts = _families(), defaultdict[tuple[str, str], int](int)
    oldest: dict[str, float] = {}
    for job in jobs:
        counts[job.model, job.state] += 1
        oldest[job.model] = min(job.submitted, oldest.get(job.model, now_s))
    for model in {*models, *oldest}:
        for state in OPEN:
            families["open"].labels(model=model, state=state).set(counts[model, state])
        families["oldest"].labels(model=model).set(max(0.0, now_s - oldest.get(model, now_s)))


@cache
def _families() -> dict[str, Any]:
    from prometheus_client import Counter, Gauge, Histogram

    # Every worker shows what all together have: the newest figure is as good as any.
    newest: Literal["livemostrecent"] = "livemostrecent"
    return {
        "open": Gauge("hone_jobs", "Jobs that wait or run.", ("model", "state"), multiprocess_mode=newest),
        "oldest": Gauge("hone_jobs_oldest_seconds", "Age of the oldest of them.", ("model",), multiprocess_mode=newest),
        "ended": Counter("hone_jobs_ended", "Jobs that ended, by result.", ("model", "result")),
        "rows": Counter("hone_job_rows", "Rows of jobs that are done.", ("model",)),
        "seconds": Histogram("hone_job_seconds", "From submitted to done.", ("model",), buckets=SECONDS),
    }
