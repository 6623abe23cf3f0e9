"""The digits example with the settings that a search on this machine finds, up to the manifests that run them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hone.benchmarks.tuned import Tuning
from hone.capacity import read_capacity
from hone.plan import Plan
from hone.records import read_record
from tests.servers import HONE, ROOT

IMAGE = "r.example.com/digits:1@sha256:" + "a" * 64

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


def test_digits_are_tuned_over_ctrl_c_and_rendered_with_the_winners_plan(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    shutil.copytree(ROOT / "examples" / "digits", folder, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    run(tmp_path, sys.executable, str(folder / "train.py"))
    only = ["--only", "onnx-int8-static", "--only", "onnx-fp32"]
    run(tmp_path, HONE, "optimize", str(folder / "recipe.yaml"), "--out", "out", *only)
    # Other tests may run beside this one: limits that a busy machine keeps, too.
    tune = [HONE, "bench", "capacity", "digits", "--p50", "300ms", "--errors", "10%", "--max-late", "100%", "--tune"]
    tune += ["--duration", "2", "--repeats", "1", "--minutes", "8", "--cpu-hour", "0.04", "--gb-hour", "0.005"]
    interrupt_after(tmp_path, tune, trials=1)
    done = run(tmp_path, *tune)
    assert "going on from 1 trial in out/digits/tune.json.partial" in done.stderr
    assert "proof 1 of " in done.stderr

    out = tmp_path / "out" / "digits"
    found, capacity = read_record(out / "tune.json", Tuning, "a search"), read_capacity(out / "capacity.json")
    best = found.best
    assert best.out == ""
    assert best.plan is not None
    assert capacity.plan == best.plan
    assert (best.capacity, best.proven) == (capacity.rate, capacity.rate_lower_95)
    assert best.rates
    assert len({tried.choice.model for tried in found.tried}) == 2
    assert all(tried.out for tried in found.tried if tried not in found.front)
    assert done.stdout.splitlines()[0].endswith("settings")
    assert any(line.startswith("* ") and best.choice.words in line for line in done.stdout.splitlines())
    assert "<svg" in (out / "tune.html").read_text()
    assert not (out / "tune.json.partial").exists()

    run(tmp_path, HONE, "k8s", "render", best.choice.model, "--capacity", str(out / "capacity.json"), "--image", IMAGE,
        "--out", "deploy")  # fmt: skip
    assert Plan.model_validate_json((tmp_path / "deploy" / "plan.json").read_text()) == best.plan
    assert json.loads((out / "capacity.json").read_text())["command"].endswith("--tune")


def run(cwd: Path, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def interrupt_after(cwd: Path, command: list[str], trials: int) -> None:
    """Run a search and end it as Ctrl-C does after so many trials."""
    with subprocess.Popen(
        command, cwd=cwd, env=environment(), stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's `&` ignores it
    ) as started:  # fmt: skip
        assert started.stderr is not None
        said: list[str] = []
        while sum(line.startswith("round 1, ") for line in said) < trials:
            said.append(started.stderr.readline())
            assert said[-1], said
        started.send_signal(signal.SIGINT)
        rest = started.stderr.read()
    assert started.returncode == 130, rest
    assert f"interrupted; {trials} trial{'s are' if trials > 1 else ' is'} kept in out/digits/tune.json.partial" in rest


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}
