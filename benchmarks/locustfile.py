"""The load generator, for Locust: `HONE_LOAD=load.json locust -f benchmarks/locustfile.py --headless --host URL`.

`HONE_LOAD` names a JSON file: `{"scenario": {...}, "bodies": [...], "rows": 1, "output": "records.jsonl"}`, where
bodies are JSON texts for `POST /predict`. `hone bench` writes that file, runs this and reads the records: one
`[intended, started, ended, error]` line a request, times in seconds from the start, error an empty text when none.

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
import orjson
from gevent.pool import Pool
from geventhttpclient import HTTPClient
from geventhttpclient.response import HTTPParseError
from locust import User, events, task
from locust.exception import StopUser

from benchmarks.scenarios import Scenario

MAX_IN_FLIGHT = 2000
TIMEOUT_S = 30.0
HEADERS = {"content-type": "application/json"}
NOT_SENT = "not sent: too many in flight"

_load: dict[str, Any] = json.loads(Path(os.environ["HONE_LOAD"]).read_text())
SCENARIO = Scenario.model_validate(_load["scenario"])
BODIES = [text.encode() for text in _load["bodies"]]
EXPECTED_ROWS = int(_load["rows"])
FINISHED: list[User] = []
RECORDS: list[tuple[float, float, float, str]] = []


class Caller(User):
    """Sends predictions. In an open loop there is one, which spawns a greenlet for each arrival."""

    fixed_count = 1 if SCENARIO.kind == "open" else SCENARIO.users

    def on_start(self) -> None:
        # A collection of the generator's own objects would show as latency of the service.
        gc.freeze()
        gc.disable()
        self._bodies = cycle(BODIES)
        # Locust's own HTTP clients cost several times as much a request as this one, which they are built on; the
        # generator shares the machine with the service, so what it saves the service's callers see.
        assert self.host is not None
        self._http = HTTPClient.from_url(
            self.host, concurrency=MAX_IN_FLIGHT, connection_timeout=TIMEOUT_S, network_timeout=TIMEOUT_S
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
        body = next(self._bodies)
        started = time.perf_counter() - self._zero
        answer = b""
        try:
            response = self._http.post("/predict", body=body, headers=HEADERS)
            answer = bytes(response.read())
            error = _fault(response.status_code, answer)
        except (OSError, HTTPParseError) as failure:
            error = f"no answer: {type(failure).__name__}"
        ended = time.perf_counter() - self._zero
        RECORDS.append((intended, started, ended, error))
        self.environment.events.request.fire(
            request_type="POST",
            name="/predict",
            response_time=(ended - intended) * 1e3,
            response_length=len(answer),
            exception=RuntimeError(error) if error else None,
            context={},
        )


def _fault(status: int, answer: bytes) -> str:
    """Return what is wrong with an answer, or an empty text: its status, its form, its number of rows."""
    if status != 200:
        return f"status {status}"
    try:
        outputs = orjson.loads(answer)["outputs"]
        counts = {len(values) for values in outputs.values()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return "answer is not a prediction"
    return "" if counts == {EXPECTED_ROWS} else f"answer has {sorted(counts)} rows, not {EXPECTED_ROWS}"


@events.quitting.add_listener
def write_records(environment: Any, **_: Any) -> None:
    """Write every request's times; a failed request must not change Locust's exit status, it is in the records."""
    environment.process_exit_code = 0
    with Path(_load["output"]).open("w") as stream:
        for record in RECORDS:
            stream.write(json.dumps(record) + "\n")
