"""Hone's serving path beside other servers: `make bench-serving`, or `python -m benchmarks.serving.__main__`.

One machine, one worker each, the same ONNX file, the same rows, one compiled load generator. All servers are up at
once, stopped (SIGSTOP) but for the one that is measured; they take turns within each scenario, seconds apart, over
several rounds, because the speed of a shared machine drifts by more than what is compared. A report gives medians.
Every server's answers are compared with ONNX Runtime's before it is measured. A peer that doesn't run here is listed
with its error.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import httpx
import numpy as np
import orjson
import psutil

from hone import store
from hone.errors import HoneError
from hone.files import atomic_write
from hone.hardware import cores

from ..load.wire import Call
from ..peers import PEERS, Peer, environment, start
from ..peers.payloads import Inputs, call
from . import wrk

Server = contextlib.AbstractContextManager[str]

START_TIMEOUT_S = 90.0
BATCH_ROWS = 64


@dataclass(frozen=True)
class Workload:
    """What one model is asked.

    Attributes:
        model: name in the store.
        reference: of the artifact that all serve.
        threads: of ONNX Runtime in the peers; Hone measures its own.
        scenarios: (payload, connections).
        rows: makes so many rows.
        mixed: makes requests of several lengths, where the model takes such.
        tolerance: of answers, against ONNX Runtime's.
    """

    model: str
    reference: str
    threads: int
    scenarios: tuple[tuple[str, int], ...]
    rows: Callable[[int], Inputs]
    mixed: Callable[[], list[Inputs]] | None = None
    tolerance: float = 1e-3


def digits_rows(count: int) -> Inputs:
    return {"image": np.random.default_rng(0).random((count, 1, 8, 8)).astype(np.float32)}


def text_rows(count: int, tokens: int = 32, seed: int = 0) -> Inputs:
    ids = np.random.default_rng(seed).integers(1000, 29000, (count, tokens))
    ids[:, 0], ids[:, -1] = 101, 102
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def mixed_texts() -> list[Inputs]:
    """Return 96 texts of 8 to 256 tokens, short ones more often, as real texts are."""
    lengths = np.exp(np.random.default_rng(1).uniform(np.log(8), np.log(256), 96)).round().astype(int)
    return [text_rows(1, int(length), seed) for seed, length in enumerate(lengths)]


DIGITS = Workload(
    "digits",
    "digits:onnx-int8-static",
    1,
    (
        *(("binary-1", connections) for connections in (1, 8, 32, 128)),
        *(("json-1", connections) for connections in (1, 8, 32, 128)),
        ("binary-64", 8),
    ),
    digits_rows,
)
MINILM = Workload(
    "minilm",
    "minilm:onnx-int8-dynamic",
    cores(),
    (("binary-1", 32), ("mixed-1", 32)),
    text_rows,
    mixed_texts,
    0.15,
)
WORKLOADS = {"digits": DIGITS, "minilm": MINILM}


def calls_of(server: str, workload: Workload, payload: str) -> list[tuple[Call, Callable[..., np.ndarray], Inputs]]:
    """Return a server's requests of a payload; none when it doesn't offer it."""
    kind = payload.replace("mixed", "binary")
    if payload.startswith("mixed"):
        requests = workload.mixed() if workload.mixed is not None else []
    else:
        requests = [workload.rows(int(payload.partition("-")[2]))]
    made = [(call(server, workload.model, inputs, kind), inputs) for inputs in requests]
    return [(found[0], found[1], inputs) for found, inputs in made if found is not None]


@contextlib.contextmanager
def hone_server(workload: Workload) -> Iterator[str]:
    from hone.services.launch import running

    with running(workload.reference) as url:
        yield url


@contextlib.contextmanager
def peer_server(peer: Peer, python: Path, model: Path, workload: Workload, folder: Path) -> Iterator[str]:
    """Run a peer and yield its address when it is ready.

    Raises:
        HoneError: it doesn't become ready; the message is the last line of its log.
    """
    from hone.services.launch import free_port

    port = free_port()
    process = start(peer, python, model, port, workload.threads, folder)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(url + peer.ready_path):
            if process.poll() is not None or time.monotonic() > deadline:
                raise HoneError(_reason((folder / f"{peer.name}.log").read_text(errors="replace")))
            time.sleep(0.2)
        yield url
    finally:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(Exception):
                process.wait(8)


def _reason(log: str) -> str:
    """Return the last error that a log names, else its last line."""
    log = log.replace("\\n", "\n")  # some servers log a whole traceback as one quoted line
    named = re.findall(r"\b\w*(?:Error|Exception): [^\n]+", log)
    lines = [line for line in log.splitlines() if line.strip()]
    return str(named[-1] if named else lines[-1] if lines else "it printed nothing")[:300]


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


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
        if (
            found.shape != expected.shape
            or np.abs(found - expected).max() > workload.tolerance * np.abs(expected).max()
        ):
            raise HoneError(f"{server} answers other numbers than ONNX Runtime")


@dataclass(frozen=True)
class Standing:
    """A server that is up, and stopped until its turn comes.

    Attributes:
        name: in reports.
        url: where it listens.
        root: its first process.
    """

    name: str
    url: str
    root: psutil.Process

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.signal(signal.SIGSTOP)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server's whole tree of processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for process in [self.root, *self.root.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)


def measure(
    server: str, url: str, workload: Workload, scenario: tuple[str, int], seconds: float, session: Any
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
    rows = int(payload.partition("-")[2])
    return _run(server, workload.model, payload, connections, found.rps, rows, asdict(found))


def _run(
    server: str, model: str, payload: str, connections: int, rps: float, rows: int, found: dict[str, Any]
) -> dict[str, Any]:
    return {
        "server": server, "model": model, "payload": payload, "connections": connections, "rps": round(rps, 1),
        "rows_per_s": round(rps * rows, 1), "p50_ms": found["p50_ms"], "p99_ms": found["p99_ms"],
        "errors": found["errors"],
    }  # fmt: skip


IN_PROCESS = {("binary-1", 1): 1, ("binary-1", 32): 32, ("binary-64", 8): BATCH_ROWS}
"""Rows of the batch that a server can make of a scenario, for those that ONNX Runtime is measured in without one."""


def in_process(workload: Workload, scenario: tuple[str, int], session: Any, seconds: float) -> list[dict[str, Any]]:
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
    return [_run("in-process", workload.model, *scenario, len(timings) / sum(timings), rows, found)]


def median_runs(measured: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one run a scenario: the median of each figure, the sum of the errors."""
    grouped: dict[tuple[str, str, str, int], list[dict[str, Any]]] = {}
    for run in measured:
        key = (run["server"], run["model"], run["payload"], run["connections"])
        grouped.setdefault(key, []).append(run)
    figures = ("rps", "rows_per_s", "p50_ms", "p99_ms")
    return [
        {
            **dict(zip(("server", "model", "payload", "connections"), key, strict=True)),
            **{figure: round(statistics.median(run[figure] for run in runs), 3) for figure in figures},
            "errors": sum(run["errors"] for run in runs),
            "rounds": len(runs),
        }
        for key, runs in grouped.items()
    ]


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True)
@click.option("--model", "models", multiple=True, type=click.Choice(sorted(WORKLOADS)), help="Default: all.")
@click.option("--server", "servers", multiple=True, help="Only these, by name. Default: all.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--seconds", type=click.FloatRange(1), default=3.0, show_default=True, help="Of each measurement.")
@click.option("--peers", "root", type=click.Path(path_type=Path), default=Path("out/peers"), show_default=True)
def main(out: Path, models: Sequence[str], servers: Sequence[str], rounds: int, seconds: float, root: Path) -> None:
    """Measure Hone and its peers side by side; write serving.json and serving.md."""
    try:
        report = compare([WORKLOADS[name] for name in models or WORKLOADS], set(servers), rounds, seconds, root)
    except HoneError as error:
        raise click.ClickException(str(error)) from error
    atomic_write(out / "serving.json", orjson.dumps(report, option=orjson.OPT_INDENT_2))
    from .report import to_markdown

    text = to_markdown(report)
    atomic_write(out / "serving.md", text)
    click.echo(text)


