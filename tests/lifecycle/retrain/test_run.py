"""A retraining from its training to the champion: better, worse, cut off anywhere, two at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hone import store
from hone.cli.main import cli
from hone.lifecycle.registry.history import changes
from hone.lifecycle.retrain import journal as journals
from hone.lifecycle.retrain.journal import Journal, Run
from hone.lifecycle.retrain.run import retrain
from hone.store.registry import registered
from tests.lifecycle.retrain.project import teach, write_project
from tests.models.python import python_recipe
from tests.servers import use_store

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
HONE = str(Path(sys.executable).with_name("hone"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENTOML_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    use_store(tmp_path / "home")
    return write_project(tmp_path / "project", cooldown_h=24)


def hone(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def champion() -> str:
    return store.resolve("dense@champion").version


def last() -> Run:
    run = Journal("dense").last()
    assert run is not None
    return run


def test_a_better_model_is_promoted_and_a_worse_one_changes_nothing(project: Path) -> None:
    first = hone("retrain", "run", project)
    assert first.exit_code == 0, first.output
    served = champion()
    assert last().outcome == "promoted"
    assert [change.action for change in changes("dense")][-1] == "retrain"

    early = hone("retrain", "run", project, "--scheduled")
    assert early.exit_code == 1 and "the last run is less than 24 h ago" in early.output

    teach(project.parent, "other")
    worse = hone("retrain", "run", project)
    assert worse.exit_code == 3, worse.output
    assert "stays a candidate: champion: " in worse.output
    assert champion() == served
    assert (project.parent / "model.onnx").read_bytes() == (project.parent / "good.onnx").read_bytes()

    teach(project.parent, "fails")
    failed = hone("retrain", "run", project)
    assert failed.exit_code == 1 and "the data base is away" in failed.output
    assert champion() == served
    shown = hone("retrain", "status", "dense").output
    assert [line.split()[1] for line in shown.splitlines()] == ["failed", "kept", "promoted"]


@pytest.mark.parametrize("step", ["train", "optimize", "promote"])
def test_a_run_that_is_killed_goes_on_where_it_was(project: Path, step: str) -> None:
    process = subprocess.Popen([HONE, "retrain", "run", project], start_new_session=True)
    journal = Journal("dense")
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        run = journal.last()
        if run is not None and step in run.steps:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while journal.is_busy() and time.monotonic() < deadline:  # by a child between fork and exec
        time.sleep(0.05)
    cut = last()
    assert step in cut.steps
    if not cut.ended:
        assert "was cut off" in hone("retrain", "status", "dense").output
        trained = cut.steps["train"].ended
        again = hone("retrain", "run", project, "--scheduled")
        assert again.exit_code == 0, again.output
        assert last().id == cut.id
        assert not trained or last().steps["train"].ended == trained
    assert last().outcome == "promoted"
    assert champion() == last().candidate.partition(":")[2]
    assert len(registered("dense").past) <= 1


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("write", range(9))
def test_a_run_that_is_killed_at_any_write_of_its_journal_goes_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, write: int, before: bool
) -> None:
    """A run writes that it begins, that each of three steps begins and ends, and in two files that it ended."""

    class KilledError(BaseException):
        pass

    real, count = journals.atomic_write, 0

    def killed(file: Path, *arguments: object, **options: object) -> None:
        nonlocal count
        count += 1
        if count == write + 1 and before:
            raise KilledError
        real(file, *arguments, **options)  # type: ignore[arg-type]
        if count == write + 1:
            raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(journals, "atomic_write", killed)
        retrain(project, "a test", by_hand=True)
    cut = Journal("dense").last()
    if cut is not None and cut.ended:
        assert cut.outcome == "promoted"
        return
    again = retrain(project, "a test", by_hand=True)
    assert again.outcome == "promoted" and champion() == again.candidate.partition(":")[2]
    assert cut is None or again.id == cut.id
    assert [run.id for run in Journal("dense").ended()] == [again.id]
    trained = [*(Journal("dense").work(again)).glob("train.log")]
    assert len(trained) == 1 and len([one for one in store.entries() if one.name == "dense"]) <= 2


def test_two_at_once_are_one(project: Path) -> None:
    teach(project.parent, "sleeps")
    process = subprocess.Popen([HONE, "retrain", "run", project])
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not Journal("dense").folder.joinpath("run.json").exists():
            time.sleep(0.05)
        second = hone("retrain", "run", project)
        assert second.exit_code == 1 and "dense is being retrained" in second.output
        assert "goes on" in hone("retrain", "status", "dense").output
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert not last().ended


@pytest.mark.usefixtures("project")
def test_a_model_in_python_gets_new_files(tmp_path: Path) -> None:
    code = """
def load(folder):
    weight = float((folder / "weight.txt").read_text())
    return lambda rows: {"y": rows["x"].sum(axis=1) * weight}
"""
    train = "import os; open(os.environ['HONE_RETRAIN_OUT'] + '/weight.txt', 'w').write('2')"
    python = {"load": "model:load", "files": ["weight.txt"]}
    recipe = python_recipe(
        tmp_path / "code", code, python, budget={"quality_drop": 0.1, "at": {"batch": 1, "threads": 1}},
        quality={"metric": "likeness", "output": "y"},
        measure={"batches": [1], "threads": [1], "rounds": 3, "round_ms": 5},
        promotion={"latency": None, "size": None}, retrain={"command": "python train.py"},
    )  # fmt: skip
    np.savez(recipe.root / "rows.npz", x=np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32))
    for name, text in (("weight.txt", "1"), ("train.py", train)):
        (recipe.root / name).write_text(text)
    done = hone("retrain", "run", recipe.path)
    assert done.exit_code == 0, done.output
    entry = store.resolve("code@champion")
    assert (entry.path / "code" / "weight.txt").read_text() == "2"
    assert (recipe.root / "weight.txt").read_text() == "1"
