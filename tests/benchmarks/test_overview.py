"""The page of all benchmarks, from records as their commands write them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner, Result

from hone.benchmarks.generators import Reached, in_turns
from hone.benchmarks.overview import __main__ as overview
from hone.benchmarks.overview.drawing import BEGIN, with_block
from hone.benchmarks.overview.records import read_overview
from hone.benchmarks.overview.sections import BENCHMARKS
from hone.benchmarks.serving.measure import median_runs
from hone.errors import HoneError
from tests.capacities import capacity
from tests.plans import plan
from tests.servers import ROOT, put

MADE = {
    "created": "2026-02-03T04:05:06+00:00",
    "host": {"cpu": "a processor", "cores": 2, "memory_gb": 8.0, "gpu": None},
    "made_by": "hone 0.1.0, 0123456789ab",
    "command": "python -m benchmarks.serving --rounds 3",
}


def serving(servers: dict[str, float]) -> dict[str, Any]:
    """Return a record of three rounds, whose rates are 10 % apart."""
    rounds = [
        {
            "server": server, "model": "digits", "payload": "binary-1", "connections": connections,
            "rps": rate * share, "rows_per_s": rate * share, "p50_ms": 1.0, "p99_ms": 2.0 * share, "errors": 0,
        }
        for server, rate in servers.items()
        for connections in (8, 32)
        for share in (0.9, 1.0, 1.1)
    ]  # fmt: skip
    not_run = [{"server": "third", "model": "*", "error": "no such package"}]
    return {"schema": 1, **MADE, "rounds": 3, "seconds": 1.0, "runs": median_runs(rounds), "not_run": not_run}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(overview.main, list(arguments))


def put_record(folder: Path, name: str, record: object) -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_bytes(orjson.dumps(record))


def test_section_has_figures_spread_host_date_commit_and_command(tmp_path: Path) -> None:
    put_record(tmp_path, "serving", serving({"hone": 1000.0, "other": 500.0}))
    assert call("--no-run", "--out", str(tmp_path)).exit_code == 0
    section = read_overview(tmp_path / "benchmarks.json").sections[0]
    assert (section.status, section.created, section.command) == ("measured", MADE["created"], MADE["command"])
    assert section.place == "a processor, 2 cores, 8 GB, hone 0.1.0, 0123456789ab"
    assert section.findings is not None
    assert "1,000 (950 to 1,050) requests/s, p99 2.00 (1.90 to 2.10) ms" in section.findings.result
    assert "over 8 · 32 connections 2.0 · 2.0 times other" in section.findings.result
    assert section.findings.left_out == ["third (*): no such package"]
    page = (tmp_path / "benchmarks.html").read_text()
    table = (tmp_path / "benchmarks.md").read_text()
    for shown in (section.findings.result, section.findings.spread, section.place, section.command, "2026-02-03"):
        assert shown in page
        assert shown in table
    assert page.count("<section") == len(BENCHMARKS)


def test_capacity_soak_and_generators_are_read_as_their_commands_write_them(tmp_path: Path) -> None:
    put_record(tmp_path, "capacity", json.loads(capacity(plan=plan(), digest=plan().digest).model_dump_json()))
    marks = [{"requests": 100, "mib": 50.0}, {"requests": 200, "mib": 50.5}]
    memory = {"requests": 200, "errors": 0, "marks": marks, "growth_mib": 0.5, "rps": 100.0, "parts": 2,
              "rps_median": 100.0, "rps_quartiles": [90.0, 110.0]}  # fmt: skip
    steady = {"rate": 70, "minutes": 1.0, "requests": 4200, "errors": 0, "p50_ms": 1.0, "p99_ms": 2.0, "p999_ms": 3.0,
              "max_ms": 4.0, "p999_over_p50": 3.0, "host_hiccup_p999_ms": 0.5, "host_hiccup_max_ms": 1.0}  # fmt: skip
    put_record(tmp_path, "soak", {"schema": 1, **MADE, "memory": memory, "steady": steady})
    reached = {name: [Reached(rate, 1.0)] * 2 for name, rate in (("wrk", 100.0), ("sender", 60.0))}
    compared = in_turns({name: partial(next, iter(runs)) for name, runs in reached.items()}, 2)
    put_record(tmp_path, "generators", {**MADE, "connections": 16, **compared})
    assert call("--no-run", "--out", str(tmp_path)).exit_code == 0
    found = {section.name: section for section in read_overview(tmp_path / "benchmarks.json").sections}
    results = {name: section.findings.result for name, section in found.items() if section.findings is not None}
    assert results["capacity"].startswith("digits:onnx-fp32-1: 1,000 requests/s with p99 <= 50 ms, no rate is proven")
    assert results["soak"].startswith("200 requests, 0 errors, +0.5 MiB; then 70 requests/s for 1 min: p50 1.00 ms")
    assert results["generators"] == "the sender reaches 0.60 of wrk's rate over 16 connections"


def test_what_has_no_record_is_named_with_its_command(tmp_path: Path) -> None:
    done = call("--no-run", "--out", str(tmp_path))
    assert done.exit_code == 0
    assert {section.status for section in read_overview(tmp_path / "benchmarks.json").sections} == {"not run"}
    assert "Soak: not run: there is no soak.json yet; `python -m benchmarks.soak" in done.stdout


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "can't be read"),
        (b"[]", "is no record"),
        (b"{}", "not what 'benchmarks.serving' writes: 'not_run'"),
        (orjson.dumps(serving({"other": 5.0})), "Hone was not measured: third (*): no such package"),
    ],
)
def test_record_that_says_nothing_is_a_failure_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "serving.json").write_bytes(content)
    assert call("--no-run", "--out", str(tmp_path)).exit_code == 0
    section = read_overview(tmp_path / "benchmarks.json").sections[0]
    assert section.status == "failed"
    assert reason in section.reason


def test_command_that_fails_is_one_line_and_keeps_the_figures_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_record(tmp_path, "serving", serving({"hone": 1000.0}))
    monkeypatch.setenv("PATH", str(tmp_path))  # where neither wrk nor h2load is
    done = call("--out", str(tmp_path), "--only", "serving", "--only", "soak", "--again")
    assert done.exit_code == 0
    first, *_, soak, _ = read_overview(tmp_path / "benchmarks.json").sections
    assert first.findings is not None
    assert first.reason.startswith("a later run failed, these figures are of the one before: wrk is not installed")
    assert (soak.status, soak.findings) == ("failed", None)
    assert soak.reason.startswith("h2load is not installed; install it with")
    again = call("--out", str(tmp_path), "--only", "serving")
    assert "Serving: serving" not in again.output, "it has a record"


def test_readme_states_what_the_record_gives() -> None:
    """`python -m benchmarks.overview --readme` writes it so."""
    text = overview.README.read_text()
    assert text == with_block(text, read_overview(overview.KEPT))


def test_document_without_the_block_is_refused() -> None:
    record = read_overview(overview.KEPT)
    for text in ("# Title\n", f"# Title\n{BEGIN}\n"):
        with pytest.raises(HoneError, match="no block of benchmarks"):
            with_block(text, record)


def test_ctrl_c_ends_the_command_and_keeps_what_there_is(tmp_path: Path) -> None:
    put_record(tmp_path / "out", "serving", serving({"hone": 1000.0}))
    home = tmp_path / "digits"
    put(home, home / "one", "digits", "onnx-fp32-1")
    put(home, home / "two", "digits", "onnx-int8-static-1")
    command = [sys.executable, "-m", "benchmarks.overview", "--out", str(tmp_path / "out"), "--only", "compare"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "BENTOML_HOME": str(home)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    assert "Two variants in turns" in process.stderr.readline()
    time.sleep(3)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to both
    _, said = process.communicate(timeout=90)
    assert process.returncode == 130, said
    assert "Traceback" not in said.rpartition("interrupted")[2]
    serving_section, *rest = read_overview(tmp_path / "out" / "benchmarks.json").sections
    assert serving_section.status == "measured"
    assert {section.status for section in rest} == {"not run"}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_short_run_measures_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    home, out = tmp_path / "digits", tmp_path / "out"
    put(home, home / "one", "digits", "onnx-int8-static-1")  # it takes other inputs than the digits of serving and soak
    command = [sys.executable, "-m", "benchmarks.overview", "--out", str(out), "--minutes", "0.2"]
    command += ["--only", "serving", "--only", "capacity", "--only", "soak"]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "BENTOML_HOME": str(home)}
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=560, check=False)
    assert done.returncode == 0, done.stderr
    found = {section.name: section for section in read_overview(out / "benchmarks.json").sections}
    held = found["capacity"]
    if "misses p99 <= 50 ms" not in held.reason:  # a busy host
        assert held.status == "measured", held.reason
        assert "hone bench capacity digits:onnx-int8-static --p99 50ms" in held.command
        assert held.made_by.startswith("hone ")
        assert held.host["cores"]
    for name in ("serving", "soak"):
        assert (found[name].status, found[name].findings) == ("failed", None)
        assert len(found[name].reason.splitlines()) == 1
    assert found["converters"].status == found["compare"].status == "not run"