def compare(
    workloads: Sequence[Workload], servers: set[str], rounds: int, seconds: float, root: Path
) -> dict[str, Any]:
    """Return the report: the machine, each server's settings, medians, and what did not run."""
    from hone.hardware import cpu_name

    measured: list[dict[str, Any]] = []
    problems: dict[tuple[str, str], str] = {}
    pythons = _environments(servers, root, problems)
    with tempfile.TemporaryDirectory(prefix="hone-bench-") as scratch:
        for workload in workloads:
            measured += _compare(workload, servers, pythons, rounds, seconds, Path(scratch), problems)
    return {
        "schema": 1,
        "machine": f"{cpu_name()}, {cores()} cores",
        "seconds": seconds,
        "rounds": rounds,
        "generator": "wrk, one thread, on the same machine",
        "settings": {"hone": "as served by default: batching, checks and metrics on"}
        | {peer.name: peer.settings for peer in PEERS},
        "runs": median_runs(measured),
        "not_run": [{"server": server, "model": model, "error": text} for (server, model), text in problems.items()],
    }


def _environments(servers: set[str], root: Path, problems: dict[tuple[str, str], str]) -> dict[str, Path]:
    pythons: dict[str, Path] = {}
    for peer in PEERS:
        if servers and peer.name not in servers:
            continue
        click.echo(f"environment of {peer.name}", err=True)
        try:
            pythons[peer.name] = environment(peer, root.resolve())
        except HoneError as error:
            problems[peer.name, "*"] = str(error)
    return pythons


