"""What happens while something is measured or simulated: the clock jumps, the service restarts, the disk fills up."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from hone.benchmarks.load.limits import require_met
from hone.benchmarks.load.run import bench, find_target
from hone.benchmarks.load.target import Access
from hone.benchmarks.scenarios import Scenario
from hone.errors import HoneError
from tests.servers import HONE, ROOT, Server, put, server

FAKETIME = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
QUICK = ("--rate", "20", "--max-late", "100%")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    put(home, home / "one", "dense", "onnx-fp32-1")
    return home


@pytest.fixture(scope="module")
def service(home: Path) -> Iterator[Server]:
    with server([HONE, "serve", "dense", "--port", "{port}"], home, PYTHONPATH=str(ROOT)) as running:
        yield running


def variables(home: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "BENTOML_HOME": str(home), "PYTHONPATH": str(ROOT), **more}


def on_a_full_disk(command: list[str], folder: Path, home: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that can write no file of over 16 KiB."""
    limited = ["bash", "-c", 'ulimit -f 16; exec "$@"', "bash", *command]
    return subprocess.run(
        limited, cwd=folder, env=variables(home), capture_output=True, text=True, timeout=120, check=False
    )


def test_load_test_on_a_full_disk_is_one_line_and_leaves_no_file(service: Server, home: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{service.port}"
    done = on_a_full_disk([HONE, "bench", "dense", "--url", url, *QUICK, "--duration", "2"], tmp_path, home)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: out/dense/load.svg: File too large"
    assert "Traceback" not in done.stderr
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == []


def test_simulation_on_a_full_disk_is_one_line_and_leaves_no_file(home: Path, tmp_path: Path) -> None:
    (tmp_path / "pod.json").write_text('{"capacity_rps": 100, "latency_s": 0.01, "cpu_cores": 0.8, "start_s": 5}')
    command = [HONE, "k8s", "simulate", "--trace", "step", "--pod", "pod.json", "--out", "run/run.json"]
    done = on_a_full_disk(command, tmp_path, home)
    assert (done.returncode, done.stderr) == (1, "error: run/run.svg: File too large\n")
    assert [*(tmp_path / "run").iterdir()] == []


def test_folder_that_cannot_be_written_to_is_found_out_before_the_load(
    service: Server, home: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    command = [HONE, "bench", "dense", "--url", f"http://127.0.0.1:{service.port}", "--out", "file/out"]
    done = subprocess.run(
        command, cwd=tmp_path, env=variables(home), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        "error: load.json (--out) can't be written to file/out: Not a directory\n",
    )


@pytest.mark.slow
@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not installed")
def test_clock_that_jumps_changes_no_figure(service: Server, home: Path, tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    jumping = variables(
        home, LD_PRELOAD=str(FAKETIME), FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    )  # fmt: skip
    command = [HONE, "bench", "dense", "--url", f"http://127.0.0.1:{service.port}", *QUICK, "--duration", "12"]
    with subprocess.Popen(command, cwd=tmp_path, env=jumping, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "12 s of open loop" not in (line := process.stderr.readline()):
            assert line, process.wait()
        for jump in ("+86400", "-86400"):
            time.sleep(4)
            clock.write_text(f"{jump}\n")
        said = process.stderr.read()
    assert process.returncode == 0, said
    found = json.loads((tmp_path / "out" / "dense" / "load.json").read_text())
    assert found["errors"] == 0
    assert 12 <= found["duration_s"] < 60
    assert found["requests"] == pytest.approx(240, rel=0.4)
    assert found["max_ms"] < 60_000
    assert len(found["timeline"]) <= 13


def test_service_that_comes_back_with_another_artifact_voids_the_run(service: Server, tmp_path: Path) -> None:
    before = find_target(f"http://127.0.0.1:{service.port}", "dense", Access())
    other = replace(before, digest="0" * 64)  # what it served when the load test began
    scenario = Scenario(kind="closed", users=1, duration_s=1, warm_up_s=0)
    report = bench(other, out=tmp_path, scenario=scenario, progress=lambda _: None)
    assert report.void == f"the service answers with another artifact than at the start, {str(before.digest)[:12]}"
    assert report.rate is None
    with pytest.raises(HoneError, match="the run is void"):
        require_met(report)
