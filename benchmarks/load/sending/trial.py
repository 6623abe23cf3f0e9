"""One scenario from start to end: Locust with its senders in processes of their own, and what they noted."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import hone
from hone.errors import HoneError
from hone.hardware import cores
from hone.processes import why_failed

from ...records import Sent
from ...scenarios import Scenario
from ..target import Target
from ..wire import GRPC
from ..workload import Workload
from .plan import MAX_IN_FLIGHT, RECORDS, Plan, Reader

LOCUSTFILE = Path(__file__).parents[2] / "locustfile.py"
SENDER_RATE = 6000.0
"""Requests per second that one sender is given at most; a rate above is shared by several."""
GRPC_RATE = 2000.0
"""The same over gRPC: what one held on two cores that other programs used, too."""
KEPT = 200
"""Answers of a run that are kept to be checked."""
SPARE_S = 120.0
"""So much longer than its scenario a run may take."""
END_S = 15.0

Kept = list[tuple[int, bytes, bytes]]


@dataclass(frozen=True)
class Trial:
    """What came of a run: what the senders noted, and answers to check: which call, the head, the body."""

    sent: Sent
    kept: Kept


def run_trial(target: Target, scenario: Scenario, workload: Workload, wire: str) -> Trial:
    """Send a workload, and return a record of every request.

    Ctrl-C ends it early; what was sent until then is returned.

    Args:
        target: the model.
        scenario: the load.
        workload: its requests; an open loop's have their times.
        wire: protocol that answers are checked by.

    Raises:
        HoneError: Locust or a sender ended with an error.
    """
    count = senders_for(scenario, workload, wire)
    with tempfile.TemporaryDirectory(prefix="hone-load-") as name:
        folders = [Path(name) / str(number) for number in range(count)]
        try:
            for number, folder in enumerate(folders):
                _plan(target, scenario, workload, wire, number, count).write(folder)
            load = Path(name) / "load.json"
            load.write_text(json.dumps({"folders": [str(f) for f in folders], "name": workload.calls[0].path}))
        except OSError as error:
            raise HoneError(f"{name}: {error.strerror}; TMPDIR chooses another folder") from None
        interrupted = _locust(target.url, load, _seconds(scenario, workload) + SPARE_S)
        return _read(folders, workload, interrupted)


def senders_for(scenario: Scenario, workload: Workload, wire: str = "json") -> int:
    """Return how many processes share a load: one, but for rates that would keep one too busy to be in time."""
    spare = max(1, cores() - 1)
    if workload.arrivals is None:
        return 1
    rate = len(workload.arrivals) / max(_seconds(scenario, workload), 1.0)
    return min(spare, max(1, math.ceil(rate / (GRPC_RATE if wire == GRPC else SENDER_RATE))))


def _seconds(scenario: Scenario, workload: Workload) -> float:
    planned = scenario.warm_up_s + scenario.duration_s
    return planned if workload.arrivals is None else max(planned, float(workload.arrivals[-1]))


def _plan(target: Target, scenario: Scenario, workload: Workload, wire: str, number: int, count: int) -> Plan:
    arrivals = workload.arrivals
    seconds = _seconds(scenario, workload)
    return Plan.of(
        target,
        workload.calls,
        wire,
        arrivals=None if arrivals is None else arrivals[number::count],
        order=workload.order[number::count],
        users=scenario.users if arrivals is None else 0,
        duration_s=seconds,
        keep_every_s=seconds * count / KEPT,
        in_flight=MAX_IN_FLIGHT // count,
        number=number,
    )


def _locust(url: str, load: Path, seconds: float) -> bool:
    """Run Locust to its end; return whether Ctrl-C ended it; raises HoneError when it fails."""
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--host", url, "--users", "1"]
    command += ["--only-summary", "--loglevel", "WARNING"]
    search_path = os.pathsep.join([str(Path(hone.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    # A session of its own: Ctrl-C comes from here, once, and not from the terminal as well.
    process = subprocess.Popen(
        command,
        env={**os.environ, "HONE_LOAD": str(load), "PYTHONPATH": search_path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    interrupted = False
    try:
        try:
            _, errors = process.communicate(timeout=seconds)
        except KeyboardInterrupt:
            interrupted = True
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=END_S)
    except subprocess.TimeoutExpired:
        raise HoneError(f"the load test did not end in {seconds:.0f} s; its machine is too busy") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    if process.returncode and not interrupted:
        raise HoneError(f"the load test failed: {why_failed(errors).removeprefix('error: ')}")
    return interrupted


def _read(folders: list[Path], workload: Workload, interrupted: bool) -> Trial:
    readers = [Reader(folder) for folder in folders]
    records = np.concatenate([np.zeros(0, RECORDS), *(reader.more() for reader in readers)])
    words: dict[str, int] = {"": 0}
    kinds = np.zeros(len(records), np.int64)
    for number, reader in enumerate(readers):
        for code, word in enumerate(reader.errors(), 1):
            chosen = (records["sender"] == number) & (records["error"] == code)
            kinds[chosen] = words.setdefault(word, len(words))
    rows = np.array([call.rows or 1 for call in workload.calls])
    sent = Sent(
        intended=records["intended"],
        started=records["started"],
        ended=records["ended"],
        rows=rows[records["call"]],
        kinds=kinds,
        words=tuple(words),
        cpu_share=max((reader.summary().get("cpu_share", 0.0) for reader in readers), default=0.0),
        senders=len(folders),
        interrupted=interrupted,
    )
    return Trial(sent, [kept for reader in readers for kept in reader.kept()])
