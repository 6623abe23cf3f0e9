"""What `hone optimize` promises about a run: your code is called once, figures agree, and results aren't lost."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from hone import store
from hone.converters.proof.disturbance import HostNoise, HostWatch
from hone.converters.report.records import Report, read_report
from tests import commands
from tests.models.sums import GRAPH, MODEL, write_project
from tests.servers import use_store

COUNTING = (
    MODEL.replace("def load():", "def load():\n    note('load')\n    np.ones(60_000_000)  # 458 MiB, as training takes")
    .replace("def calibration():", "def calibration():\n    note('calibration')")
    .replace("def evaluation():", "def evaluation():\n    note('evaluation')")
    .replace("> 0).astype(np.int64)}", "> 0)}")  # labels of bool
    .replace('rows["label"])', 'rows["label"].astype(int))')
    + """

def note(what):
    import pathlib
    with (pathlib.Path(__file__).parent / "calls").open("a") as file:
        file.write(what + " ")
"""
)
PRUNED = {"preset": "pruned50-onnx-int8", "options": {"prune": {"epochs": 20}}}
BUILT = ["onnx-fp32", "onnx-fp16", "onnx-int8-dynamic", "onnx-int8-static", "mlx-fp32", "mlx-q8"]
VARIANTS = [*BUILT, "tensorrt-fp16", PRUNED]
FAILING = """

def fails(outputs, labels):
    return outputs["score"]
"""

pytestmark = pytest.mark.timeout(900)  # the first test makes eight variants


def hone(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as a user does; where nothing but its message counts, `commands.hone` takes less time."""
    command = [sys.executable, "-c", "from hone.cli.main import main; main()", *map(str, arguments)]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=400, check=False, env={**os.environ, **environment}
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of an error."""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    return line


@dataclass(frozen=True)
class Runs:
    """A whole run and, after it, one of a single variant."""

    folder: Path
    first: subprocess.CompletedProcess[str]
    calls: list[str]
    report: Report
    listed: str
    again: subprocess.CompletedProcess[str]
    calls_again: list[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    folder = tmp_path_factory.mktemp("runs")
    own = {"HONE_CACHE": str(folder / "cache"), "BENTOML_HOME": str(folder / "bentoml")}
    measure = {"batches": [1, 8], "threads": [1, "all"], "rounds": 8, "round_ms": 3}
    file = write_project(folder / "project", code=COUNTING, measure=measure, train="network:train", variants=VARIANTS)
    calls = folder / "project" / "calls"
    first = hone("optimize", file, cwd=folder, **own)
    assert first.returncode == 0, first.stdout + first.stderr
    called = calls.read_text().split()
    listed = hone("models", "list", cwd=folder, **own).stdout
    report = read_report(folder / "out" / "sums" / "report.json")
    calls.unlink()
    again = hone("optimize", file, "--only", "pruned50-onnx-int8", "--no-store", cwd=folder, **own)
    yield Runs(folder, first, called, report, listed, again, calls.read_text().split())


def test_optimize_proves_ranks_and_stores(runs: Runs) -> None:
    by_name = {variant.name: variant for variant in runs.report.variants}
    assert by_name["torch"].baseline
    skipped = by_name["tensorrt-fp16"]
    assert skipped.status == "skipped" and "no NVIDIA GPU" in skipped.reason
    assert "[torch,tensorrt]" in (skipped.remedy or "") and "[torch,tensorrt]" in runs.first.stdout
    for name in [*BUILT, "pruned50-onnx-int8"]:
        variant = by_name[name]
        assert variant.status == "built", variant
        assert variant.quality is not None and variant.quality > 0.9
        assert "all" in variant.latency_ms["1"]
        assert variant.peak_rss_mb is not None and variant.peak_rss_mb > 10
        assert variant.size_mb is not None and variant.size_mb > 0
    assert by_name["onnx-fp32"].max_difference is not None and by_name["onnx-fp32"].max_difference < 1e-4
    assert by_name["pruned50-onnx-int8"].passes[0].details["channels"]["hidden"] == "32 -> 16"
    wins = by_name[runs.report.winner or ""]
    assert {batch: set(found) for batch, found in wins.latency_ms.items()} == {key: {"1", "all"} for key in ("1", "8")}
    use_store(runs.folder / "bentoml")
    winner = store.resolve("sums").opened()
    assert winner.manifest.variant == wins.name
    assert winner.manifest.selection is not None and winner.manifest.selection.rank == 0
    assert [one.name for one in winner.manifest.lineage] == [one.name for one in wins.passes]


def test_pages_of_reports_ask_no_other_host_and_are_drawn_again(runs: Runs) -> None:
    out = runs.folder / "out" / "sums"
    page = (out / "report.html").read_text()
    assert page.count("<svg") == 2
    names = ("http://www.w3.org", "http://purl.org", "http://creativecommons.org")
    assert "http://" not in functools.reduce(lambda text, name: text.replace(name, ""), names, page)
    assert commands.hone("report", out / "report.json", cwd=runs.folder).returncode == 0


def test_loader_and_data_functions_run_once_a_run(runs: Runs) -> None:
    assert sorted(runs.calls) == ["calibration", "evaluation", "load"]
    assert "passes: 0 run, 4 from the cache" in runs.again.stderr
    assert sorted(runs.calls_again) == ["calibration", "evaluation", "load"]


def test_a_run_of_one_variant_leaves_the_report_of_all(runs: Runs) -> None:
    out = runs.folder / "out" / "sums"
    assert read_report(out / "report.json") == runs.report
    assert [variant.name for variant in read_report(out / "only" / "report.json").variants] == [
        "torch",
        "pruned50-onnx-int8",
    ]


def test_figures_agree(runs: Runs) -> None:
    """Table, headline and list show the statistic that variants are ranked by."""
    report = runs.report
    best = report.judged(report.baseline, report.source_threads)
    assert best.p50 == min(one.p50 for one in report.baseline.latency_ms["1"].values())
    for variant in [variant for variant in report.variants[1:] if variant.status == "built"]:
        judged = report.judged(variant)
        assert judged.p50_low is not None and judged.p50_high is not None
        assert judged.p50_low <= judged.p50 <= judged.p50_high and judged.p50 <= judged.p95 <= judged.p99
        assert judged.rows_per_s == pytest.approx(1e3 / judged.p50, rel=1e-3)
        assert variant.speedup == pytest.approx(best.p50 / judged.p50, rel=1e-2)
        (row,) = [
            line for line in runs.first.stdout.splitlines() if f" {variant.name} " in line and "x" in line.split()[-3]
        ]
        assert f"{judged.p50:.3f}" in row and f"{variant.speedup:.2f}x" in row
        (line,) = [line for line in runs.listed.splitlines() if line.startswith(f"sums:{variant.name}-")]
        assert f"{judged.p50:.3f}" in line.split()
    assert "speed-up against torch at its fastest" in runs.first.stdout


def test_the_source_is_measured_without_its_training(runs: Runs) -> None:
    peak = runs.report.baseline.peak_rss_mb
    assert peak is not None and peak < 458


def test_labels_of_bool_are_judged_as_numbers(runs: Runs) -> None:
    built = [variant for variant in runs.report.variants if variant.status == "built"]
    assert all(variant.quality is not None and variant.quality > 0.9 for variant in built)


def test_a_metric_that_fails_is_found_before_any_pass(tmp_path: Path) -> None:
    file = write_project(tmp_path / "project", GRAPH + FAILING, quality={"metric": "network:fails"})
    done = commands.hone("optimize", file, cwd=tmp_path)
    assert done.returncode == 2 and "network:fails failed (network.py:" in error_of(done)
    assert not list((tmp_path / "home" / "cache" / "passes").glob("*"))


def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    file = write_project(tmp_path / "project", code=COUNTING)
    (tmp_path / "file").write_text("")
    for arguments, environment, words in (
        (("--out", tmp_path / "file" / "out"), {}, "the report (--out) can't be written to"),
        ((), {"BENTOML_HOME": str(tmp_path / "file")}, "the model store (BENTOML_HOME) can't be written to"),
        ((), {"HONE_CACHE": str(tmp_path / "file")}, "the pass cache (HONE_CACHE) can't be written to"),
    ):
        done = hone("optimize", file, *arguments, cwd=tmp_path, **environment)
        assert done.returncode == 1 and words in error_of(done)
    assert not (file.parent / "calls").exists()


def test_results_are_shown_when_neither_report_nor_store_can_be_written_any_more(tmp_path: Path) -> None:
    """Both places turn into files while the run goes on."""
    spoil = f"""
    import pathlib, shutil
    for place in ({str(tmp_path / "out" / "sums")!r}, {str(tmp_path / "home" / "bentoml" / "models")!r}):
        shutil.rmtree(place)
        pathlib.Path(place).write_text("")
