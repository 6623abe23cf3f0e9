"""Hone's serving path beside other servers: `make bench-serving`, or `python -m benchmarks.serving`.

One machine, one worker each, the same ONNX file, the same rows, one compiled load generator. All servers are up at
once, stopped (SIGSTOP) but for the one that is measured; they take turns within each scenario, seconds apart, over
several rounds, because the speed of a shared machine drifts by more than what is compared. A report gives medians.
Every server's answers are compared with ONNX Runtime's before it is measured. A peer that doesn't run here is listed
with its error.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import onnxruntime as ort
import orjson

from hone import store
from hone.errors import HoneError, did_you_mean
from hone.files import atomic_write
from hone.hardware import cores, cpu_name

from ..made import made
from ..peers import description
from ..peers.description import Peer, Server
from ..peers.environment import environment
from . import wrk
from .measure import in_process, line, measure, median_runs
from .report import to_markdown
from .servers import Opened, Standing, hone_server, peer_server, standing
from .workloads import WORKLOADS, Scenario, Workload


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
    text = to_markdown(report)
    atomic_write(out / "serving.md", text)
    click.echo(text)


def compare(
    workloads: Sequence[Workload], servers: set[str], rounds: int, seconds: float, root: Path
) -> dict[str, Any]:
    """Return the report: the machine, each server's settings, medians, and what did not run.

    Args:
        workloads: what is asked.
        servers: names of those that are measured, `hone` and `in-process` among them; empty: all.
        rounds: of all scenarios.
        seconds: of each measurement.
        root: folder of the peers' environments.

    Raises:
        HoneError: no server has such a name, wrk is missing, the store lacks a model, or a peer's description is wrong.
    """
    known = ["hone", "in-process", *(peer.name for peer in description.servers())]
    for name in servers - set(known):
        raise HoneError(f"--server: no '{name}'{did_you_mean(name, known)}")
    wrk.require()
    problems: dict[tuple[str, str], str] = {}
    chosen = _installed(servers, root, problems)
    measured: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="hone-bench-") as scratch:
        for workload in workloads:
            turns = Turns(workload, servers, chosen, seconds, Path(scratch), problems)
            turns.take(rounds)
            measured += turns.runs
    return {
        "schema": 1,
        **made("benchmarks.serving"),
        "machine": f"{cpu_name()}, {cores()} cores",
        "seconds": seconds,
        "rounds": rounds,
        "generator": "wrk, one thread, on the same machine",
        "settings": {"hone": "as served by default: batching, checks and metrics on"}
        | {peer.name: peer.about.settings for peer in description.servers()},
        "runs": median_runs(measured),
        "not_run": [{"server": server, "model": model, "error": text} for (server, model), text in problems.items()],
    }


def _installed(
    servers: set[str], root: Path, problems: dict[tuple[str, str], str]
) -> dict[str, tuple[Peer[Server], Path]]:
    """Return the chosen peers with the Python of each one's environment, by name; note those that have none."""
    found: dict[str, tuple[Peer[Server], Path]] = {}
    for peer in description.servers():
        if servers and peer.name not in servers:
            continue
        click.echo(f"environment of {peer.name}", err=True)
        try:
            found[peer.name] = peer, environment(peer, root.resolve())
        except HoneError as error:
            problems[peer.name, "*"] = str(error)
    return found


@dataclass
class Turns:
    """One workload on every server, in turns.

    Attributes:
        workload: what is asked.
        servers: names of those that are measured; empty: all.
        peers: with the Python of each one's environment.
        seconds: of each measurement.
        folder: for what servers write.
        problems: why a server did not run, by its name and the model's; one that is there gets no further turn.
        runs: what was measured.
    """

    workload: Workload
    servers: set[str]
    peers: dict[str, tuple[Peer[Server], Path]]
    seconds: float
    folder: Path
    problems: dict[tuple[str, str], str]
    runs: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._entry = store.resolve(self.workload.reference).opened().entry
        options = ort.SessionOptions()
        options.intra_op_num_threads = self.workload.threads
        self._session = ort.InferenceSession(str(self._entry), options)

    def take(self, rounds: int) -> None:
        """Measure every scenario so many times, each round beginning with another server."""
        with contextlib.ExitStack() as stack:
            up = self._start(stack)
            for number in range(rounds):
                shift = number % max(1, len(up))
                self._together(up[shift:] + up[:shift])
                self._alone()

    def _start(self, stack: contextlib.ExitStack) -> list[Standing]:
        """Start all servers that can be stopped between their turns; note those that don't start."""
        opened: dict[str, Opened] = {}
        if self._wanted("hone"):
            opened["hone"] = hone_server(self.workload)
        opened |= {name: self._open(name) for name, (peer, _) in self.peers.items() if peer.about.pausable}
        up = []
        for name, server in opened.items():
            click.echo(f"starting {name}", err=True)
            try:
                up.append(stack.enter_context(standing(name, server)))
            except HoneError as error:
                self.problems[name, self.workload.model] = str(error)
        return up

    def _together(self, up: Sequence[Standing]) -> None:
        for scenario in self.workload.scenarios:
            if self._wanted("in-process"):
                self.runs += in_process(self.workload, scenario, self._session, self.seconds)
            for server in up:
                with server.awake():
                    self._measure(server.name, server.url, scenario)

    def _alone(self) -> None:
        """Measure the servers that can't be stopped, each from its start to its end."""
        for name, (peer, _) in self.peers.items():
            if peer.about.pausable or (name, self.workload.model) in self.problems:
                continue
            try:
                with self._open(name) as url:
                    for scenario in self.workload.scenarios:
                        self._measure(name, url, scenario)
            except HoneError as error:
                self.problems[name, self.workload.model] = str(error)

    def _measure(self, name: str, url: str, scenario: Scenario) -> None:
        if (name, self.workload.model) in self.problems:
            return
        try:
            run = measure(name, url, self.workload, scenario, self.seconds, self._session)
        except HoneError as error:
            self.problems[name, self.workload.model] = str(error)
            return
        if run is not None:
            self.runs.append(run)
            click.echo(line(run), err=True)

    def _open(self, name: str) -> Opened:
        peer, python = self.peers[name]
        return peer_server(peer, python, self._entry, self.workload.threads, self.folder)

    def _wanted(self, name: str) -> bool:
        return not self.servers or name in self.servers


if __name__ == "__main__":
    main()
