"""The service's Prometheus metrics, on BentoML's `/metrics` and right with several workers.

Requests add to plain Python numbers; four times a second, and before `/metrics` is read in this worker, the sums go to
the client library. Its multi-process values are writes to a mapped file behind a lock: ten of those a request would
cost more than a small model's inference.

The objects are made when a worker starts, not at import: the client library fixes where it keeps its values when it is
imported, and BentoML prepares that place first.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from hone.signature import Tensors

from ..batching.running import BatchTimes
from ..http.failures import OverloadedError
from .demand import Demand
from .shadow import Comparison
from .statistics import Statistics
from .tallies import DriftSample, Tally

if TYPE_CHECKING:
    from .drift import Follower

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
OK = 200
MIN_DRIFT_ROWS = 100
"""So many rows are in what the drift feed shows, at least."""

MOST_SOLO = 4096
"""So many requests that ran alone are kept before they are counted without a flush."""

REFUSED = OverloadedError.status


class Metrics:
    """Metrics of one served model.

    Args:
        model, version: for the labels.
        statistics: that count the same requests, for callers of the V2 protocol.

    Attributes:
        in_flight: requests being answered now.
        wants_sample: True when the next answered request should be given to `sample`, for the drift feed and sketches.
        follower: sketches the requests that are given to `sample`; None: that is off.
    """

    def __init__(self, model: str, version: str, statistics: Statistics | None = None) -> None:
        self._labels = {"model": model, "version": version}
        self._requests: dict[tuple[str, int], int] = {}
        self._shed: dict[str, int] = {}
        self._cache: dict[str, int] = {}
        self._statistics = statistics or Statistics()
        self._failed, self._failed_seconds = 0, 0.0
        self._demand = Demand()
        self._latency, self._queue, self._inference = Tally(SECONDS), Tally(SECONDS), Tally(SECONDS)
        self._rows = Tally(ROWS)
        self._solo: list[tuple[float, int]] = []
        self.in_flight = 0
        self.waiting_rows = 0
        self.wants_sample = True
        self._sampled: tuple[Tensors, Tensors] | None = None
        self._drift = DriftSample()
        self.follower: Follower | None = None
        self._families = _families()

    def pinned(self, given: bool) -> None:
        """Show whether the model runs by a plan that was given."""
        self._families["pinned"].labels(**self._labels).set(int(given))

    def request(self, protocol: str, status: int, seconds: float, rows: int = 0) -> None:
        """Count a finished request.

        Args:
            protocol, status: as the counter's labels have them.
            seconds: from its head to its answer.
            rows: that it brought; see `Demand`.
        """
        if rows and status != REFUSED:
            self._demand.answered(rows, seconds)
        key = (protocol, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._latency.observe(seconds)
        if status != OK:
            self._failed += 1
            self._failed_seconds += seconds

    def shed(self, error: OverloadedError, rows: int = 0) -> None:
        """Count a request that was refused.

        Args:
            error: why: queue_full, deadline, stopping or restarting.
            rows: that it brought; 0 where it was refused unread.
        """
        self._shed[error.reason] = self._shed.get(error.reason, 0) + 1
        if error.is_demand:
            self._demand.refused(rows)

    def cache(self, result: str, seconds: float = 0.0) -> None:
        """Count a look into the prediction cache: memory_hit, remote_hit, miss or joined; and how long it took."""
        self._cache[result] = self._cache.get(result, 0) + 1
        self._statistics.add("cache_miss" if result == "miss" else "cache_hit", 1, seconds)

    def shadow(self, comparison: Comparison) -> None:
        """Count a comparison with the shadow."""
        agreeing = self._families["shadow"].labels(**self._labels, agrees="yes")
        agreeing.inc(comparison.agreeing)
        self._families["shadow"].labels(**self._labels, agrees="no").inc(comparison.rows - comparison.agreeing)
        self._families["shadow_gap"].labels(**self._labels).set(comparison.max_abs_difference)

    def batch(self, times: BatchTimes) -> None:
        """Record a batch."""
        for seconds in times.queued:
            self._queue.observe(seconds)
        self._inference.observe(times.inference)
        self._rows.observe(times.rows)
        if not times.failed:
            self._statistics.batch(times)

    def solo(self, seconds: float, rows: int) -> None:
        """Record a batch of one request that did not wait; the histograms get it at the next flush."""
        self._solo.append((seconds, rows))
        if len(self._solo) >= MOST_SOLO:
            self._count_solo()

    def _count_solo(self) -> None:
        self._queue.observe_many(np.zeros(len(self._solo)))
        seconds, rows = np.array([seconds for seconds, _ in self._solo]), np.array([rows for _, rows in self._solo])
        self._inference.observe_many(seconds)
        self._rows.observe_many(rows)
        self._statistics.solo(seconds, rows)
        self._solo.clear()

    def sample(self, inputs: Tensors, outputs: Tensors) -> None:
        """Keep a request for the drift feed until the next flush; copies, so that no batch is kept alive."""
        self.wants_sample = self.follower is not None and self.follower.take(inputs, outputs)
        if self._sampled is None:
            self._sampled = (
                {name: array.copy() for name, array in inputs.items()},
                {name: array.copy() for name, array in outputs.items()},
            )

    def flush(self) -> None:
        """Hand everything counted since the last time to the client library."""
        families, labels = self._families, self._labels
        if self._solo:
            self._count_solo()
        self._sum_up()
        for (protocol, status), count in self._requests.items():
            families["requests"].labels(**labels, protocol=protocol, status=str(status)).inc(count)
        for reason, count in self._shed.items():
            families["shed"].labels(**labels, reason=reason).inc(count)
        for result, count in self._cache.items():
            families["cache"].labels(**labels, result=result).inc(count)
        for counts in (self._requests, self._shed, self._cache):
            counts.clear()
        families["row_seconds"].labels(**labels).inc(self._demand.take())
        for name, tally in (
            ("latency", self._latency),
            ("queue", self._queue),
            ("inference", self._inference),
            ("rows", self._rows),
        ):
            tally.flush(families[name].labels(**labels))
        families["in_flight"].labels(**labels).set(self.in_flight)
        families["waiting"].labels(**labels).set(self.waiting_rows)
        if self._sampled is not None:
            self._drift.add(*self._sampled)
            self._sampled = None
            if self._drift.rows >= MIN_DRIFT_ROWS:
                self._drift.show(families, labels)
                self._drift = DriftSample()
        self.wants_sample = True

    def _sum_up(self) -> None:
        """Add what came since the last flush to the statistics."""
        answered, seconds = self._latency.total
        if answered:
            self._statistics.requests(answered, seconds, self._failed, self._failed_seconds)
            self._failed, self._failed_seconds = 0, 0.0
        self._statistics.add("queue", *self._queue.total)

    def forget(self) -> None:
        """Show nothing in flight any more, when the model is unloaded; what was counted stays."""
        self.in_flight = self.waiting_rows = 0
        if self.follower is not None:
            self.follower.left = True
        self.flush()


@cache
def key_file_stale() -> Any:
    """Return the gauge that tells an operator to look at the key file."""
    from prometheus_client import Gauge

    return Gauge(
        "hone_key_file_stale",
        "1 while the keys in use are not those of the key file, because it is broken or gone.",
        multiprocess_mode="livemax",
    )


def count_golden(model: str, version: str, match: bool) -> None:
    """Count a comparison with the answers of a model's proof; one that differs shows until the next that doesn't."""
    counter, gauge = _golden_families()
    counter.labels(model=model, version=version, result="match" if match else "mismatch").inc()
    gauge.labels(model=model, version=version).set(int(not match))


@cache
def _golden_families() -> tuple[Any, Any]:
    from prometheus_client import Counter, Gauge

    labels = ("model", "version")
    counter = Counter("hone_golden_checks", "Comparisons with the proof's answers, by result.", (*labels, "result"))
    words = "1 when the last comparison found other answers than the proof's: the version is not served."
    return counter, Gauge("hone_golden_mismatch", words, labels, multiprocess_mode="livemax")


KEPT = {
    "recorder": {
        "rows": ("hone_recorded_rows", "Rows of requests in files of recorded traffic."),
        "dropped": ("hone_record_dropped_rows", "Rows that should have been recorded and were not."),
        "failed_writes": ("hone_record_failed_writes", "Files of recorded traffic that could not be written."),
    },
    "sketcher": {
        "rows": ("hone_sketched_rows", "Rows of requests in sketches."),
        "failed_writes": ("hone_sketch_failed_writes", "Files of sketches that could not be written."),
    },
    "collector": {
        "answers": ("hone_answers_noted", "Answers that feedback may come for, in files."),
        "dropped": ("hone_answers_dropped", "Answers that should have been noted and were not."),
        "entries": ("hone_feedback_entries", "Labels and figures that callers have sent."),
    },
}
"""Counters of what is kept of traffic, by the part of the edge that keeps it and the fields of its figures."""


@cache
def kept_counters(part: str) -> dict[str, Any]:
    """Return the counters of a part of the edge that keeps something of traffic, by the fields of its figures."""
    from prometheus_client import Counter

    return {field: Counter(name, words) for field, (name, words) in KEPT[part].items()}


@cache
def arm_families() -> dict[str, Any]:
    """Return what is counted by arm while a model's requests are split; `by` says how a request came to its arm."""
    from prometheus_client import Counter, Gauge, Histogram

    labels = ("model", "arm", "version")
    return {
        "requests": Counter("hone_arm_requests", "Requests of an arm, by status.", (*labels, "by", "status")),
        "errors": Counter("hone_arm_errors", "Requests of an arm with a status from 500 up.", (*labels, "by")),
        "latency": Histogram("hone_arm_request_seconds", "As hone_request_seconds, by arm.", labels, buckets=SECONDS),
        "weight": Gauge("hone_arm_weight", "Percent of requests.", labels, multiprocess_mode="livemostrecent"),
    }


