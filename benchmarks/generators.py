"""Is the load generator fast enough to say something of a service: `python -m benchmarks.generators`.

The sender of `hone bench`, wrk and Locust's own FastHttpUser take turns, seconds apart, on a C server that answers at
once (`benchmarks/instant.c`, compiled here): ratios hold on a machine whose speed drifts, rates alone don't. Then the
sender's lateness in open loops at shares of what it reached. With `--url`, sender and wrk take turns on a service.
"""

from __future__ import annotations

import csv
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson

from hone.errors import HoneError
from hone.files import atomic_write
from hone.hardware import cores, cpu_name
from hone.processes import output_of
from hone.services.launch import free_port

from .load.run import calls_for
from .load.sending.fleet import Fleet
from .load.sending.plan import Plan, Reader, request_bytes
from .load.target import Access, ask
from .load.wire import Call
from .made import made
from .records import LATE_MS
from .sampling import sampled
from .scenarios import Scenario
from .serving import wrk

SERVER = Path(__file__).with_name("instant.c")
BODY = b'{"inputs":{"x":[[' + b",".join([b"0.5"] * 64) + b"]]}}"
CALL = Call("/models/any/predict", {"content-type": "application/json"}, BODY)
SHARES = (0.1, 0.25, 0.5, 0.75)
"""Of the rate that the sender reached, those at which its lateness is measured."""
NAP_S = 5e-4
LOCUSTFILE = f"""
from locust import FastHttpUser, constant, task

class Caller(FastHttpUser):
    wait_time = constant(0)

    @task
    def send(self):
        self.client.post({CALL.path!r}, data={BODY!r}, headers={CALL.headers!r})
"""


