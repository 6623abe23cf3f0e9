"""What tests of the locustfile share: its command, a service with two models, and what a run wrote."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone.services.launch import free_port
from tests.servers import HONE, ROOT, Server, put, server

LOCUST = [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py"]


class Locust:
    """Runs of `locust` in processes that need not import it again, which takes longer than most runs."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.forking"],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        variables = {name: value for name, value in os.environ.items() if name != "HONE_LOAD"}
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as folder:
            output = f"{folder}/run"
            asked = {"arguments": [*LOCUST[3:], *arguments], "environment": {**variables, **environment}}
            self._process.stdin.write(json.dumps({**asked, "output": output}) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            said = [Path(f"{output}.{name}").read_text() for name in ("out", "err")]
        return subprocess.CompletedProcess([*LOCUST, *arguments], status, *said)

    def end(self) -> None:
        self._process.communicate()


@contextmanager
def two_models(home: Path) -> Iterator[Server]:
    """Serve two models, without keys."""
    put(home, home / "one", "dense", "onnx-fp32-1")
    put(home, home / "two", "reverse", "onnx-fp32-1", seed=1)
    command = [HONE, "serve", "dense", "--and", "reverse", "--port", "{port}", "--grpc-port", str(free_port())]
    with server(command, home, PYTHONPATH=str(ROOT)) as running:
        yield running


def address(service: Server) -> str:
    return f"http://127.0.0.1:{service.port}"


def totals(prefix: Path) -> dict[str, tuple[int, int]]:
    """Return requests and failures by path of a run with --csv."""
    with Path(f"{prefix}_stats.csv").open() as stream:
        return {row["Name"]: (int(row["Request Count"]), int(row["Failure Count"])) for row in csv.DictReader(stream)}
