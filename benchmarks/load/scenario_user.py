"""The load of `hone bench`: one scenario from start to end, with a record of every request.

`HONE_LOAD` names a JSON file that `benchmarks.load.run` writes: `{"scenario", "path", "headers", "bodies", "tag", "ca",
"output"}`. The records are `[intended, started, ended, error]`, one line a request, times in seconds from the start,
error an empty text when none.

Open loop: one arrival, one greenlet. Latency counts from the time at which the request was meant to start, so a
stalled service shows as what its callers would have waited (no coordinated omission).
"""

from __future__ import annotations

import gc
import json
import os
import time
from itertools import cycle
from pathlib import Path
from typing import Any

import gevent
from gevent.pool import Pool
from locust import User, events, task
from locust.exception import StopUser

from ..scenarios import Scenario
from .sender import TIMEOUT_S, Sender
from .target import Access
from .wire import WIRES, Call, Expected

MAX_IN_FLIGHT = 2000
NOT_SENT = "not sent: too many in flight"

_load: dict[str, Any] = json.loads(Path(os.environ["HONE_LOAD"]).read_text())
SCENARIO = Scenario.model_validate(_load["scenario"])
CALLS = [Call(_load["path"], _load["headers"], text.encode()) for text in _load["bodies"]]
FINISHED: list[User] = []
RECORDS: list[tuple[float, float, float, str]] = []


class Caller(User):
    """Sends predictions. In an open loop there is one, which spawns a greenlet for each arrival."""

    fixed_count = 1 if SCENARIO.kind == "open" else SCENARIO.users

    def on_start(self) -> None:
        # A collection of the generator's own objects would show as latency of the service.
        gc.freeze()
        gc.disable()
        self._calls = cycle(CALLS)
        assert self.host is not None
        self._sender = Sender(
            self.host,
            Access(ca=Path(_load["ca"]) if _load["ca"] else None),
            WIRES["json"],
            Expected(rows=_load["rows"], tag=_load["tag"]),
            self.environment.events.request.fire,
            MAX_IN_FLIGHT,
        )
        self._zero = time.perf_counter()

    @task
    def run_scenario(self) -> None:
        if SCENARIO.kind == "open":
            self._open_loop()
        else:
            self._closed_loop()
        # The last caller ends the run, from a greenlet of its own: callers that all end it at once wait for each other.
        FINISHED.append(self)
        if len(FINISHED) == self.fixed_count:
            assert self.environment.runner is not None
            gevent.spawn(self.environment.runner.quit)
        raise StopUser

    def _open_loop(self) -> None:
        pool = Pool(MAX_IN_FLIGHT)
        for intended in SCENARIO.arrivals():
            wait = self._zero + intended - time.perf_counter()
            # Sleep even for nothing: answers are read only while this greenlet lets others run.
            gevent.sleep(max(wait, 0.0))
            if pool.full():
                RECORDS.append((intended, intended, intended, NOT_SENT))
                continue
            pool.spawn(self._send, intended)
        pool.join(TIMEOUT_S)

    def _closed_loop(self) -> None:
        end = SCENARIO.warm_up_s + SCENARIO.duration_s
        while (now := time.perf_counter() - self._zero) < end:
            self._send(now)

    def _send(self, intended: float) -> None:
        zero = self._zero
        started, ended, error = self._sender.send(next(self._calls), zero + intended)
        RECORDS.append((intended, started - zero, ended - zero, error))


@events.quitting.add_listener
def write_records(environment: Any, **_: Any) -> None:
    """Write every request's times; a failed request must not change Locust's exit status, it is in the records."""
    environment.process_exit_code = 0
    with Path(_load["output"]).open("w") as stream:
        for record in RECORDS:
            stream.write(json.dumps(record) + "\n")
