"""What senders noted, told to Locust in batches: its table, page, files, distribution and exit status stay its own.

With workers, what their senders noted last comes to the master after the run, and it waits for that here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gevent
import numpy as np
from locust.runners import STATE_MISSING, MasterRunner, WorkerRunner
from locust.stats import RequestStats, StatsEntry, StatsError, bucket_response_time

METHOD = "POST"
LAST_S = 20.0
"""So long a master waits for its workers' last figures; Locust itself waits half a second."""

_FINISH, _FINISHED = "hone-finish", "hone-finished"


def answer_master(runner: WorkerRunner, end: Callable[[], None]) -> None:
    """Let a worker report when its master asks for the last figures.

    Args:
        runner: of the worker.
        end: ends its senders, and tells what they noted last.
    """

    def finish(**_: Any) -> None:
        end()
        figures: dict[str, Any] = {}
        runner.environment.events.report_to_master.fire(client_id=runner.client_id, data=figures)
        runner.send_message("stats", figures)
        runner.send_message(_FINISHED)

    runner.register_message(_FINISH, finish)


class LastFigures:
    """Those of a master's workers.

    Args:
        runner: of the master.
    """

    def __init__(self, runner: MasterRunner) -> None:
        self._runner = runner
        self._waiting: set[str] = set()
        runner.register_message(_FINISHED, lambda msg, **_: self._waiting.discard(msg.node_id))

    def missing(self, patience_s: float = LAST_S) -> list[str]:
        """Ask for them and wait until all have come; return the names of workers whose didn't."""
        asked = {client.id for client in self._runner.clients.all}
        self._waiting = set(asked)
        for name in asked:
            self._runner.send_message(_FINISH, client_id=name)
        end = time.monotonic() + patience_s
        while self._awaited() and time.monotonic() < end:
            gevent.sleep(0.05)
        return sorted(self._waiting)

    def _awaited(self) -> set[str]:
        """Return who may still report; one that Locust counts as missing has sent no sign of life for seconds."""
        lost = {client.id for client in self._runner.clients.all if client.state == STATE_MISSING}
        return self._waiting - lost


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
