"""`locust -f benchmarks/locustfile.py` and `hone bench --url`, as people call them, against real services."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hone.benchmarks.load.wire import GRPC_METHOD
from hone.cli.main import cli
from hone.services.launch import free_port
from tests.benchmarks.locusts import LOCUST, Locust, address, totals, two_models
from tests.servers import HONE, ROOT, Server, put, self_signed, server

PLAIN = "/models/dense/predict"
QUICK = ["--headless", "-r", "100", "-t", "1s", "--only-summary"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with two_models(tmp_path_factory.mktemp("plain")) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """A service with TLS and a key: its address, the key, the certificate."""
    home = tmp_path_factory.mktemp("guarded")
    put(home, home / "one", "dense", "onnx-fp32-1")
    certificate, secret = self_signed(home)
    made = subprocess.run(
        [HONE, "keys", "new", "ci", "--file", str(home / "keys.yaml")], check=True, capture_output=True, text=True
    )
    key = made.stdout.strip()
    command = [HONE, "serve", "dense", "--port", "{port}", "--api-keys", str(home / "keys.yaml"),
               "--grpc-port", str(free_port()),
               "--ssl-certfile", str(certificate), "--ssl-keyfile", str(secret)]  # fmt: skip
    with server(command, home, scheme="https", PYTHONPATH=str(ROOT)) as running:
        yield f"https://localhost:{running.port}", key, certificate


def call(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    variables.pop("HONE_LOAD", None)
    return subprocess.run(
        list(arguments), cwd=folder, env=variables, capture_output=True, text=True, timeout=120, check=False
    )


def plain(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run locust as it is typed."""
    return call(*LOCUST, *arguments, folder=ROOT)


@pytest.fixture(scope="module")
def locust() -> Iterator[Locust]:
    ready = Locust()
    yield ready
    ready.end()


def test_plain_command_loads_what_the_service_serves(service: Server, tmp_path: Path) -> None:
    wanted = ["--host", address(service), *QUICK, "-u", "3", "--html", str(tmp_path / "run.html"), "--max-errors", "0"]
    said, found = until_sent(plain, tmp_path, {PLAIN, "Aggregated"}, *wanted)
    assert '{"JsonUser": 3}' in said
    assert found[PLAIN][1] == 0
    assert "/models/dense/predict" in (tmp_path / "run.html").read_text()


def test_every_protocol_is_answered(service: Server, locust: Locust, tmp_path: Path) -> None:
    users = ["JsonUser", "RowsUser", "V2JsonUser", "V2BinaryUser", "GrpcUser", "ArrowUser"]
    prefix = "/models/reverse/versions/onnx-fp32-1"
    paths = {f"{prefix}/predict", f"/v2{prefix}/infer", GRPC_METHOD, "Aggregated"}
    wanted = ["--host", address(service), *QUICK, "-u", "6", "--model", "reverse:onnx-fp32", "--rows", "3"]
    said, found = until_sent(locust, tmp_path, paths, *wanted, *users)
    assert f"{{{', '.join(f'{json.dumps(name)}: 1' for name in sorted(users))}}}" in said
    assert all(requests > 5 and not failures for requests, failures in found.values())


def until_sent(
    locust: Callable[..., subprocess.CompletedProcess[str]], folder: Path, paths: set[str], *arguments: str
) -> tuple[str, dict[str, tuple[int, int]]]:
    """Run locust; where a busy machine takes longer to import what users need, again and for longer.

    Returns:
        What it says, and requests and failures by path.
    """
    for seconds in (2, 5, 10, 30):
        done = locust(*arguments, "-t", f"{seconds}s", "--csv", str(folder / "run"))
        found = totals(folder / "run")
        if set(found) == paths and min(requests for requests, _ in found.values()) > 5:
            break
    assert done.returncode == 0, done.stderr
    assert set(found) == paths
    return done.stderr, found


def test_load_is_spread_over_processes(service: Server, tmp_path: Path) -> None:
    wanted = ["--host", address(service), *QUICK, "-u", "4", "--processes", "2", "--protocol", "rows"]
    _, found = until_sent(plain, tmp_path, {PLAIN, "Aggregated"}, *wanted)
    assert found[PLAIN][1] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "line"),
    [
        (["--p99", "1s"], 0, ""),
        (["--p99", "0.0001ms", "-u", "20"], 1, "the limit is 0.0001 ms"),
        (["--data", "{bad}", "--max-errors", "0.9"], 0, ""),
        (["--data", "{bad}", "--max-errors", "0.01"], 1, "of the requests failed, the limit is 1.00%"),
        (["--model", "nope"], 1, "serves no model 'nope'; valid: dense, reverse"),
        (["--model", "dense:nope"], 1, "was asked for dense:nope, which it doesn't serve; there is dense:onnx-fp32-1"),
        (["--host", "http://127.0.0.1:9"], 1, "http://127.0.0.1:9: no service answers"),
        (["--protocol", "grpc", "--grpc-address", "127.0.0.1:9"], 1, "grpc://127.0.0.1:9: no gRPC service answers"),
        (["--protocol", "grpc", "--grpc-address", "host"], 1, "--grpc-address host: write HOST:PORT"),
        (["--data", "{bad}", "--errors", "0.01"], 1, "of the requests failed, the limit is 1.00%"),
        (["--p99", "soon"], 2, "argument --p99: 'soon' is no duration; write 50ms or 0.2s"),
    ],
)
def test_exit_status_says_whether_limits_held(
    service: Server, locust: Locust, tmp_path: Path, arguments: list[str], status: int, line: str
) -> None:
    rows = np.ones((8, 4), np.float32)
    rows[::4] = np.nan  # the model takes no missing values
    np.savez(tmp_path / "bad.npz", features=rows)
    given = [argument.format(bad=tmp_path / "bad.npz") for argument in arguments]
    done = locust("--host", address(service), *QUICK, *given)
    assert done.returncode == status, done.stderr
    assert line in done.stderr
    assert "Traceback" not in done.stderr


