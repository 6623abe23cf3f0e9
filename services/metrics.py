"""The service's Prometheus metrics, on BentoML's `/metrics` and right with several workers.

They are made when a worker starts, not at import: the client library fixes where it keeps its values when it is
imported, and BentoML prepares that place first.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from services.batching import BatchTimes

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Metrics of one served model."""

    def __init__(self, model: str, version: str) -> None:
        families, labels = _families(), {"model": model, "version": version}
        self._requests: Any = families["requests"]
        self._labels = labels
        self._statuses: dict[int, Any] = {}
        self._latency: Any = families["latency"].labels(**labels)
        self._queue: Any = families["queue"].labels(**labels)
        self._inference: Any = families["inference"].labels(**labels)
        self._rows: Any = families["rows"].labels(**labels)
        self.in_flight: Any = families["in_flight"].labels(**labels)
        self._rejected: Any = families["rejected"].labels(**labels)

    def request(self, status: int, seconds: float) -> None:
        """Count a finished request."""
        counter = self._statuses.get(status)
        if counter is None:
            counter = self._statuses[status] = self._requests.labels(**self._labels, status=str(status))
        counter.inc()
        self._latency.observe(seconds)
        if status == 503:
            self._rejected.inc()

    def batch(self, times: BatchTimes) -> None:
        """Record a batch."""
        for seconds in times.queued:
            self._queue.observe(seconds)
        self._inference.observe(times.inference)
        self._rows.observe(times.rows)


@cache
def _families() -> dict[str, Any]:
    """Create every metric once a process; a second creation of one name is an error."""
    from prometheus_client import Counter, Gauge, Histogram

    labels = ("model", "version")
    return {
        "requests": Counter("hone_requests", "Requests answered, by status.", (*labels, "status")),
        "latency": Histogram("hone_request_seconds", "From the request's head to its answer.", labels, buckets=SECONDS),
        "queue": Histogram("hone_queue_seconds", "Waiting for a batch.", labels, buckets=SECONDS),
        "inference": Histogram("hone_inference_seconds", "One batch in the runtime.", labels, buckets=SECONDS),
        "rows": Histogram("hone_batch_rows", "Rows of one batch.", labels, buckets=ROWS),
        "in_flight": Gauge("hone_in_flight_requests", "Requests being answered.", labels, multiprocess_mode="livesum"),
        "rejected": Counter("hone_rejected", "Requests refused because the queue was full.", labels),
    }
