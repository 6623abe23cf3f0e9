from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hone import store
from hone.cli.main import cli
from tests.models.dense import dense_artifact


def hone(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def entries(tmp_path: Path) -> list[store.Entry]:
    """Two variants of one run, the second the winner."""
    return [
        store.put(dense_artifact(tmp_path / variant, variant=variant, rank=rank, seed=rank), "dense", f"{variant}-1")
        for rank, variant in ((1, "onnx-fp32"), (0, "onnx-int8"))
    ]


def test_list_has_the_best_first_and_json_for_programs(entries: list[store.Entry]) -> None:
    lines = hone("models", "list").output.splitlines()
    assert lines[1].startswith("dense:onnx-int8-1")
    assert lines[2].startswith("dense:onnx-fp32-1")
    assert json.loads(hone("models", "list", "--json").output.splitlines()[0])["tag"] == "dense:onnx-int8-1"


def test_empty_store_says_what_fills_it() -> None:
    assert "hone optimize puts them there" in hone("models", "list").output


def test_show_has_signature_and_files(entries: list[store.Entry]) -> None:
    text = hone("models", "show", "dense").output
    assert "features: float32[batch, 4]" in text
    assert "model.onnx" in text
    assert json.loads(hone("models", "show", "dense", "--json").output)["variant"] == "onnx-int8"


def test_diff_names_what_changed(entries: list[store.Entry]) -> None:
    text = hone("models", "diff", "dense:onnx-fp32", "dense:onnx-int8").output
    assert "variant: onnx-fp32 -> onnx-int8" in text
    assert "file model.onnx" in text


def test_diff_compares_layers_when_asked(entries: list[store.Entry]) -> None:
    text = hone("models", "diff", "dense:onnx-fp32", "dense:onnx-int8", "--layers").output
    header, *rows = text.split("\n\n")[1].splitlines()
    assert header.split() == ["layer", "cosine", "bits", "zeros"]
    # W has 12 values, too few for a layer: nothing else is in this model.
    assert rows == []


def test_verify_names_the_corrupt_file_and_fails(entries: list[store.Entry]) -> None:
    assert hone("models", "verify").exit_code == 0
    (entries[0].path / "model.onnx").write_bytes(b"x")
    result = hone("models", "verify")
    assert result.exit_code == 1
    assert "corrupt  dense:onnx-fp32-1" in result.output
    assert "ok       dense:onnx-int8-1" in result.output


def test_unreadable_entry_does_not_hide_the_others(entries: list[store.Entry]) -> None:
    (entries[0].path / "artifact.json").write_text("{")
    assert "unreadable" in hone("models", "list").output
    assert store.resolve("dense").tag == "dense:onnx-int8-1"


def test_export_import_round_trip(entries: list[store.Entry], tmp_path: Path) -> None:
    assert hone("models", "export", "dense", str(tmp_path)).exit_code == 0
    archive = tmp_path / "dense-onnx-int8-1.tar.gz"
    result = hone("models", "import", str(archive))
    assert result.exit_code == 1
    assert "entries never change" in result.output
    assert hone("models", "rm", "-y", "dense:onnx-int8").exit_code == 0
    assert hone("models", "import", str(archive)).exit_code == 0


@pytest.mark.parametrize("content", [b"", b"not a tar", None])
def test_broken_archive_is_one_line(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "model.tar.gz"
    if content is not None:
        file.write_bytes(content)
    result = hone("models", "import", str(file))
    assert result.exit_code == 1
    assert len(result.output.splitlines()) == 1


def test_rm_asks_and_needs_a_version(entries: list[store.Entry]) -> None:
    assert "names no version" in hone("models", "rm", "dense").output
    assert hone("models", "rm", "dense:onnx-fp32").exit_code == 1  # no answer to the question
    assert len(store.entries()) == 2
    assert hone("models", "rm", "-y", "--all-versions", "dense").exit_code == 0
    assert store.entries() == []


def test_misspelled_command_names_the_nearest() -> None:
    assert "did you mean 'optimize'" in hone("optimise", "x").output


def test_doctor_lists_every_runtime() -> None:
    text = hone("doctor").output
    for name in ("onnx", "torch", "mlx", "tensorrt", "keras", "sklearn", "xgboost", "locust"):
        assert name in text
    assert "[torch,tensorrt]" in " ".join(text.split())


@pytest.mark.parametrize("arguments", [["show", "dense", "--json"], ["list"]])
def test_reader_that_has_seen_enough_is_no_error(entries: list[store.Entry], arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from hone.cli.main import main; main()", "models", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(60) == 1


def test_export_to_a_folder_that_is_not_there_says_so(entries: list[store.Entry], tmp_path: Path) -> None:
    answer = hone("models", "export", "dense", str(tmp_path / "new"))
    assert answer.exit_code == 1
    assert "no such folder; make it first" in answer.output


def test_rm_takes_what_one_run_stored(entries: list[store.Entry]) -> None:
    (run,) = {entry.run for entry in entries}
    refused = hone("models", "rm", "-y", "dense", "--run", "20200101-000000-abcd")
    assert refused.exit_code == 1
    assert "no run '20200101-000000-abcd' of 'dense'" in refused.output
    assert hone("models", "rm", "-y", "dense", "--run", run).exit_code == 0
    assert store.entries() == []