def test_options_are_listed() -> None:
    done = call(sys.executable, "-m", "hone.benchmarks.locustfile", "--help", folder=ROOT)
    assert done.returncode == 0
    for option in (
        "--protocol",
        "--model",
        "--rows",
        "--data",
        "--api-key",
        "--ca",
        "--p99",
        "--max-errors",
        "--errors",
    ):
        assert option in done.stdout


def bench(*arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A run of a second; the tests share their machine with others, which no generator is in time on."""
    quick = [] if "capacity" in arguments else ["--max-late", "100%"]
    return call(HONE, "bench", *arguments, *quick, "--duration", "1", folder=folder, **environment)


def refused(*arguments: str) -> str:
    """Return the one line that `hone bench` ends with, before any load."""
    answer = CliRunner().invoke(cli, ["bench", *arguments], catch_exceptions=False)
    assert answer.exit_code == 1
    (line,) = answer.output.splitlines()
    return line


def test_bench_loads_and_reports_the_model_that_is_named(service: Server, tmp_path: Path) -> None:
    """The host's own store is empty: everything is asked of the service."""
    before = service.client.get("/metrics").text
    done = bench("reverse", "--url", address(service), "--users", "2", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "reverse" / "load.json").read_text())
    said = service.client.get("/v2/models/reverse").json()["parameters"]
    assert (report["model"], report["digest"]) == ("reverse:onnx-fp32-1", said["digest"])
    assert len(report["digest"]) == 64
    assert report["errors"] == 0
    assert answered(service.client.get("/metrics").text, "dense") == answered(before, "dense")
    again = bench("reverse", "--url", address(service), "--baseline", "out/reverse/load.json", "--tolerance", "10000%",
                  "--out", "again", "--p99", "0.0001ms", folder=tmp_path)  # fmt: skip
    assert again.returncode == 3, again.stderr
    assert "error: missed: p99_ms" in again.stderr
    assert json.loads((tmp_path / "again" / "load.json").read_text())["scenario"]["users"] == 2


def answered(metrics: str, model: str) -> float:
    lines = [line for line in metrics.splitlines() if line.startswith(f'hone_requests_total{{model="{model}"')]
    return sum(float(line.split()[-1]) for line in lines)


def test_bench_over_grpc_says_so_and_compares_with_nothing_else(service: Server, tmp_path: Path) -> None:
    wanted = ["reverse", "--url", address(service), "--users", "2", "--protocol", "grpc"]
    done = bench(*wanted, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    file = tmp_path / "out" / "reverse" / "load.json"
    report = json.loads(file.read_text())
    assert (report["protocol"], report["errors"]) == ("grpc", 0)
    assert report["requests"] > 5
    assert ", grpc)" in done.stdout
    other = bench("reverse", "--url", address(service), "--baseline", str(file), folder=tmp_path)
    assert other.returncode == 1
    assert other.stderr == "error: --baseline was sent in grpc, not in json; give that --protocol\n"
    wrong = bench("reverse", "--url", address(service), "--protocol", "gprc", folder=tmp_path)
    assert wrong.stderr == "error: no protocol 'gprc'; did you mean 'grpc'?\n"


@pytest.mark.parametrize("command", [["nope"], ["reverse:nope"], ["capacity", "reverse:nope", "--p99", "50ms"]])
def test_report_of_another_artifact_than_the_one_named_is_refused(
    service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused(*command, "--url", address(service))
    assert line.startswith(f"error: {address(service)} ")
    assert "nope" in line
    assert not (tmp_path / "out").exists()


def test_keys_and_certificates_are_sent_and_checked(
    guarded: tuple[str, str, Path], locust: Locust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, key, certificate = guarded
    monkeypatch.chdir(tmp_path)
    wanted = ["dense", "--url", url, "--rate", "20", "--out", "out"]
    assert "give its authority's file: --ca" in refused(*wanted)
    trusting = [*wanted, "--ca", str(certificate)]
    assert "it wants a key; give one: HONE_BENCH_KEY, or --api-key" in refused(*trusting)
    assert "the key is refused" in refused(*trusting, "--api-key", "hone_wrong")
    assert not (tmp_path / "out").exists()
    done = bench(*trusting, folder=tmp_path, HONE_BENCH_KEY=key)
    assert done.returncode == 0, done.stderr
    assert key not in (tmp_path / "out" / "load.json").read_text()
    for protocol in ("json", "grpc"):
        allowed = [*QUICK, "--ca", str(certificate), "--max-errors", "0", "--protocol", protocol]
        done = locust("--host", url, *allowed, HONE_BENCH_KEY=key)
        assert done.returncode == 0, done.stderr
    assert locust("--host", url, *QUICK, "--ca", str(certificate)).returncode == 1
