"""`hone doctor MODEL` and `hone prove MODEL` tell before a deployment whether a model answers as it was proven."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hone import store
from hone.artifact import Selection
from hone.cli.main import cli
from hone.converters.proof.golden import Taken
from hone.hardware import tool_versions
from tests import goldens
from tests.corruptions import swap_outputs

RUN = "20260101-000000-0000"
OTHER = "1.22.0"
INSTALLED = tool_versions("onnxruntime").get("onnxruntime", "")


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    folder = tmp_path_factory.mktemp("golden")
    return goldens.taken(goldens.sealed(folder / "sound", goldens.network()), goldens.rows(), folder / "scratch")


def put(folder: Path, golden: Taken, *, wrong: bool = False, **changes: object) -> None:
    model = goldens.network()
    if wrong:
        swap_outputs(model)
    plain = goldens.sealed(folder / "plain", model)
    measured = goldens.proven(plain, goldens.rows()).measurements
    selection = Selection(run=RUN, rank=0, eligible=True, batch=1, threads=1)
    made = goldens.with_golden(folder / "made", plain, golden, measurements=measured, selection=selection, **changes)
    store.put(made, "small", "v1")


def hone(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def test_doctor_tells_hosts_requirements_and_answers(tmp_path: Path, golden: Taken) -> None:
    put(tmp_path, golden, requires={"x86_features": "avx2|sse2"})
    done = hone("doctor", "small")
    assert done.exit_code == 0, done.output
    for words in (
        "proven on",
        "this host",
        "requires   x86_features avx2|sse2",
        "256 golden rows match",
        "would serve",
    ):
        assert words in done.output


def test_doctor_refuses_what_answers_otherwise(tmp_path: Path, golden: Taken) -> None:
    put(tmp_path, golden, wrong=True)
    done = hone("doctor", "small:v1")
    assert (done.exit_code, type(done.exception).__name__) in ((3, "SystemExit"), (1, "GoldenError"))
    assert "other answers than its proof's" in done.output + str(done.exception)


def test_prove_compares_answers_and_speed(tmp_path: Path, golden: Taken) -> None:
    put(tmp_path, golden)
    done = hone("prove", "small", "--turns", "6", "--tolerance", "1000")
    assert done.exit_code == 0, done.output + str(done.exception)
    assert "match its golden rows (256 rows)" in done.output and "not compared" in done.output


def test_prove_refuses_other_answers(tmp_path: Path, golden: Taken) -> None:
    put(tmp_path, golden, wrong=True)
    done = hone("prove", "small", "--turns", "6")
    assert getattr(done.exception, "exit_code", done.exit_code) == 3
    assert "output 'left' is off by" in done.output


@pytest.mark.parametrize(
    ("requirement", "words"),
    [
        ("onnxruntime", "give PACKAGE==VERSION"),
        ("onnxruntime==1.2 -r /etc/passwd", "give PACKAGE==VERSION"),
        ("--index-url==1", "give PACKAGE==VERSION"),
        ("torch==2.0", "can be proven with onnxruntime==VERSION"),
    ],
)
def test_what_is_no_version_of_the_runtime_is_refused(
    tmp_path: Path, golden: Taken, requirement: str, words: str
) -> None:
    put(tmp_path, golden)
    done = hone("prove", "small", f"--with={requirement}")
    assert words in done.output + str(done.exception) and done.exit_code


def test_version_that_can_not_be_installed_leaves_nothing(
    tmp_path: Path, home: Path, golden: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network, as for a version that doesn't exist."""
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_NO_INDEX", "1")
    put(tmp_path, golden)
    done = hone("prove", "small", "--with", "onnxruntime==99.1")
    assert "--with onnxruntime==99.1 can't be installed" in done.output + str(done.exception)
    assert [path.name for path in (home / "cache" / "environments").iterdir()] == ["lock"]


@pytest.mark.slow
def test_another_version_takes_turns_with_the_installed_one(tmp_path: Path, home: Path, golden: Taken) -> None:
    """It lies in an environment of its own, which the next proof finds."""
    put(tmp_path, golden)
    asked = ("prove", "small", "--with", f"onnxruntime=={OTHER}", "--turns", "6", "--tolerance", "1000")
    done = hone(*asked)
    if "can't be installed" in str(done.exception):
        pytest.skip("no package index")
    assert done.exit_code in (0, 4), done.output + str(done.exception)
    assert f"with ONNX Runtime {OTHER}" in done.output and f"times the time of ONNX Runtime {INSTALLED}" in done.output
    assert tool_versions("onnxruntime")["onnxruntime"] == INSTALLED
    (made,) = [path for path in (home / "cache" / "environments").iterdir() if path.is_dir()]
    before = made.stat().st_mtime_ns
    assert hone(*asked).exit_code in (0, 4) and made.stat().st_mtime_ns == before
