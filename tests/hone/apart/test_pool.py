"""Processes apart: real ones, which answer, fail, hang, end and are started again."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest

from hone.apart.pool import Pool
from hone.apart.process import EndedError, Process, Program, RowsError
from hone.errors import ModelError, RestartingError
from tests.house import ROOT
from tests.models import python as model

ECHO = """
def load(folder):
    shift = int((folder / "shift.txt").read_text())
    return lambda rows: {name: array if array.dtype.kind in "Ob" else array + shift for name, array in rows.items()}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("code")
    (folder / "model.py").write_text(model.CODE)
    (folder / "echo.py").write_text(ECHO)
    (folder / "shift.txt").write_text("0")
    return folder


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[Pool]:
    with closing(Pool(Program(folder, "predict", "model:predict", "m", answer_mb=20), waits_s=(0.0,))) as pool:
        yield pool


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_tensors_of_every_kind_go_there_and_back(folder: Path) -> None:
    tensors = {
        **{
            dtype: np.arange(6).reshape(2, 3).astype(dtype)
            for dtype in ("float16", "float64", "int8", "uint64", "bool")
        },
        "text": np.array([["a", "größer"], ["", "\n"]], dtype=object),
        "none": np.zeros((0, 3), np.float32),
        "large": np.random.default_rng(0).normal(size=(300, 2000)),
        "sliced": np.arange(12, dtype=np.int64).reshape(3, 4)[:, ::2],
    }
    with closing(Process(Program(folder, "load", "echo:load"))) as process:
        answer = process.call(tensors, [])
    assert list(answer) == list(tensors)
    for name, array in tensors.items():
        assert answer[name].dtype == array.dtype, name
        np.testing.assert_array_equal(answer[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("what", "error", "line"),
    [
        (model.RAISE, ModelError, r"model:predict raised KeyError: 'no such key' \(model.py:10\)"),
        (model.REFUSE, RowsError, "model:predict: x is out of range"),
        (model.NO_DICT, ModelError, "returned a list, not a dict of arrays by name"),
        (model.NO_NAME, ModelError, "returned no 'y', only 'z'"),
        (model.OBJECTS, ModelError, "returned 'y' with objects of dict; give it a dtype"),
        (model.RAGGED, ModelError, "returned 'y' that is no array"),
        (model.LARGE, ModelError, r"returned 48 MB; at most 20 MB may be \(answer_mb\)"),
        (model.SYS_EXIT, ModelError, "raised SystemExit: 4"),
    ],
)
def test_what_a_model_does_wrong_is_told_in_a_line_and_it_goes_on(
    pool: Pool, what: int, error: type[ModelError], line: str
) -> None:
    before = pool.processes()
    with pytest.raises(error, match=line) as caught:
        pool.call(model.rows_of(what), ["y"])
    assert "\n" not in str(caught.value)
    np.testing.assert_array_equal(pool.call(model.ROWS, ["y"])["y"], [1, 2, 3, 4])
    assert pool.processes() == before


@pytest.mark.parametrize(
    ("what", "line"), [(model.EXIT, "its process ended with status 3"), (model.SIGNAL, "was killed by SIGKILL")]
)
def test_a_process_that_ends_costs_its_batch_and_is_started_again(pool: Pool, what: int, line: str) -> None:
    with pytest.raises(EndedError, match=line):
        pool.call(model.rows_of(what), ["y"])
    until(lambda: not pool.problem)
    assert pool.call(model.ROWS, ["y"])["y"].tolist() == [1, 2, 3, 4]


def test_a_process_that_ends_while_nobody_asks_is_noticed(folder: Path) -> None:
    with closing(Pool(Program(folder, "predict", "model:predict", "m"), waits_s=(1000.0,))) as pool:
        os.kill(pool.processes()[0], signal.SIGKILL)
        until(lambda: "was killed by SIGKILL" in pool.problem)
        with pytest.raises(RestartingError):
            pool.call(model.ROWS, ["y"])


@pytest.mark.parametrize(
    ("what", "limits", "line"),
    [
        (model.HANG, {"timeout_s": 0.5}, r"gave no answer in 0.5 s \(timeout_s\); its process was ended"),
        (model.GREEDY, {"memory_mb": 150}, r"held more than 150 MiB \(memory_mb\); its process was ended"),
    ],
)
def test_a_call_beyond_its_limits_is_ended(folder: Path, what: int, limits: dict[str, float], line: str) -> None:
    with closing(Process(Program(folder, "predict", "model:predict", **limits))) as process:  # type: ignore[arg-type]
        with pytest.raises(EndedError, match=line):
            process.call(model.rows_of(what), ["y"])
        assert gone(process.pid)


def test_one_process_answers_while_another_is_at_a_long_call(folder: Path) -> None:
    with ThreadPoolExecutor(1) as other, closing(Pool(Program(folder, "predict", "model:predict"), 2)) as pool:
        long = other.submit(pool.call, model.rows_of(model.HANG), ["y"])
        for _ in range(4):
            assert pool.call(model.ROWS, ["y"])["y"].tolist() == [1, 2, 3, 4]
        assert not long.done()
        pool.close()
        with pytest.raises(EndedError):
            long.result()


def test_a_process_that_comes_to_hold_too_much_is_ended_after_its_answer(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hone.apart.process.LOOK_S", 60.0)  # not during the call
    with closing(Pool(Program(folder, "predict", "model:predict", memory_mb=150), waits_s=(1000.0,))) as pool:
        assert pool.call(model.rows_of(model.KEEP), ["y"])["y"].tolist() == [30, 30]
        assert "its process was ended: it held more than 150 MiB" in pool.problem


@pytest.mark.parametrize(
    ("reference", "code", "line"),
    [
        ("model:predcit", None, "module 'model' has no function 'predcit'; did you mean 'predict'"),
        ("broken:predict", "import no_such_module", "raised ModuleNotFoundError: No module named 'no_such_module'"),
        ("ends:predict", "import os; os._exit(7)", "its process ended with status 7 at its start"),
        ("json:load", "def load(x): return x", "module 'json' is also one of Python's; give yours another name"),
    ],
)
def test_what_does_not_start_says_why(folder: Path, reference: str, code: str | None, line: str) -> None:
    if code is not None:
        (folder / f"{reference.partition(':')[0]}.py").write_text(code)
    with pytest.raises(ModelError, match=line):
        Process(Program(folder, "predict", reference))


def test_what_a_model_prints_goes_to_the_log(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "hone.python"):
        assert pool.call(model.rows_of(model.PRINT), ["y"])["y"].tolist() == [24, 24]
        until(lambda: any("m: a line for the log" in line for line in caplog.messages))


def test_settings_of_the_service_are_not_told_to_a_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_API_KEYS", "secret")
    with closing(Process(Program(folder, "predict", "model:predict"))) as process:
        assert process.call(model.rows_of(model.SAYS), ["y"])["y"].tolist() == ["[]", "[]"]


def test_nothing_is_left_of_a_model_when_its_owner_is_killed(folder: Path) -> None:
    """Not even what the model itself started, nor one that holds the interpreter in C code."""
    (folder / "parent.py").write_text(
        "import re, subprocess\n"
        "def predict(rows):\n"
        "    child = subprocess.Popen(['sleep', '1000'])\n"
        "    print('child', child.pid, flush=True)\n"
        "    re.match(r'(a|a)*b', 'a' * 100)\n"  # never ends, and no other thread runs meanwhile
    )
    owner = (
        "import logging, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from hone.apart.process import Process, Program\n"
        "logging.basicConfig(level='INFO', stream=sys.stdout, format='%(message)s')\n"
        f"process = Process(Program(Path({str(folder)!r}), 'predict', 'parent:predict', 'm'))\n"
        "print('process', process.pid, flush=True)\n"
        "process.call({'x': np.zeros((1, 1))}, [])\n"
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout is not None
        found = [int(running.stdout.readline().split()[-1]) for _ in range(2)]
        assert not any(gone(process) for process in found)
        running.kill()
    until(lambda: all(gone(process) for process in found))
