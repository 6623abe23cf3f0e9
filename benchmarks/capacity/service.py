"""A running service as the search of a capacity loads it: an open loop, and its processes watched meanwhile."""

from __future__ import annotations

import time

import numpy as np

from hone.errors import HoneError

from ..load.run import calls_for, run_load
from ..load.target import Target, require_ready
from ..measures import measure, outcomes
from ..records import LATE_SHARE
from ..scenarios import Scenario
from ..usage import listeners, watched
from .runs import Observed

ASKED = 3
"""Times that a service that answered nothing is asked whether it is there: it may have been overloaded."""


class Service:
    """Loads one service at one rate after another.

    Args:
        target: the model; the service's processes are watched when they run on this host.
        rows: in each request.
        most_late: share of requests that may be started late; above it, a run is void.
    """

    def __init__(self, target: Target, rows: int, most_late: float = LATE_SHARE) -> None:
        self._target = target
        self._most_late = most_late
        self._scenario = Scenario(rows=rows, warm_up_s=1.0)
        self._calls = calls_for(target, rows)
        self._processes = listeners(target.url)

    def __call__(self, rate: float, seconds: float, seed: int) -> Observed:
        scenario = self._scenario.model_copy(update={"rate": rate, "duration_s": seconds, "seed": seed})
        started = time.monotonic()
        with watched(self._processes) as usage:
            sent = run_load(self._target, scenario, self._calls)
        found = measure(sent, scenario, self._most_late)
        latencies, failed = outcomes(sent, scenario)
        if failed.all():
            self._require_alive(rate, next(iter(found["errors_by_kind"])))
        return Observed(
            intended=np.sort(sent.after(scenario.warm_up_s).intended) - scenario.warm_up_s,
            latencies_ms=latencies,
            failed=failed,
            seconds=found["duration_s"],
            took_s=time.monotonic() - started,
            late_share=found["late_share"],
            void=found["generator"].void or "",
            cpu_cores=usage.get("cpu_cores"),
            rss_mb=usage.get("rss_mb"),
        )

    def _require_alive(self, rate: float, why: str) -> None:
        """Raise HoneError unless the service answers, a little after a load of which it answered nothing."""
        for attempt in range(ASKED):
            try:
                require_ready(self._target.url, self._target.access)
                return
            except HoneError as error:
                if attempt == ASKED - 1:
                    raise HoneError(f"the service died at {rate:,.1f} requests/s ({why}): {error}") from None
                time.sleep(1.0)
