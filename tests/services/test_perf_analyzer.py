"""NVIDIA's perf_analyzer against a service: docs/serving.md says how to install it."""

from __future__ import annotations

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone.services.access.api_keys import add_key
from hone.services.launch import free_port
from tests.servers import HONE, ROOT, Server, put, server

PROGRAM = os.environ.get("HONE_TEST_PERF_ANALYZER") or shutil.which("perf_analyzer")
pytestmark = pytest.mark.skipif(not PROGRAM, reason="no perf_analyzer; HONE_TEST_PERF_ANALYZER names it")

SERVER_SIDE = re.compile(
    r"Inference count: (\d+)\s+Execution count: (\d+)\s+Successful request count: (\d+)\s+"
    r"Avg request latency: \d+ usec \(overhead \d+ usec \+ queue \d+ usec \+ compute input \d+ usec "
    r"\+ compute infer (\d+) usec \+ compute output \d+ usec\)"
)


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, grpc_port: int) -> Iterator[tuple[Server, str]]:
    """A model in two workers, and a key for it."""
    home = tmp_path_factory.mktemp("shop")
    put(home, home / "one", "dense", "onnx-fp32-1")
    key = add_key(home / "keys.yaml", "all", ("predict",))
    command = [HONE, "serve", "dense", "--port", "{port}", "--workers", "2", "--grpc-port", str(grpc_port),
               "--api-keys", str(home / "keys.yaml")]  # fmt: skip
    with server(command, home, PYTHONPATH=str(ROOT)) as running:
        yield running, key


@pytest.mark.parametrize(
    "options",
    [
        ["-i", "http", "--concurrency-range", "1:4"],
        ["-i", "http", "--concurrency-range", "2", "--input-tensor-format", "json", "-b", "3"],
        ["-i", "grpc", "--concurrency-range", "1:4:3", "--async"],
    ],
    ids=["http", "json", "grpc"],
)
def test_it_measures_and_shows_where_the_time_went(
    service: tuple[Server, str], grpc_port: int, tmp_path: Path, options: list[str]
) -> None:
    running, key = service
    port = grpc_port if "grpc" in options else running.port
    table = tmp_path / "table.csv"
    # A share of 999 % calls every measurement stable: this asks for what is shown, not for how fast it is.
    done = subprocess.run(
        [str(PROGRAM), "-m", "dense", "-u", f"127.0.0.1:{port}", *options, "-H", f"x-api-key:{key}",
         "--measurement-interval", "500", "--stability-percentage", "999", "-f", str(table)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    levels = {"1:4": 4, "2": 1, "1:4:3": 2}[options[3]]
    shown = SERVER_SIDE.findall(done.stdout)
    assert len(shown) == levels, done.stdout
    each = 3 if "-b" in options else 1
    for rows, executions, requests, computing in (map(int, found) for found in shown):
        # Not the same to the last: of the other worker it sees what that said up to a quarter second ago.
        assert requests > 50
        assert 0.5 < rows / (requests * each) < 2
        assert 0 < executions <= rows
        assert computing > 0
    with table.open() as stream:
        lines = list(csv.DictReader(stream))
    assert len(lines) == levels
    assert all(int(line["Server Compute Infer"]) > 0 for line in lines)
