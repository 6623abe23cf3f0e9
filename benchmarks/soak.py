"""Does a service hold out: memory over a million requests, and the tail under a steady load for minutes.

`make bench-soak`, or `python -m benchmarks.soak`. Generators: wrk for the million, h2load at a fixed rate for the tail.
The rate is a share of what wrk reached in the same run.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson
import psutil

from hone.errors import HoneError
from hone.files import atomic_write
from hone.hardware import cores, cpu_name
from hone.processes import why_failed

from .peers.payloads import call
from .serving import wrk
from .serving.__main__ import digits_rows

CONNECTIONS = 32
STEADY_CLIENTS = 8


@dataclass
class Memory:
    """Watches the resident memory of a server's workers, MiB, a sample a second."""

    pids: list[int]
    samples: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Memory:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        processes = [psutil.Process(pid) for pid in self.pids]
        while not self._stop.wait(1.0):
            self.samples.append(sum(process.memory_info().rss for process in processes) / 2**20)


@dataclass
class Hiccups:
    """Watches how late this machine wakes a thread that only sleeps, ms: what no server on it could avoid."""

    late_ms: list[float] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Hiccups:
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.is_set():
            before = time.perf_counter()
            time.sleep(0.002)
            self.late_ms.append((time.perf_counter() - before - 0.002) * 1e3)


def million(url: str, requests: int, pids: list[int]) -> tuple[dict[str, Any], float]:
    """Send so many requests in ten parts; return the report and the rate that was reached."""
    made = _request()
    wrk.load(url, [made], CONNECTIONS, 5)
    rate = wrk.load(url, [made], CONNECTIONS, 5).rps
    sent, errors, marks = 0, 0, []
    with Memory(pids) as memory:
        while sent < requests:
            part = wrk.load(url, [made], CONNECTIONS, max(2.0, requests / 10 / rate))
            sent, errors = sent + part.requests, errors + part.errors
            time.sleep(1.1)
            marks.append({"requests": sent, "mib": round(memory.samples[-1], 1)})
            click.echo(f"{sent:>10,} requests, {marks[-1]['mib']:.1f} MiB", err=True)
    growth = marks[-1]["mib"] - marks[0]["mib"]
    report = {"requests": sent, "errors": errors, "marks": marks, "growth_mib": round(growth, 2), "rps": round(rate, 1)}
    return report, rate


def steady(url: str, rate: float, minutes: float) -> dict[str, Any]:
    """Send at a fixed rate; return percentiles of every request's time.

    Raises:
        HoneError: h2load is missing or fails.
    """
    if shutil.which("h2load") is None:
        raise HoneError("h2load is not installed; install it with: apt-get install nghttp2-client")
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
        with Hiccups() as hiccups:
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not log.exists():
            raise HoneError(f"h2load failed: {why_failed(done.stderr or done.stdout)}")
        records = np.loadtxt(log, dtype=np.int64, ndmin=2)
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
        "host_hiccup_p999_ms": round(float(np.percentile(hiccups.late_ms, 99.9)), 3),
        "host_hiccup_max_ms": round(max(hiccups.late_ms), 3),
    }


def _request() -> Any:
    made = call("hone", "digits", digits_rows(1), "binary-1")
    assert made is not None
    return made[0]


def _workers() -> list[int]:
    """Return the server's worker processes: descendants of this one."""
    children = psutil.Process().children(recursive=True)
    return [child.pid for child in children if "_bentoml_impl.worker.service" in " ".join(child.cmdline())]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
@click.option("--requests", type=click.IntRange(1), default=1_000_000, show_default=True)
@click.option("--minutes", type=click.FloatRange(0.05), default=10.0, show_default=True)
@click.option(
    "--load", "share", type=click.FloatRange(0.05, 1), default=0.7, show_default=True, help="Of the capacity."
)
def main(out: Path, requests: int, minutes: float, share: float) -> None:
    """Soak the digits service; write soak.json."""
    from hone.services.launch import running

    try:
        with running("digits:onnx-int8-static") as url:
            volume, rate = million(url, requests, _workers())
            tail = steady(url, share * rate, minutes)
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    report = {"schema": 1, "machine": f"{cpu_name()}, {cores()} cores", "memory": volume, "steady": tail}
    atomic_write(out / "soak.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    click.echo(orjson.dumps({**tail, "growth_mib": volume["growth_mib"]}).decode())


if __name__ == "__main__":
    main()
