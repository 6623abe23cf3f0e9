"""What senders noted, told to Locust in batches: its table, page, files, distribution and exit status stay its own."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from locust.stats import RequestStats, StatsEntry, StatsError, bucket_response_time

METHOD = "POST"


def tell(stats: RequestStats, name: str, records: np.ndarray, errors: list[list[str]], zero: float) -> None:
    """Add requests to Locust's statistics, as it adds those of its own workers.

    Args:
        stats: of the environment.
        name: of the requests: their path.
        records: of `sending.plan.RECORDS`.
        errors: words by sender.
        zero: when the run began, by `time.monotonic`.
    """
    if not len(records):
        return
    batch = _entry(stats, name, records, time.time() - time.monotonic() + zero)
    stats.get(name, METHOD).extend(batch)
    stats.total.extend(batch)
    failed = records[records["error"] > 0]
    pairs, counts = np.unique(np.stack([failed["sender"], failed["error"]]), axis=1, return_counts=True)
    for (sender, code), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        error = RuntimeError(errors[sender][code - 1])
        key = StatsError.create_key(METHOD, name, error)
        entry: Any = stats.errors.setdefault(key, StatsError(METHOD, name, error))
        entry.occurred()
        entry.occurrences += count - 1


def _entry(stats: RequestStats, name: str, records: np.ndarray, epoch: float) -> Any:
    took = (records["ended"] - records["intended"]) * 1e3
    seconds = (records["ended"] + epoch).astype(np.int64)
    entry: Any = StatsEntry(stats, name, METHOD)
    entry.start_time = float(records["intended"].min()) + epoch
    entry.last_request_timestamp = float(records["ended"].max()) + epoch
    entry.num_requests, entry.num_failures = len(records), int((records["error"] > 0).sum())
    entry.total_response_time = float(took.sum())
    entry.min_response_time, entry.max_response_time = float(took.min()), float(took.max())
    entry.total_content_length = int(records["size"].sum())
    # Locust keeps two digits of a time; most requests fall on a few of them.
    for value, count in zip(*np.unique(np.round(took, 0), return_counts=True), strict=True):
        entry.response_times[bucket_response_time(float(value))] += int(count)
    for counts, of in ((entry.num_reqs_per_sec, seconds), (entry.num_fail_per_sec, seconds[records["error"] > 0])):
        for second, count in zip(*np.unique(of, return_counts=True), strict=True):
            counts[int(second)] += int(count)
    return entry