def _compare(
    workload: Workload,
    servers: set[str],
    pythons: dict[str, Path],
    rounds: int,
    seconds: float,
    folder: Path,
    problems: dict[tuple[str, str], str],
) -> list[dict[str, Any]]:
    """Measure one workload on every server, in turns."""
    import onnxruntime as ort

    artifact = store.resolve(workload.reference).opened()
    options = ort.SessionOptions()
    options.intra_op_num_threads = workload.threads
    session = ort.InferenceSession(str(artifact.entry), options)
    found: list[dict[str, Any]] = []

    def take(name: str, url: str, scenario: tuple[str, int]) -> None:
        if (name, workload.model) in problems:
            return
        try:
            run = measure(name, url, workload, scenario, seconds, session)
        except HoneError as error:
            problems[name, workload.model] = str(error)
            return
        if run is not None:
            found.append(run)
            click.echo(_line(run), err=True)

    def opener(peer: Peer) -> Server:
        return peer_server(peer, pythons[peer.name], artifact.entry, workload, folder)

    chosen = [peer for peer in PEERS if peer.name in pythons]
    with contextlib.ExitStack() as stack:
        standing: list[Standing] = []
        if not servers or "hone" in servers:
            standing += _stand("hone", hone_server(workload), workload, stack, problems)
        for peer in chosen:
            if peer.pausable:
                standing += _stand(peer.name, opener(peer), workload, stack, problems)
        for number in range(rounds):
            shift = number % max(1, len(standing))
            for scenario in workload.scenarios:
                if not servers or "in-process" in servers:
                    found += in_process(workload, scenario, session, seconds)
                for server in standing[shift:] + standing[:shift]:
                    with server.awake():
                        take(server.name, server.url, scenario)
            for peer in chosen:
                if peer.pausable or (peer.name, workload.model) in problems:
                    continue
                try:
                    with opener(peer) as url:
                        for scenario in workload.scenarios:
                            take(peer.name, url, scenario)
                except HoneError as error:
                    problems[peer.name, workload.model] = str(error)
    return found


def _stand(
    name: str, server: Server, workload: Workload, stack: contextlib.ExitStack, problems: dict[tuple[str, str], str]
) -> list[Standing]:
    """Start a server and stop it until its turn; return nothing, and note why, when it doesn't start."""
    click.echo(f"starting {name}", err=True)
    this = psutil.Process()
    before = {child.pid for child in this.children()}
    try:
        url = stack.enter_context(server)
    except HoneError as error:
        problems[name, workload.model] = str(error)
        return []
    root = next(child for child in this.children() if child.pid not in before)
    standing = Standing(name, url, root)
    standing.signal(signal.SIGSTOP)
    stack.callback(standing.signal, signal.SIGCONT)
    return [standing]


def _line(run: dict[str, Any]) -> str:
    where = f"{run['server']:10} {run['model']:7} {run['payload']:9} {run['connections']:4} connections"
    return f"{where} {run['rps']:9,.0f}/s p50 {run['p50_ms']:8.2f} p99 {run['p99_ms']:8.2f} ms"


if __name__ == "__main__":
    sys.exit(main())
