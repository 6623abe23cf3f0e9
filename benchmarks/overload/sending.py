"""The load: Poisson arrivals at a rate that the service can't hold, each request with its deadline."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hone.errors import HoneError
from hone.hardware import cores

from ..load.run import calls_for
from ..load.sending.fleet import Fleet
from ..load.sending.plan import MAX_IN_FLIGHT, Plan, Reader, request_bytes
from ..load.sending.trial import SENDER_RATE
from ..load.target import Target
from ..scenarios import Scenario
from .beside import Beside, Seen

DEADLINE = "x-timeout-ms"
ANSWERED, REFUSED = "", "status 503"
SETTLE_S = 3.0
"""Left out at the begin: a service learns what batches of the new load take."""


@dataclass(frozen=True)
class Load:
    """What is sent.

    Attributes:
        rate: requests per second.
        rows: in each.
        deadline_ms: of each, as the service is told.
        seconds: that count.
    """

    rate: float
    rows: int
    deadline_ms: float
    seconds: float


@dataclass(frozen=True)
class Came:
    """What came of it.

    Attributes:
        took_ms: [requests] from the moment that a request went out to its answer.
        late_ms: [requests] that it went out too late, by the generator's own doing.
        kinds: [requests] empty for an answer, else what came in its place.
        cpu_share: of a core, of the busiest sender.
        ready: what a process saw that asked for readiness.
        stalls: what a process saw that only slept.
    """

    took_ms: np.ndarray
    late_ms: np.ndarray
    kinds: np.ndarray
    cpu_share: float
    ready: Seen
    stalls: Seen


def overload(target: Target, load: Load) -> Came:
    """Send, with processes beside that ask for readiness and that sleep.

    Raises:
        HoneError: a process failed.
    """
    scenario = Scenario(rate=load.rate, rows=load.rows, duration_s=load.seconds, warm_up_s=SETTLE_S)
    arrivals = scenario.arrivals()
    workload = calls_for(target, load.rows)
    headers = {**target.access.headers, DEADLINE: f"{load.deadline_ms:g}"}
    requests = [request_bytes(target.url, call, headers) for call in workload.calls]
    count = min(max(1, cores() - 1), max(1, round(load.rate / SENDER_RATE)))
    with tempfile.TemporaryDirectory(prefix="hone-overload-") as name, ExitStack() as stack:
        folders = [Path(name) / str(number) for number in range(count)]
        for number, folder in enumerate(folders):
            Plan(
                url=target.url, requests=requests, rows=np.zeros(len(requests), int), number=number,
                arrivals=arrivals[number::count], order=np.arange(len(requests), dtype=np.uint32),
                in_flight=MAX_IN_FLIGHT // count,
            ).write(folder)  # fmt: skip
        beside = [Beside("ready", target.url, seconds=load.seconds), Beside("sleep", seconds=load.seconds)]
        for process in beside:
            stack.callback(process.kill)
        fleet = Fleet(folders)
        stack.callback(fleet.end)
        while fleet.running:
            time.sleep(0.1)
        if failure := fleet.failure():
            raise HoneError(failure)
        return _came(fleet, folders, *(process.seen() for process in beside))


def _came(fleet: Fleet, folders: list[Path], ready: Seen, stalls: Seen) -> Came:
    records = fleet.more()
    records = records[records["intended"] >= SETTLE_S]
    if not len(records):
        raise HoneError("the overload sent nothing; give more --minutes")
    kinds = np.full(len(records), ANSWERED, dtype=object)
    for number, words in enumerate(fleet.errors()):
        for code, word in enumerate(words, 1):
            kinds[(records["sender"] == number) & (records["error"] == code)] = word
    return Came(
        took_ms=(records["ended"] - records["started"]) * 1e3,
        late_ms=(records["started"] - records["intended"]) * 1e3,
        kinds=kinds,
        cpu_share=max(Reader(folder).summary().get("cpu_share", 0.0) for folder in folders),
        ready=ready,
        stalls=stalls,
    )
