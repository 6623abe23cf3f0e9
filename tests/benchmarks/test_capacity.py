"""The search for a capacity, on services whose behavior is a formula; tests/e2e/test_deployment.py has a real one."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from xml.etree import ElementTree

import psutil
import pytest
from click.testing import CliRunner

from hone.benchmarks.capacity.find import Request, find_capacity
from hone.benchmarks.capacity.runs import Load
from hone.benchmarks.capacity.search import GAP, Effort, bracket
from hone.benchmarks.load.target import Access, Target
from hone.benchmarks.reports.capacity import redraw
from hone.benchmarks.usage import listeners, watched
from hone.capacity import Capacity, Slo, Trial, read_capacity
from hone.cli.main import cli
from hone.errors import HoneError
from hone.services.launch import free_port
from tests.benchmarks.clockwork import Clockwork
from tests.benchmarks.small_service import running
from tests.capacities import capacity
from tests.models.dense import dense_signature
from tests.plans import plan
from tests.servers import HONE, ROOT


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
    trials = [trial for trial in bracket(lambda rate: result(rate, rate <= limit)) if trial]
    best = max(trial.rate for trial in trials if trial.passed)
    assert limit * (1 - GAP) <= best <= limit
    assert len(trials) < 20


def test_service_that_never_passes_is_not_searched_forever() -> None:
    trials = [trial for trial in bracket(lambda rate: result(rate, False)) if trial]
    assert not any(trial.passed for trial in trials)
    assert len(trials) < 8


def find(load: Load, out: Path, said: list[str] | None = None) -> Capacity:
    target = Target("http://127.0.0.1:9", Access(), "dense", "v1", None, "/models/dense", dense_signature(), {})
    request = Request(Slo(limit_ms=100), effort=Effort(budget_s=300), command="hone bench capacity dense --p99 100ms")
    return find_capacity(target, request, out, (said if said is not None else []).append, load)


def test_capacity_is_written_with_its_curve_and_what_pipelines_read(tmp_path: Path) -> None:
    out = tmp_path / "capacity.json"
    said: list[str] = []
    found = find(Clockwork(333), out, said)
    assert 333 * (1 - GAP) <= found.rate <= 333 * (1 + GAP)
    assert found.rate_lower_95 is not None
    assert 333 * 0.9 <= found.rate_lower_95 <= 333
    assert found.goodput == pytest.approx(found.rate_lower_95, rel=0.01)
    assert read_capacity(out) == found
    assert sorted(file.name for file in tmp_path.iterdir() if file.is_file()) == [
        f"capacity.{kind}" for kind in ("csv", "html", "json", "xml")
    ]
    rows = list(csv.DictReader((tmp_path / "capacity.csv").open()))
    assert [float(row["rate"]) for row in rows] == sorted(t.rate for t in [*found.search, *found.repeats])
    suite = ElementTree.parse(tmp_path / "capacity.xml").find("testsuite")
    assert suite is not None
    assert suite.attrib["failures"] == suite.attrib["skipped"] == "0"
    page = (tmp_path / "capacity.html").read_text()
    assert "<svg" in page
    (tmp_path / "capacity.html").unlink()
    redraw(out)
    assert (tmp_path / "capacity.html").read_text() == page
    assert "missed" in "".join(said)
    assert said[-1].endswith("left")


def test_interrupted_search_keeps_its_trials_and_goes_on_from_them(tmp_path: Path) -> None:
    whole = Clockwork(333)
    expected = find(whole, tmp_path / "whole" / "capacity.json")
    out = tmp_path / "capacity.json"
    with pytest.raises(HoneError, match=r"interrupted; 7 trials are kept in .*the same command goes on") as ended:
        find(Clockwork(333, ends_at=7, error=KeyboardInterrupt()), out)
    assert ended.value.exit_code == 130
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["capacity.json.partial"]
    said: list[str] = []
    rest = Clockwork(333)
    assert find(rest, out, said).repeats == expected.repeats
    assert rest.loads == whole.loads - 7
    assert said[0].startswith("going on from 7 trials")
    assert not out.with_name("capacity.json.partial").exists()


def test_trials_of_another_question_are_not_gone_on_from(tmp_path: Path) -> None:
    out = tmp_path / "capacity.json"
    with pytest.raises(HoneError):
        find(Clockwork(333, ends_at=3, error=KeyboardInterrupt()), out)
    partial = out.with_name("capacity.json.partial")
    partial.write_text(partial.read_text().replace('"limit_ms":100.0', '"limit_ms":50.0'))
    load = Clockwork(333)
    find(load, out)
    assert load.loads > 3
    partial.write_text("{")
    find(Clockwork(333), out)


def test_void_trial_is_repeated_and_counts_for_nothing(tmp_path: Path) -> None:
    """Every third run of the generator is void, and says the opposite of what is true."""
    said: list[str] = []
    found = find(Clockwork(333, generator=lambda rate, load: load % 3 != 0), tmp_path / "capacity.json", said)
    assert 333 * (1 - GAP) <= found.rate <= 333 * (1 + GAP)
    assert found.rate_lower_95 is not None
    assert 333 * 0.9 <= found.rate_lower_95 <= 333
    assert (found.limited_by, found.generator_limit) == ("service", "")
    assert all((trial.p99_ms < 100) == (trial.rate <= 333) for trial in [*found.search, *found.repeats])
    assert any(line.endswith("void, the generator used 93% of a core") for line in said)


def test_search_ends_where_the_generator_does_and_says_what_was_proven(tmp_path: Path) -> None:
    said: list[str] = []
    found = find(Clockwork(100_000, generator=lambda rate, load: rate < 500), tmp_path / "capacity.json", said)
    assert found.limited_by == "generator"
    assert found.rate_lower_95 is not None
    assert 500 * 0.85 <= found.rate_lower_95 <= found.rate < 500
    assert all(trial.passed and trial.rate < 500 for trial in [*found.search, *found.repeats])
    (line,) = [line for line in found.summary().splitlines() if "generator" in line]
    assert "the load generator was the limit: at " in line
    assert f"used 93% of a core; {found.rate_lower_95:,.0f}/s was proven up to then" in line
    assert line.removeprefix("note: the") in (tmp_path / "capacity.html").read_text()


def test_generator_that_holds_no_rate_proves_nothing(tmp_path: Path) -> None:
    load = Clockwork(333, generator=lambda rate, load: False)
    with pytest.raises(HoneError, match=r"generator was the limit: .* used 93% of a core, each time; nothing was prov"):
        find(load, tmp_path / "capacity.json")
    assert not any(file.is_file() for file in tmp_path.iterdir())


def test_interrupted_search_goes_on_over_void_runs(tmp_path: Path) -> None:
    def holds(rate: float, load: int) -> bool:
        return rate < 500

    whole = Clockwork(100_000, generator=holds)
    expected = find(whole, tmp_path / "whole" / "capacity.json")
    out = tmp_path / "capacity.json"
    with pytest.raises(HoneError, match="interrupted"):
        find(Clockwork(100_000, ends_at=11, error=KeyboardInterrupt(), generator=holds), out)
    rest = Clockwork(100_000, generator=holds)
    assert find(rest, out).repeats == expected.repeats
    assert rest.loads == whole.loads - 11


def test_service_that_dies_leaves_what_was_measured(tmp_path: Path) -> None:
    out = tmp_path / "capacity.json"
    with pytest.raises(HoneError, match=r"^the service died; 4 trials are kept in"):
        find(Clockwork(333, ends_at=4, error=HoneError("the service died")), out)
    assert not out.exists()


def test_disk_that_fills_up_leaves_the_trials_before_it(tmp_path: Path) -> None:
    """Files may have 4 KiB here, which is less than the trials of a whole search."""
    out = tmp_path / "capacity.json"
    limits, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(HoneError) as ended:
            find(Clockwork(333), out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert ended.value.exit_code == 1
    partial = out.with_name("capacity.json.partial")
    kept = len(json.loads(partial.read_text())["trials"])
    assert kept > 3
    words = f"{partial}: File too large; {kept} trials are kept in {partial}, the same command goes on from there"
    assert str(ended.value) == words
    said: list[str] = []
    find(Clockwork(333), out, said)
    assert said[0].startswith(f"going on from {kept} trials")


def test_limit_that_nothing_meets_is_said(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match=r"dense:v1 misses p99 <= 100 ms even at .* raise the limit"):
        find(Clockwork(0), tmp_path / "capacity.json")
    assert not any(file.is_file() for file in tmp_path.iterdir())


def test_disk_that_is_full_is_found_out_before_the_load(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    load = Clockwork(333)
    with pytest.raises(HoneError, match="can't be written"):
        find(load, tmp_path / "file" / "capacity.json")
    assert load.loads == 0


def test_capacity_of_before_there_were_bounds_is_still_read(tmp_path: Path) -> None:
    old = capacity().model_dump(mode="json", exclude_defaults=True)
    assert "rate_lower_95" not in old
    file = tmp_path / "capacity.json"
    file.write_text(json.dumps(old))
    found = read_capacity(file)
    assert (found.rate, found.rate_lower_95, found.at_capacity.verdict) == (1000, None, None)
    assert "at least" not in found.summary()
    redraw(file)


def test_processes_of_a_local_service_are_found_andwatched() -> None:
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
        found = listeners(f"http://127.0.0.1:{port}")
        assert [each.pid for each in found] == [process.pid]
        with watched(found) as usage:
            time.sleep(1.5)
        assert usage["rss_mb"] > 50
        assert usage["cpu_cores"] > 0.1
    finally:
        process.kill()
        process.wait()
    assert listeners("http://192.0.2.1:80") == []
    with watched([psutil.Process(os.getpid())]) as usage:
        pass
    assert usage["rss_mb"] > 0


@pytest.mark.slow
def test_capacity_of_a_real_service_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    command = [
        HONE,
        "bench",
        "capacity",
        "dense",
        "--p50",
        "200ms",
        "--errors",
        "10%",
        "--duration",
        "2",
        "--max-late",
        "100%",  # other tests may run beside this one
    ]
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    with running(tmp_path, 0.02) as url:
        command += ["--url", url, "--repeats", "1", "--minutes", "0.7"]
        with subprocess.Popen(command, cwd=tmp_path, env=variables, stderr=subprocess.PIPE, text=True) as started:
            assert started.stderr is not None
            while "40.0/s" not in (line := started.stderr.readline()):
                assert line, "it ended"
            started.send_signal(signal.SIGINT)
            said = started.stderr.read().splitlines()
        assert started.returncode == 130
        assert said[-1].startswith("error: interrupted; 2 trials are kept in out/dense/capacity.json.partial")
        assert [file.name for file in (tmp_path / "out" / "dense").iterdir()] == ["capacity.json.partial"]
        done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[0].startswith("going on from 2 trials")
    found = read_capacity(tmp_path / "out" / "dense" / "capacity.json")
    assert [trial.rate for trial in found.search[:2]] == [20, 40]
    assert found.rate > 40
    assert found.at_capacity.cpu_cores is not None


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
