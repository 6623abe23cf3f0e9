"""`hone profile MODEL`: where the time goes, what two variants differ by, and what it is told wrong."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hone import store
from hone.artifact import Artifact, Selection
from hone.cli.main import cli
from hone.plan import Host, Plan
from hone.store.rows import keep_rows
from tests.models.dense import dense_artifact
from tests.models.perceptron import perceptron, perceptron_rows, perceptron_signature
from tests.passes import Bench

FEW = ("--rows", "20", "--batch", "4")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """A perceptron in float and in int8, judged at two rows and one thread."""
    bench = Bench(tmp_path_factory.mktemp("bench"), perceptron_signature(), perceptron_rows())
    plain = bench.artifact(perceptron())
    variants = {"onnx-fp32": plain, "onnx-int8": bench.run("quantize_static", plain)}
    selection = Selection(run="20260101-000000-0000", rank=0, eligible=True, batch=2, threads=1)
    return {name: one.with_manifest(variant=name, selection=selection) for name, one in variants.items()}


@pytest.fixture
def stored(made: dict[str, Artifact]) -> None:
    for name, one in made.items():
        store.put(one, "small", f"{name}-1")


def hone(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["profile", *arguments])


@pytest.mark.usefixtures("stored")
def test_table_has_operators_and_the_time_without_the_profiler() -> None:
    done = hone("small:onnx-fp32", "--rows", "20")
    assert done.exit_code == 0, done.output + str(done.exception)
    first, rows, time, *_ = done.output.splitlines()
    assert first.startswith("small:onnx-fp32-1  fp32, ONNX Runtime") and first.endswith(
        "threads 1 (as its proof was judged)"
    )
    assert rows == "rows    random rows: the artifact keeps none; batches of 2 (x 2x32), 10 runs"
    assert "ms with the profiler (+" in time or "ms with the profiler (-" in time
    assert "MatMul" in done.output and "SLOWEST NODE" in done.output


@pytest.mark.usefixtures("stored")
def test_two_variants_stand_side_by_side(tmp_path: Path) -> None:
    done = hone("small:onnx-fp32", "--against", "small:onnx-int8", *FEW, "--out", str(tmp_path / "out"))
    assert done.exit_code == 0, done.output + str(done.exception)
    lines = done.output.splitlines()
    (header,) = (line for line in lines if line.startswith("FOR"))
    assert header.split() == ["FOR", "MS", "MS", "CHANGE", "onnx-fp32-1", "onnx-int8-1"]
    (products,) = (line for line in lines if line.startswith("matrix products"))
    assert products.split()[-2:] == ["MatMul", "QLinearMatMul"]
    assert any(line.startswith("small:onnx-int8-1 is ") for line in lines)
    for folder in (tmp_path / "out", tmp_path / "out" / "against"):
        assert json.loads((folder / "profile.json").read_text())["kind"] == "profile"
        assert json.loads((folder / "trace.json").read_text())[0]["ph"] == "X"


@pytest.mark.usefixtures("stored")
def test_json_is_one_object_a_model() -> None:
    done = hone("small:onnx-fp32", "--against", "small:onnx-int8", *FEW, "--json")
    found = [json.loads(line) for line in done.output.splitlines()]
    assert [(one["model"], one["batch"], one["runs"]) for one in found] == [
        ("small:onnx-fp32-1", 4, 5),
        ("small:onnx-int8-1", 4, 5),
    ]
    assert {one["operator"] for one in found[1]["operators"]} >= {"QLinearMatMul", "QuantizeLinear"}


@pytest.mark.usefixtures("stored")
def test_rows_of_the_evaluation_are_taken_where_they_are_kept() -> None:
    keep_rows(store.resolve("small:onnx-fp32").path, perceptron_rows(3))
    done = hone("small:onnx-fp32", *FEW)
    assert "rows    rows of its evaluation; batches of 4" in done.output, done.output + str(done.exception)


@pytest.mark.usefixtures("stored")
def test_plan_of_the_service_says_the_threads(made: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    plan = Plan(
        model="small:onnx-fp32-1", digest=made["onnx-fp32"].digest, workers=1, threads=2, in_flight=1,
        max_batch_rows=8, inline=True, pad=False, created="now", host=Host(cpu="c", cores=2),
    )  # fmt: skip
    monkeypatch.setenv("HONE_PLAN", plan.model_dump_json())
    assert "threads 2 (as HONE_PLAN says)" in hone("small:onnx-fp32", *FEW).output
    assert "threads 1 (as its proof was judged)" in hone("small:onnx-int8", *FEW).output
    assert "threads 1 (as asked for)" in hone("small:onnx-fp32", *FEW, "--threads", "1").output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "no model 'nothing'"),
        (("small:onnx-fp16",), "no version 'onnx-fp16' of 'small'"),
        (("small:onnx-fp32", "--against", "small:x"), "no version 'x' of 'small'"),
        (("small:onnx-fp32", "--batch", "0"), "0 is not in the range x>=1"),
        (("small:onnx-fp32", "--rows", "0"), "0 is not in the range x>=1"),
        (("small:onnx-fp32", "--out", "/proc/none"), "the profile can't be written to /proc/none"),
    ],
)
@pytest.mark.usefixtures("stored")
def test_bad_input_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    done = hone(*arguments)
    assert done.exit_code != 0
    assert words in done.output + str(done.exception)


def test_runtime_that_cannot_be_opened_here_says_why(tmp_path: Path) -> None:
    for name, changes, words in (
        ("gpu", {"runtime": "tensorrt"}, "no NVIDIA GPU on this host"),
        ("cuda", {"runtime_options": {"providers": ["CUDAExecutionProvider"]}}, "needs ONNX Runtime's CUDA provider"),
    ):
        store.put(dense_artifact(tmp_path / name, name=name).with_manifest(**changes), name, "v1")
        done = hone(f"{name}:v1")
        assert done.exit_code != 0
        assert words in done.output + str(done.exception)


def test_corrupt_model_is_named(tmp_path: Path) -> None:
    entry = store.put(dense_artifact(tmp_path / "a"), "dense", "v1")
    (entry.path / "model.onnx").write_bytes(b"")
    done = hone("dense:v1")
    assert "corrupt" in done.output + str(done.exception)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("can't mount a small file system")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.usefixtures("stored")
def test_full_disk_is_one_line_and_leaves_no_half_written_file(small_disk: Path) -> None:
    done = hone("small:onnx-fp32", *FEW, "--out", str(small_disk))
    assert done.exit_code != 0
    assert "No space left on device" in done.output + str(done.exception)
    assert [file for file in small_disk.rglob("*.json") if not file.read_bytes().rstrip().endswith((b"]", b"}"))] == []


@pytest.mark.usefixtures("stored")
def test_full_temporary_folder_is_told_before_the_runtime_blames_the_model(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    done = hone("small:onnx-fp32", *FEW)
    assert done.exit_code != 0
    assert f"{small_disk}: 0 MB free, a profile of small needs 20 MB there" in done.output + str(done.exception)