@cache
def _families() -> dict[str, Any]:
    """Create every metric once a process; a second creation of one name is an error."""
    from prometheus_client import Counter, Gauge, Histogram

    labels = ("model", "version")
    return {
        "requests": Counter("hone_requests", "Requests answered, by status.", (*labels, "protocol", "status")),
        "latency": Histogram("hone_request_seconds", "From the request's head to its answer.", labels, buckets=SECONDS),
        "queue": Histogram("hone_queue_seconds", "Waiting for a batch.", labels, buckets=SECONDS),
        "inference": Histogram("hone_inference_seconds", "One batch in the runtime.", labels, buckets=SECONDS),
        "rows": Histogram("hone_batch_rows", "Rows of one batch.", labels, buckets=ROWS),
        "in_flight": Gauge("hone_in_flight_requests", "Requests being answered.", labels, multiprocess_mode="livesum"),
        "waiting": Gauge("hone_waiting_rows", "Rows that wait for a batch.", labels, multiprocess_mode="livesum"),
        "row_seconds": Counter("hone_row_seconds", "Seconds of rows, with those refused; its rate: in flight.", labels),
        "shed": Counter("hone_shed", "Requests refused to protect the others.", (*labels, "reason")),
        "cache": Counter("hone_cache", "Looks into the prediction cache, by result.", (*labels, "result")),
        "mean": Gauge(
            "hone_input_mean",
            "Mean of sampled values, of 100 rows or more.",
            (*labels, "input"),
            multiprocess_mode="livemostrecent",
        ),
        "deviation": Gauge(
            "hone_input_deviation",
            "Standard deviation of the same values.",
            (*labels, "input"),
            multiprocess_mode="livemostrecent",
        ),
        "classes": Counter("hone_predicted_class", "Sampled predictions, by class.", (*labels, "output", "choice")),
        "pinned": Gauge(
            "hone_plan_pinned",
            "1 when the model runs by a plan that was given, 0 when the worker measured one.",
            labels,
            multiprocess_mode="livemin",
        ),
        "shadow": Counter("hone_shadow_rows", "Rows compared with the shadow, by agreement.", (*labels, "agrees")),
        "shadow_gap": Gauge(
            "hone_shadow_gap", "Largest difference in the last comparison.", labels, multiprocess_mode="livemostrecent"
        ),
    }
