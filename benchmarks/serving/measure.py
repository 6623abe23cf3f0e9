"""One measurement: a server in a scenario, or ONNX Runtime without a server; and the medians of many."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import httpx
import numpy as np

from hone.errors import HoneError

from . import wrk
from .workloads import Scenario, Workload, calls_of, rows_of

BATCH_ROWS = 64
IN_PROCESS = {("binary-1", 1): 1, ("binary-1", 32): 32, ("binary-64", 8): BATCH_ROWS}
"""Rows of the batch that a server can make of a scenario, for those that ONNX Runtime is measured in without one."""


def check(url: str, server: str, workload: Workload, session: Any, payload: str) -> None:
    """Compare a server's answers with ONNX Runtime's.

    Raises:
        HoneError: it answers with an error, or other numbers.
    """
    for made, decode, inputs in calls_of(server, workload, payload)[:4]:
        answer = httpx.post(url + made.path, content=made.body, headers=made.headers, timeout=60)
        if answer.status_code != 200:
            raise HoneError(f"{server} answers {answer.status_code}: {answer.text[:200]}")
        expected = session.run(None, inputs)[0].reshape(-1)
        found = decode(answer.content, dict(answer.headers))
        allowed = workload.tolerance * np.abs(expected).max()
        if found.shape != expected.shape or np.abs(found - expected).max() > allowed:
            raise HoneError(f"{server} answers other numbers than ONNX Runtime")


def measure(
    server: str, url: str, workload: Workload, scenario: Scenario, seconds: float, session: Any
) -> dict[str, Any] | None:
    """Measure one scenario; None when the server doesn't offer it.

    Raises:
        HoneError: its answers are wrong, or the load generator failed.
    """
    payload, connections = scenario
    requests = [made for made, _, _ in calls_of(server, workload, payload)]
    if not requests:
        return None
    check(url, server, workload, session, payload)
    wrk.load(url, requests, connections, 1)
    found = wrk.load(url, requests, connections, seconds)
    return _run(server, workload.model, scenario, found.rps, rows_of(payload), asdict(found))


def in_process(workload: Workload, scenario: Scenario, session: Any, seconds: float) -> list[dict[str, Any]]:
    """Measure ONNX Runtime without a server, at the batch that one could make of a scenario."""
    rows = IN_PROCESS.get(scenario)
    if rows is None:
        return []
    inputs = workload.rows(rows)
    session.run(None, inputs)
    timings: list[float] = []
    ends = time.perf_counter() + seconds / 2
    while time.perf_counter() < ends:
        before = time.perf_counter()
        session.run(None, inputs)
        timings.append(time.perf_counter() - before)
    timings.sort()
    found = {"p50_ms": timings[len(timings) // 2] * 1e3, "p99_ms": timings[int(len(timings) * 0.99)] * 1e3, "errors": 0}
    return [_run("in-process", workload.model, scenario, len(timings) / sum(timings), rows, found)]


def _run(server: str, model: str, scenario: Scenario, rps: float, rows: int, found: dict[str, Any]) -> dict[str, Any]:
    return {
        "server": server, "model": model, "payload": scenario[0], "connections": scenario[1], "rps": round(rps, 1),
        "rows_per_s": round(rps * rows, 1), "p50_ms": found["p50_ms"], "p99_ms": found["p99_ms"],
        "errors": found["errors"],
    }  # fmt: skip


def median_runs(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one run a scenario: the median of each figure with its quartiles, the sum of the errors."""
    grouped: dict[tuple[str, str, str, int], list[dict[str, Any]]] = {}
    for run in measured:
        key = (run["server"], run["model"], run["payload"], run["connections"])
        grouped.setdefault(key, []).append(run)
    figures = ("rps", "rows_per_s", "p50_ms", "p99_ms")
    return [
        {
            **dict(zip(("server", "model", "payload", "connections"), key, strict=True)),
            **{figure: round(statistics.median(run[figure] for run in runs), 3) for figure in figures},
            "quartiles": {figure: _quartiles([run[figure] for run in runs]) for figure in figures},
            "errors": sum(run["errors"] for run in runs),
            "rounds": len(runs),
        }
        for key, runs in grouped.items()
    ]


def _quartiles(values: list[float]) -> tuple[float, float]:
    low, high = (round(float(value), 3) for value in np.percentile(values, (25, 75)))
    return low, high


def line(run: dict[str, Any]) -> str:
    """Return a run in words, for the terminal."""
    where = f"{run['server']:10} {run['model']:7} {run['payload']:9} {run['connections']:4} connections"
    return f"{where} {run['rps']:9,.0f}/s p50 {run['p50_ms']:8.2f} p99 {run['p99_ms']:8.2f} ms"
