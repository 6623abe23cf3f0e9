"""Does a service hold out: memory over a million requests, and the tail under a steady load for minutes.

`make bench-soak`, or `python -m benchmarks.soak`. Generators: wrk for the million, h2load at a fixed rate for the tail.
The rate is a share of what wrk reached in the same run.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
import psutil

from hone.errors import HoneError
from hone.files import atomic_write
from hone.hardware import cores, cpu_name
from hone.processes import output_of
from hone.services.launch import running

from .load.wire import Call
from .made import made
from .peers.payloads import call
from .sampling import sampled
from .serving import wrk
from .serving.workloads import digits_rows

CONNECTIONS = 32
STEADY_CLIENTS = 8


def million(url: str, requests: int, pids: list[int]) -> tuple[dict[str, Any], float]:
    """Send so many requests in ten parts; return the report, and the requests a second that were reached.

    Args:
        pids: of the server's workers, whose resident memory is watched, MiB.

    Raises:
        HoneError: wrk is missing or fails.
    """
    made = _request()
    wrk.load(url, [made], CONNECTIONS, 5)
    rate = wrk.load(url, [made], CONNECTIONS, 5).rps
    sent, errors, marks, rates = 0, 0, [], []
    workers = [psutil.Process(pid) for pid in pids]
    with sampled(lambda: sum(worker.memory_info().rss for worker in workers) / 2**20, 1.0) as memory:
        while sent < requests:
            part = wrk.load(url, [made], CONNECTIONS, max(2.0, requests / 10 / rate))
            sent, errors = sent + part.requests, errors + part.errors
            rates.append(part.rps)
            time.sleep(1.1)  # a sample later
            marks.append({"requests": sent, "mib": round(memory[-1], 1)})
            click.echo(f"{sent:>10,} requests, {marks[-1]['mib']:.1f} MiB", err=True)
    growth = marks[-1]["mib"] - marks[0]["mib"]
    low, middle, high = (round(float(value), 1) for value in np.percentile(rates, (25, 50, 75)))
    report = {
        "requests": sent, "errors": errors, "marks": marks, "growth_mib": round(growth, 2), "rps": round(rate, 1),
        "parts": len(rates), "rps_median": middle, "rps_quartiles": [low, high],
    }  # fmt: skip
    return report, rate


def steady(url: str, rate: float, minutes: float) -> dict[str, Any]:
    """Send at a fixed rate; return percentiles of every request's time.

    Args:
        rate: requests a second.

    Raises:
        HoneError: h2load fails.
    """
    made = _request()
    each = max(1, round(rate / STEADY_CLIENTS))
    with tempfile.TemporaryDirectory(prefix="hone-soak-") as folder:
        body, log = Path(folder) / "body", Path(folder) / "log"
        body.write_bytes(made.body)
        headers = [f"-H{name}: {value}" for name, value in made.headers.items()]
        command = [
            "h2load", "--h1", "-t1", f"-c{STEADY_CLIENTS}", f"--rps={each}", f"-D{round(minutes * 60)}",
            "-d", str(body), *headers, f"--log-file={log}", url + made.path,
        ]  # fmt: skip
        with sampled(_lateness) as late_ms:
            output_of(command, "h2load")
        records = np.loadtxt(log, dtype=np.int64, ndmin=2) if log.exists() else np.empty((0, 3), np.int64)
    if not len(records):
        raise HoneError("h2load sent nothing")
    milliseconds = records[:, 2] / 1e3
    p50, p99, p999 = (float(np.percentile(milliseconds, share)) for share in (50, 99, 99.9))
    return {
        "rate": each * STEADY_CLIENTS,
        "minutes": minutes,
        "requests": len(records),
        "errors": int((records[:, 1] != 200).sum()),
        "p50_ms": round(p50, 3),
        "p99_ms": round(p99, 3),
        "p999_ms": round(p999, 3),
        "max_ms": round(float(milliseconds.max()), 3),
        "p999_over_p50": round(p999 / p50, 2),
        "host_hiccup_p999_ms": round(float(np.percentile(late_ms, 99.9)), 3),
        "host_hiccup_max_ms": round(max(late_ms), 3),
    }


def _lateness() -> float:
    """Return how late this machine wakes a thread that only sleeps, ms: what no server on it could avoid."""
    before = time.perf_counter()
    time.sleep(0.002)
    return (time.perf_counter() - before - 0.002) * 1e3


def _request() -> Call:
    made = call("hone", "digits", digits_rows(1), "binary-1")
    assert made is not None
    return made[0]


def _workers() -> list[int]:
    """Return the server's worker processes: descendants of this one."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "hone.services.worker" in " ".join(child.cmdline())]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
@click.option("--requests", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.05), default=10.0, show_default=True)
@click.option(
    "--load", "share", type=click.FloatRange(0.05, 1), default=0.7, show_default=True, help="Of the capacity."
)
def main(out: Path, requests: int, minutes: float, share: float) -> None:
    """Soak the digits service; write soak.json."""
    if shutil.which("h2load") is None:  # before a million requests, not after them
        raise click.ClickException("h2load is not installed; install it with: apt-get install nghttp2-client")
    try:
        with running("digits:onnx-int8-static") as url:
            volume, rate = million(url, requests, _workers())
            tail = steady(url, share * rate, minutes)
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    machine = f"{cpu_name()}, {cores()} cores"
    report = {"schema": 1, **made("benchmarks.soak"), "machine": machine, "memory": volume, "steady": tail}
    atomic_write(out / "soak.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    click.echo(orjson.dumps({**tail, "growth_mib": volume["growth_mib"]}).decode())


if __name__ == "__main__":
    main()
