"""The demo as `make demo` runs it: train, optimize, prove, store, serve, load-test."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HONE = "from hone.cli.main import main; main()"


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_demo_ends_with_a_fast_accurate_winner_served_without_errors(tmp_path: Path) -> None:
    folder = tmp_path / "digits"
    shutil.copytree(ROOT / "examples" / "digits", folder, ignore=shutil.ignore_patterns("*.safetensors", "__pycache__"))
    run(str(folder / "train.py"), cwd=tmp_path)
    run("-c", HONE, "optimize", str(folder / "recipe.yaml"), "--out", "out", cwd=tmp_path)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    by_name = {variant["name"]: variant for variant in report["variants"]}
    winner = by_name[report["winner"]]
    assert "int8" in winner["name"] or "pruned" in winner["name"]
    assert winner["verdict"] == "met" and winner["loss_upper"] <= 0.02
    assert winner["rows_per_s_batch1"] >= 1.5 * by_name["torch"]["rows_per_s_batch1"]
    assert {v["name"] for v in report["variants"] if v["status"] == "skipped"} == {"tensorrt-fp16", "tensorrt-int8"}
    run("-c", HONE, "bench", "digits", "--out", "out", "--duration", "5", "--max-late", "100%", cwd=tmp_path)
    load = json.loads((tmp_path / "out" / "load.json").read_text())
    assert load["errors"] == 0
    assert load["requests"] > 100
    assert load["model"] == winner["tag"]


def test_tabular_example_keeps_every_answer(tmp_path: Path) -> None:
    run("-c", HONE, "optimize", str(ROOT / "examples" / "tabular" / "recipe.yaml"), "--out", "out", cwd=tmp_path)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["winner"] == "onnx-fp32"
    assert report["variants"][1]["quality_drop"] == 0
