"""The load generator's senders, started with a rate and stopped when a test has seen enough."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import numpy as np

from hone.benchmarks.load.run import calls_for
from hone.benchmarks.load.sending.fleet import Fleet
from hone.benchmarks.load.sending.plan import Plan, request_bytes
from hone.benchmarks.load.target import Access, ask
from hone.benchmarks.scenarios import Scenario

LONGEST_S = 900.0


class Load:
    """Requests at Poisson times through one address, until the end of the block.

    Args:
        folder: for the plan and the records; it must not exist.
        url: of the service.
        key: of the API.
        rate: requests per second, of one row each.
    """

    def __init__(self, folder: Path, url: str, key: str, rate: float) -> None:
        target = ask(url, Access(api_key=key), "sorter")
        workload = calls_for(target, 1)
        times = Scenario(rate=rate, duration_s=LONGEST_S, warm_up_s=0.0).arrivals()
        plan = Plan(
            url=url,
            requests=[request_bytes(url, call, target.access.headers) for call in workload.calls],
            rows=np.array([call.rows or 1 for call in workload.calls]),
            wire="json",
            outputs=target.signature.outputs,
            arrivals=times,
            order=np.arange(len(times), dtype=np.uint32) % len(workload.calls),
        )
        plan.write(folder)
        self._folder = folder
        self._due = times
        self._records: list[np.ndarray] = []

    def __enter__(self) -> Load:
        self._fleet = Fleet([self._folder])
        return self

    def __exit__(self, *_: object) -> None:
        self._fleet.end()
        self._records.append(self._fleet.more())
        self._words = self._fleet.errors()[0]

    @property
    def now(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._fleet.zero

    def records(self) -> np.ndarray:
        """Return the requests that have ended, in the order of their ends."""
        self._records.append(self._fleet.more())
        return np.concatenate(self._records)

    def failed(self) -> Counter[str]:
        """Return how many requests failed, by the words of why."""
        codes = self.records()["error"]
        words = self._fleet.errors()[0]
        return Counter(words[code - 1] for code in codes[codes > 0])

    def p99_ms(self, since: float, until: float) -> float:
        """Return the 99th percentile of the requests that were due in some seconds; what isn't answered is endless."""
        records = self.records()
        assert self._fleet.running, self._fleet.failure()
        ended = records[(records["intended"] >= since) & (records["intended"] < until)]
        count = int(np.count_nonzero((self._due >= since) & (self._due < until)))
        taken = np.full(max(count, 1), np.inf)
        taken[: len(ended)] = np.where(ended["error"] > 0, np.inf, ended["ended"] - ended["intended"])
        return float(np.percentile(taken, 99, method="higher")) * 1e3
