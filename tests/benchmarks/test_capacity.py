"""The search for a capacity, on services whose behavior is a formula; tests/e2e/test_deployment.py has a real one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from hone.benchmarks.capacity.search import GAP, _confirm, _listeners, _search, _watched
from hone.capacity import Trial, read_capacity
from hone.cli.main import cli
from hone.errors import HoneError
from hone.services.launch import free_port
from tests.capacities import capacity
from tests.plans import plan


def result(rate: float, passed: bool) -> Trial:
    return Trial(
        rate=rate, answered=rate, p50_ms=1, p95_ms=1, p99_ms=1, p999_ms=1, mean_ms=1,
        error_share=0, late_share=0, passed=passed,
    )  # fmt: skip


def test_capacity_and_its_plan_are_of_one_artifact(tmp_path: Path) -> None:
    file = tmp_path / "capacity.json"
    measured = capacity(plan=plan(), digest=plan().digest, image="r.example.com/digits:1@sha256:" + "a" * 64)
    file.write_text(measured.model_dump_json())
    assert read_capacity(file) == measured
    content = {**json.loads(file.read_text()), "digest": "e" * 64}
    file.write_text(json.dumps(content))
    with pytest.raises(HoneError, match="plan: is of dddddddddddd, what was measured is eeeeeeeeeeee"):
        read_capacity(file)


def test_file_from_before_plans_still_reads(tmp_path: Path) -> None:
    file = tmp_path / "capacity.json"
    file.write_text(capacity().model_dump_json(exclude={"plan", "image", "digest"}))
    found = read_capacity(file)
    assert (found.plan, found.image, found.digest) == (None, None, None)


@pytest.mark.parametrize("limit", [0.5, 7, 20, 333, 12_345])
def test_search_ends_close_under_the_limit(limit: float) -> None:
    trials = list(_search(lambda rate: result(rate, rate <= limit)))
    best = max(trial.rate for trial in trials if trial.passed)
    assert limit * (1 - GAP) <= best <= limit
    assert len(trials) < 20


def test_service_that_never_passes_is_not_searched_forever() -> None:
    trials = list(_search(lambda rate: result(rate, False)))
    assert not any(trial.passed for trial in trials)
    assert len(trials) < 8


def test_rate_is_lowered_until_most_repeats_pass() -> None:
    seen: list[float] = []

    def trial(rate: float) -> Trial:
        seen.append(rate)
        return result(rate, rate <= 90 or len(seen) == 1)

    rate, again = _confirm(trial, 100, 3)
    assert 85 < rate <= 90
    assert [found.passed for found in again] == [True] * 3


def test_host_that_is_too_noisy_is_said_so() -> None:
    with pytest.raises(HoneError, match="too noisy"):
        _confirm(lambda rate: result(rate, False), 100, 3)


def test_processes_of_a_local_service_are_found_and_watched() -> None:
    port = free_port()
    code = (
        "import socket, time\n"
        f"s = socket.create_server(('127.0.0.1', {port}))\n"
        "kept = bytearray(60_000_000)\n"
        "end = time.time() + 20\n"
        "while time.time() < end: pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        found = _listeners(f"http://127.0.0.1:{port}")
        assert [each.pid for each in found] == [process.pid]
        with _watched(found) as usage:
            time.sleep(1.5)
        assert usage["rss_mb"] > 50
        assert usage["cpu_cores"] > 0.1
    finally:
        process.kill()
        process.wait()
    assert _listeners("http://192.0.2.1:80") == []
    with _watched([psutil.Process(os.getpid())]) as usage:
        pass
    assert usage["rss_mb"] > 0


@pytest.mark.parametrize("options", [[], ["--p99", "50ms", "--p95", "20ms"]])
def test_exactly_one_limit_is_asked_for(options: list[str]) -> None:
    answer = CliRunner().invoke(cli, ["bench", "capacity", "digits", *options])
    assert answer.exit_code == 2
    assert "give one of --p50, --p95 and --p99" in answer.output


def test_model_without_a_store_entry_is_named() -> None:
    answer = CliRunner().invoke(cli, ["bench", "capacity", "digits", "--p99", "50ms"])
    assert answer.exit_code == 1
    assert "no model 'digits'" in answer.output


def test_bench_without_a_subcommand_is_a_load_test(tmp_path: Path) -> None:
    answer = CliRunner().invoke(cli, ["bench", "digits", "--out", str(tmp_path)])
    assert "no model 'digits'" in answer.output
    assert "hone bench [OPTIONS] COMMAND" not in answer.output
