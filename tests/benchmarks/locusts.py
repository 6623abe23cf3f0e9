"""What tests of the locustfile share: its command, a service with two models, and what a run wrote."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hone.services.launch import free_port
from tests.servers import HONE, ROOT, Server, put, server

LOCUST = [sys.executable, "-m", "locust", "-f", "benchmarks/locustfile.py"]


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