@dataclass(frozen=True)
class Reached:
    """What a generator reached in a closed loop."""

    rate: float
    p99_ms: float
    cpu_share: float | None = None


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=3.0, show_default=True, help="Of each measurement.")
@click.option("--connections", type=click.IntRange(1), default=16, show_default=True)
@click.option("--url", help="A running service: sender and wrk on it, instead.")
@click.option("--model", default="", help="Of the service. [default: the first one that it serves]")
@click.option("--out", type=click.Path(path_type=Path), help="A folder for generators.json.")
def main(rounds: int, seconds: float, connections: int, url: str | None, model: str, out: Path | None) -> None:
    """Set the load generator beside wrk and Locust, and print ratios."""
    try:
        if url:
            report = on_service(url, model, rounds, seconds, connections)
        else:
            report = on_nothing(rounds, seconds, connections)
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    about = {**made("benchmarks.generators"), "machine": f"{cpu_name()}, {cores()} cores"}
    report = {**about, "connections": connections, **report}
    if out is not None:
        atomic_write(out / "generators.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    click.echo(to_text(report))


def on_nothing(rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    """Compare generators on a server that answers at once, and measure the sender's lateness."""
    with instant_server() as url:
        turns: dict[str, Callable[[], Reached]] = {
            "wrk": lambda: by_wrk(url, [CALL], connections, seconds),
            "sender": lambda: by_sender(url, [CALL], connections, seconds),
            "Locust's FastHttpUser": lambda: by_locust(url, connections, seconds),
        }
        report = in_turns(turns, rounds)
        top = report["generators"]["sender"]["rate"]
        report["lateness"] = [lateness(url, top * share, seconds) for share in SHARES]
    return report


def on_service(url: str, model: str, rounds: int, seconds: float, connections: int) -> dict[str, Any]:
    """Compare the sender with wrk on a service: the same requests, the same connections."""
    target = ask(url, Access(), model)
    calls = calls_for(target, 1).calls
    turns = {
        "wrk": lambda: by_wrk(url, calls, connections, seconds),
        "sender": lambda: by_sender(url, calls, connections, seconds, target.tag),
    }
    return {"model": target.tag, **in_turns(turns, rounds)}


def in_turns(turns: dict[str, Callable[[], Reached]], rounds: int) -> dict[str, Any]:
    """Return each generator's median, and its ratio to wrk's: the median of the rounds' own, and their range."""
    found: dict[str, list[Reached]] = {name: [] for name in turns}
    for number in range(rounds):
        # Another one begins each time: who comes first finds the machine as the last round left it.
        names = [*turns][number % len(turns) :] + [*turns][: number % len(turns)]
        for name in names:
            found[name].append(turns[name]())
    return {"rounds": rounds, "generators": {name: _beside(runs, found["wrk"]) for name, runs in found.items()}}


def _beside(runs: list[Reached], base: list[Reached]) -> dict[str, Any]:
    def ratios(value: Callable[[Reached], float]) -> dict[str, float]:
        each = [value(run) / value(other) for run, other in zip(runs, base, strict=True)]
        low, high = (float(value) for value in np.percentile(each, (25, 75)))
        return {"median": statistics.median(each), "low": low, "high": high, "least": min(each), "most": max(each)}

    shares = [run.cpu_share for run in runs if run.cpu_share is not None]
    return {
        "rate": statistics.median(run.rate for run in runs),
        "p99_ms": statistics.median(run.p99_ms for run in runs),
        "rate_to_wrk": ratios(lambda run: run.rate),
        "p99_to_wrk": ratios(lambda run: run.p99_ms),
        "cpu_share": statistics.median(shares) if shares else None,
    }


def by_wrk(url: str, calls: list[Call], connections: int, seconds: float) -> Reached:
    found = wrk.load(url, calls, connections, seconds)
    return Reached(found.rps, found.p99_ms)


def by_sender(url: str, calls: list[Call], connections: int, seconds: float, tag: str = "") -> Reached:
    records, summary = _sent(url, calls, tag, users=connections, duration_s=seconds)
    elapsed = float(records["ended"].max() - records["started"].min())
    took = (records["ended"] - records["intended"])[records["error"] == 0] * 1e3
    if not len(took):
        raise HoneError(f"{url}: no good answer")
    return Reached(len(took) / elapsed, float(np.percentile(took, 99)), summary["cpu_share"])


def by_locust(url: str, connections: int, seconds: float) -> Reached:
    with tempfile.TemporaryDirectory(prefix="hone-generators-") as folder:
        (Path(folder) / "locustfile.py").write_text(LOCUSTFILE)
        command = [sys.executable, "-m", "locust", "-f", f"{folder}/locustfile.py", "--headless", "--host", url]
        command += ["-u", str(connections), "-r", "1000", "-t", f"{max(1, round(seconds))}s", "--only-summary"]
        output_of([*command, "--csv", f"{folder}/run"], "Locust")
        with (Path(folder) / "run_stats.csv").open() as stream:
            total = [*csv.DictReader(stream)][-1]
    if total["99%"] == "N/A":
        raise HoneError(f"Locust was answered nothing in {seconds:g} s; give more --seconds")
    return Reached(float(total["Requests/s"]), float(total["99%"]))


def lateness(url: str, rate: float, seconds: float) -> dict[str, Any]:
    """Return how late the sender starts requests with Poisson arrivals, and how late this machine wakes a sleeper."""
    arrivals = Scenario(rate=rate, duration_s=seconds, warm_up_s=0).arrivals()
    with sampled(_overslept_ms) as overslept:
        records, summary = _sent(url, [CALL], arrivals=arrivals)
    late = (records["started"] - records["intended"]) * 1e3
    return {
        "rate": rate,
        "cpu_share": summary["cpu_share"],
        "late_p50_ms": float(np.percentile(late, 50)),
        "late_p99_ms": float(np.percentile(late, 99)),
        "late_share": float((late > LATE_MS).mean()),
        "sleeper_p99_ms": float(np.percentile(overslept, 99)),
    }


def _overslept_ms() -> float:
    before = time.perf_counter()
    time.sleep(NAP_S)
    return (time.perf_counter() - before - NAP_S) * 1e3


def _sent(url: str, calls: list[Call], tag: str = "", **load: Any) -> tuple[np.ndarray, dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="hone-generators-") as name:
        folder = Path(name)
        Plan(
            url=url,
            requests=[request_bytes(url, call, {}) for call in calls],
            rows=np.array([call.rows for call in calls]),
            order=np.arange(len(calls), dtype=np.uint32),
            wire="json" if tag else "",
            tag=tag,
            **load,
        ).write(folder)
        fleet = Fleet([folder])
        while fleet.running:
            time.sleep(0.1)
        if failure := fleet.failure():
            raise HoneError(failure)
        fleet.end()
        return fleet.more(), Reader(folder).summary()


@contextmanager
def instant_server() -> Iterator[str]:
    """Compile and run the server that answers at once; yield its address.

    Raises:
        HoneError: there is no C compiler, or the server doesn't come up.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise HoneError("no C compiler; install one with: apt-get install gcc libc6-dev")
    with tempfile.TemporaryDirectory(prefix="hone-generators-") as folder:
        program, port = Path(folder) / "instant", free_port()
        output_of([compiler, "-O2", "-o", program, SERVER], "the C compiler")
        process = subprocess.Popen([str(program), str(port)])
        try:
            _wait(port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()
            process.wait()


def _wait(port: int) -> None:
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            time.sleep(0.05)
    raise HoneError("the server that answers at once didn't come up")


def to_text(report: dict[str, Any]) -> str:
    """Return the comparison as lines; the ratios are what holds on another day."""
    where = f"{report['model']}: " if "model" in report else "a server that answers at once: "
    lines = [f"{where}{report['connections']} connections, {report['rounds']} rounds in turns ({report['machine']})"]
    for name, found in report["generators"].items():
        rate, p99 = found["rate_to_wrk"], found["p99_to_wrk"]
        core = "" if found["cpu_share"] is None else f", {found['cpu_share']:.0%} of a core"
        lines.append(
            f"  {name}: {found['rate']:,.0f} requests/s, {rate['median']:.2f} of wrk's ({rate['least']:.2f}-"
            f"{rate['most']:.2f}); p99 {found['p99_ms']:.2f} ms, {p99['median']:.2f} of wrk's{core}"
        )
    if "Locust's FastHttpUser" in report["generators"]:
        before, now = (report["generators"][name]["rate"] for name in ("Locust's FastHttpUser", "sender"))
        lines.append(f"  sender / FastHttpUser: {now / before:.1f} times")
    for found in report.get("lateness", []):
        lines.append(
            f"  open loop at {found['rate']:,.0f}/s: late by {found['late_p50_ms']:.3f} ms at p50, "
            f"{found['late_p99_ms']:.3f} ms at p99, {found['late_share']:.2%} over {LATE_MS:g} ms, "
            f"{found['cpu_share']:.0%} of a core; a process that only sleeps, {found['sleeper_p99_ms']:.3f} ms at p99"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
