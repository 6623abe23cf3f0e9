"""`hone optimize` on a real torch model, in real worker and probe processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import yaml

from hone import store
from hone.converters.passes import PassContext
from hone.converters.run.prepare import prepare
from hone.converters.sources.torch.source import save_program
from hone.errors import PassError, RecipeError, StoreError
from hone.golden.rows import read_rows as golden_rows
from hone.recipe import load_recipe
from hone.sketches.reference import parse_references
from hone.store.rows import read_rows
from hone.userload import load_function
from tests import commands
from tests.house import ROOT
from tests.models.sums import GRAPH, MODEL, write_project


def hone(*arguments: str | Path, cwd: Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line; the processes of its passes and proofs are as ever."""
    done = commands.hone(*arguments, cwd=cwd)
    assert done.returncode == expect, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def one_error(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of an error; there must be no traceback."""
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    return line


def evaluation(project: Path) -> np.ndarray:
    """Return the evaluation rows of the project."""
    rows: dict[str, np.ndarray] = load_function("network:evaluation", project, "evaluation")()
    return rows["features"]


def calibration(project: Path) -> np.ndarray:
    """Return the calibration rows of the project."""
    rows: dict[str, np.ndarray] = load_function("network:calibration", project, "calibration")()
    return rows["features"]


@pytest.mark.parametrize("keep", [True, False])
def test_rows_for_load_tests_are_kept_unless_the_recipe_forbids_it(tmp_path: Path, keep: bool) -> None:
    disturbing = None if keep else {"perturbations": ["noise"], "severities": [1]}
    file = write_project(
        tmp_path / "project", GRAPH, train="network:load", variants=["onnx-fp32"], robustness=disturbing
    )
    recipe = yaml.safe_load(file.read_text())
    source = recipe["evaluation"]
    recipe["evaluation"] = {**(source if isinstance(source, dict) else {"from": source}), "keep_rows": keep}
    file.write_text(yaml.safe_dump(recipe))
    hone("optimize", file, cwd=tmp_path)
    entry = store.resolve("sums")
    kept = read_rows(entry.path)
    assert (kept is not None) is keep
    manifest = entry.opened().manifest
    assert manifest.golden is not None and manifest.golden.source == ("evaluation" if keep else "synthetic")
    golden, evaluated = golden_rows(entry.path, manifest.golden, manifest.signature), evaluation(tmp_path / "project")
    theirs = {row.tobytes() for row in golden.inputs["features"]} & {row.tobytes() for row in evaluated}
    assert len(theirs) == (golden.count if keep else 0)
    looks = parse_references(entry.path / str(manifest.drift))
    assert looks.private is not keep and looks.rows == len(evaluated)
    assert {"input.features[0]", "output.scores[0]"} <= {one.column.name for one in looks.columns}
    example = np.array(json.loads((entry.path / "example.json").read_text())["inputs"]["features"])
    assert len(example) == 2 and example.min() >= -4 and example.max() <= 4
    real = [*np.round(evaluated.astype(float), 6), *np.round(calibration(tmp_path / "project").astype(float), 6)]
    assert all(any(np.allclose(row, other, atol=1e-5) for other in real) is keep for row in example)
    report = json.loads((tmp_path / "out" / "sums" / "report.json").read_text())
    (variant,) = [variant for variant in report["variants"] if not variant["baseline"]]
    assert [(one["kind"], one["rows"], one["allowed"]) for one in variant["disturbed"]] == (
        [] if keep else [("noise", 256, None)]
    )
    assert ("On disturbed rows" in (tmp_path / "out" / "sums" / "report.html").read_text()) is not keep
    assert [(record.role, record.rows, record.source) for record in manifest.data] == [
        ("evaluation", 256, "network:evaluation")
    ]
    if kept is not None:
        (array,) = kept.values()
        assert len(array) == report["evaluation_rows"]
    store.remove(entry)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_changed_option_redoes_only_its_branch(tmp_path: Path) -> None:
    file = write_project(tmp_path / "project")
    assert "passes: 3 run, 0 from the cache" in hone("optimize", file, cwd=tmp_path).stderr
    entropy = {"preset": "onnx-int8-static", "options": {"quantize_static": {"method": "entropy"}}}
    write_project(tmp_path / "project", variants=["onnx-fp32", entropy])
    assert "passes: 1 run, 2 from the cache" in hone("optimize", file, "--no-store", cwd=tmp_path).stderr
    for artifact in (tmp_path / "home" / "cache" / "passes").iterdir():
        model = artifact / "model.onnx"
        model.write_bytes(model.read_bytes()[:-1] + b"\0")
    assert "passes: 3 run, 0 from the cache" in hone("optimize", file, "--no-store", cwd=tmp_path).stderr
    assert "passes: 3 run" in hone("optimize", file, "--no-store", "--force", cwd=tmp_path).stderr
    only = hone("optimize", file, "--no-store", "--only", "onnx-fp32", cwd=tmp_path)
    assert "passes: 0 run, 2 from the cache" in only.stderr
    assert store.resolve("sums").run in {entry.run for entry in store.entries("sums")}


def test_impossible_budget_exits_with_3_and_stores_nothing(tmp_path: Path) -> None:
    budget = {"quality_drop": 0.05, "size_mb": 0.000001}
    file = write_project(tmp_path / "project", GRAPH, budget=budget, variants=["onnx-fp32"])
    done = hone("optimize", file, cwd=tmp_path, expect=3)
    assert "no variant meets the budget" in one_error(done)
    assert "is over 1e-06 MB" in done.stdout
    assert store.entries() == []
    assert json.loads((tmp_path / "out" / "sums" / "report.json").read_text())["winner"] is None


def test_too_few_rows_to_prove_it_exit_with_4_and_keep_the_safest(tmp_path: Path) -> None:
    code = GRAPH.replace("return data(256, 3)", "return data(40, 3)")
    file = write_project(tmp_path / "project", code, variants=["onnx-fp32"], budget={"quality_drop": 0.02})
    done = hone("optimize", file, cwd=tmp_path, expect=4)
    error = one_error(done)
    assert "no variant is proven to meet the budget by 40 evaluation rows; the safest is onnx-fp32" in error
    assert "about 149 rows like these would decide" in error
    report = json.loads((tmp_path / "out" / "sums" / "report.json").read_text())
    (variant,) = [one for one in report["variants"] if not one["baseline"]]
    assert (report["winner"], report["safest"]) == (None, "onnx-fp32")
    assert (variant["verdict"], variant["loss"], variant["rows_to_decide"]) == ("undecided", 0, 149)
    assert variant["loss_upper"] == pytest.approx(1 - 0.05 ** (1 / 40), rel=0.02)
    assert variant["worst_class"] in ("class 0", "class 1")
    (entry,) = store.entries("sums")
    assert entry.tag == variant["tag"] and entry.tag in error
    with pytest.raises(StoreError, match=f"is proven to meet its budget; name one explicitly: {entry.tag}"):
        store.resolve("sums")
    assert store.resolve(entry.tag).undecided
    listed = hone("models", "list", cwd=tmp_path).stdout
    assert "undecided" in listed
    page = (tmp_path / "out" / "sums" / "report.html").read_text()
    assert "No variant is proven to meet the budget" in page and "149 rows" in page


def test_failing_pass_fails_its_variants_only(tmp_path: Path) -> None:
    code = GRAPH.replace("[[-1, 1], [1, -1]]", "[[-1e6, 1e6], [1e6, -1e6]]")
    file = write_project(tmp_path / "project", code, variants=["onnx-fp32", "onnx-fp16"])
    done = hone("optimize", file, cwd=tmp_path)
    assert "float16 ends at 65504" in done.stdout
    report = json.loads((tmp_path / "out" / "sums" / "report.json").read_text())
    assert {variant["name"]: variant["status"] for variant in report["variants"]}["onnx-fp16"] == "failed"
    assert report["winner"] == "onnx-fp32"


PLAIN = MODEL.replace("return train(Network(), 30)", "return Network().eval()")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("nn.Linear(4, 32)", "nn.Linear(5, 32)", "signature: the model fails on features float32"),
        ("return Network().eval()", "return 3", "returned builtins.int"),
        ("return Network().eval()", "raise RuntimeError('no weights')", "network:load failed (network.py:"),
        ('return {"features": features,', 'return {"feature": features,', "did you mean 'feature'"),
    ],
)
def test_wrong_model_or_data_names_the_field(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in PLAIN
    file = write_project(tmp_path / "project", code=PLAIN.replace(old, new))
    with pytest.raises(RecipeError) as error:
        prepare(file, tmp_path / "sources", tmp_path / "evaluation.npz")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "sources").exists() or not list((tmp_path / "sources").iterdir())


@pytest.mark.parametrize(
    ("forward", "words"),
    [
        ("scores if features.sum() > 0 else features[:, :2]", "torch can't trace Network"),
        ("scores.reshape(4, 2)[:features.shape[0]]", "batch"),
    ],
)
def test_untraceable_module_names_the_remedy(tmp_path: Path, forward: str, words: str) -> None:
    code = PLAIN.replace(
        "return self.scores(torch.relu(self.hidden(features)))",
        f"scores = self.scores(torch.relu(self.hidden(features)))\n        return {forward}",
    )
    file = write_project(tmp_path / "project", code=code)
    loaded = load_recipe(file)
    module = load_function("network:load", loaded.root, "source.loader")()
    assert loaded.recipe.signature is not None
    signature = loaded.recipe.signature.to_signature()
    with pytest.raises(PassError, match=words) as error:
        save_program(module, signature, PassContext(loaded, signature, lambda _: None), tmp_path / "model.pt2")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"variants": ["onnx-fp23"]}, "did you mean 'onnx-fp32'"),
        ({"quality": {"metric": "acuracy"}}, "unknown metric 'acuracy'; did you mean 'accuracy'"),
        ({"source": {"framework": "pytorch", "file": "model.onnx"}}, "source.framework: unknown framework 'pytorch'"),
        ({"quality": {"metric": "accuracy", "output": "score"}}, "no output 'score'; did you mean 'scores'"),
    ],
)
def test_mistake_is_found_before_any_pass_runs(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    done = hone("optimize", write_project(tmp_path / "project", code=GRAPH, **changes), cwd=tmp_path, expect=2)
    assert words in one_error(done)
    passes = tmp_path / "home" / "cache" / "passes"
    assert not passes.exists() or not list(passes.iterdir())


def test_debug_shows_the_traceback_of_a_worker(tmp_path: Path) -> None:
    code = GRAPH.replace("def load():", "def load():\n    raise RuntimeError('no weights')")
    file = write_project(tmp_path / "project", code=code)
    command = [sys.executable, "-c", "from hone.cli.main import main; main()", "--debug", "optimize", str(file)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode != 0
    assert "raise RuntimeError('no weights')" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_is_ended_keeps_finished_passes_and_leaves_no_process(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    slow = MODEL.replace(
        "def train(model, epochs):", "def train(model, epochs):\n    import time; time.sleep(epochs > 100 and 60)"
    )
    variants = ["onnx-fp32", {"preset": "pruned50-onnx-fp32", "options": {"prune": {"epochs": 101}}}]
    file = write_project(tmp_path / "project", code=slow, train="network:train", variants=variants)
    process = subprocess.Popen(
        [sys.executable, "-c", "from hone.cli.main import main; main()", "optimize", str(file)],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # A test run in the background of a shell ignores Ctrl-C, and so would what it starts.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    passes = tmp_path / "home" / "cache" / "passes"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        finished = [path for path in passes.glob("*") if not path.name.startswith(".")] if passes.exists() else []
        if len(finished) >= 2 and list(passes.glob(".*.partial")):
            break
        time.sleep(0.1)
    began = psutil.Process(process.pid).children(recursive=True)
    assert began
    os.kill(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert not psutil.wait_procs(began, timeout=30)[1]
    assert "Traceback" not in errors
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "interrupted; finished passes are cached" in errors
        assert not list(scratch.glob("hone-*"))
    assert not list(passes.glob(".*.partial"))
    done = hone("optimize", file, "--only", "onnx-fp32", cwd=tmp_path)
    assert "passes: 0 run, 2 from the cache" in done.stderr


DEADLY = """
import os, signal, sys

class Deadly:
    def find_spec(self, name, path, target=None):
        if name == "onnxruntime.quantization":
            os.kill(os.getpid(), signal.SIGKILL)

sys.meta_path.insert(0, Deadly())
"""
"""Of each process that is started: it is killed when it imports what quantization needs."""


def test_killed_worker_fails_its_pass_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(ROOT)]))
    file = write_project(tmp_path / "project", GRAPH, variants=["onnx-fp16", "onnx-int8-dynamic", "onnx-fp32"])
    done = hone("optimize", file, "--jobs", "2", cwd=tmp_path)
    assert "the worker process was killed" in done.stdout
    report = json.loads((tmp_path / "out" / "sums" / "report.json").read_text())
    status = {variant["name"]: variant["status"] for variant in report["variants"]}
    assert status == {"onnx": "built", "onnx-fp32": "built", "onnx-fp16": "built", "onnx-int8-dynamic": "failed"}


def test_dry_run_prints_the_tree_and_runs_nothing(tmp_path: Path) -> None:
    file = write_project(tmp_path / "project", variants=["onnx-fp32", "onnx-int8-static"])
    done = hone("optimize", file, "--dry-run", cwd=tmp_path)
    assert done.stdout.count("export") == 1
    assert "quantize_static" in done.stdout
    assert not (tmp_path / "home" / "cache" / "passes").exists()


def test_full_disk_names_the_folder_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass that can't write fails alone, and its half-written folder is gone."""
    file = write_project(tmp_path / "project", GRAPH)
    prepared = prepare(file, tmp_path / "sources", tmp_path / "evaluation.npz")
    limit = 100  # bytes a file may have in this process: the kernel's own refusal
    target = tmp_path / "passes" / "key"
    script = (
        "import resource, signal; from pathlib import Path\n"
        "from hone.converters.run.pass_task import PassTask, run_pass\n"
        "from hone.converters.run.workers import guarded\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        f"task = PassTask('export', {{}}, Path({str(prepared.source)!r}), Path({str(target)!r}), Path({str(file)!r}))\n"
        "print(guarded(run_pass, task))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=True)
    assert "expected=True" in done.stdout
    assert "export:" in done.stdout
    assert not list((tmp_path / "passes").glob("*"))
    assert not list((tmp_path / "passes").glob(".*"))