"""
    code = GRAPH.replace("def load():", "def load():" + spoil)
    file = write_project(tmp_path / "project", code, variants=["onnx-fp32"])
    done = commands.hone("optimize", file, cwd=tmp_path)
    assert done.returncode == 1
    assert "★ onnx-fp32" in done.stdout and "winner  onnx-fp32" in done.stdout
    line = error_of(done)
    assert "onnx-fp32 could not be stored" in line and "the report can't be written to" in line and len(line) < 500


def test_full_store_is_one_line(tmp_path: Path, runs: Runs) -> None:
    """BentoML reports a full disk as a list of all files that it couldn't copy."""
    script = (
        "import resource, signal; from pathlib import Path\n"
        "from hone import store; from hone.artifact import Artifact\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"artifact = Artifact.open(next(p for p in Path({str(runs.folder / 'cache' / 'passes')!r}).iterdir()))\n"
        "try: store.put(artifact, 'sums', 'v1')\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.startswith("StoreError") and "File too large" in done.stdout, done.stdout + done.stderr
    assert len(done.stdout) < 300 and "[(" not in done.stdout
    assert store.entries() == []


def test_a_disturbed_host_is_said_and_a_steady_one_is_not() -> None:
    assert HostNoise(spread=1.05, stolen=0.0, ticks=40).warning == ""
    assert HostNoise(spread=9.0, stolen=0.0, ticks=3).warning == ""  # too few to say
    assert "2.5 times its median" in HostNoise(spread=2.5, stolen=0.0, ticks=40).warning
    assert "7% of the processors' time was stolen" in HostNoise(spread=1.0, stolen=0.07, ticks=40).warning
    watch = HostWatch()
    for _ in range(10):
        watch.tick()
    noise = watch.noise()
    assert noise.ticks == 10 and noise.spread >= 1 and 0 <= noise.stolen <= 1 and np.isfinite(noise.spread)


def test_report_is_read_without_what_was_added_later(runs: Runs) -> None:
    content = json.loads((runs.folder / "out" / "sums" / "report.json").read_text())
    for field in ("source_threads", "noise", "checks_skipped", "not_stored"):
        content.pop(field)
    old = Report.model_validate(content)
    assert old.warnings == [] and old.compared_with == "speed-up against torch"
