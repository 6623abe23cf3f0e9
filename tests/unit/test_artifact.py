from __future__ import annotations

import json
from pathlib import Path

import pytest

from hone.artifact import Artifact, atomic_directory, atomic_write
from hone.errors import ArtifactError
from tests.models import dense_artifact


def test_digest_depends_on_content_not_on_measurements_or_dates(tmp_path: Path) -> None:
    one = dense_artifact(tmp_path / "a")
    two = dense_artifact(tmp_path / "b", rank=3)
    other = dense_artifact(tmp_path / "c", seed=1)
    assert one.digest == two.digest != other.digest


def test_missing_file_is_named(tmp_path: Path) -> None:
    artifact = dense_artifact(tmp_path / "a")
    artifact.entry.unlink()
    with pytest.raises(ArtifactError, match=r"model\.onnx: missing"):
        Artifact.open(artifact.path)


def test_file_added_afterwards_is_named(tmp_path: Path) -> None:
    artifact = dense_artifact(tmp_path / "a")
    (artifact.path / "extra.bin").write_bytes(b"x")
    with pytest.raises(ArtifactError, match=r"extra\.bin: not listed"):
        artifact.verify()


def test_file_outside_the_artifact_is_refused(tmp_path: Path) -> None:
    artifact = dense_artifact(tmp_path / "a")
    (tmp_path / "secret").write_bytes(b"x")
    manifest = json.loads((artifact.path / "artifact.json").read_text())
    manifest["files"]["../secret"] = {"sha256": "0" * 64, "size": 1}
    (artifact.path / "artifact.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="outside the artifact"):
        Artifact.open(artifact.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 1}'])
def test_broken_manifest_is_one_line(tmp_path: Path, text: str) -> None:
    artifact = dense_artifact(tmp_path / "a")
    (artifact.path / "artifact.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"artifact\.json") as error:
        Artifact.open(artifact.path)
    assert "\n" not in str(error.value)


def test_failed_block_leaves_no_directory(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "made" / "out") as partial:
        (partial / "half").write_text("x")
        raise RuntimeError
    assert list((tmp_path / "made").iterdir()) == []


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "made" / "report.json"
    atomic_write(file, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        atomic_write(file, "new")
    assert file.read_text() == "old"
    assert list(file.parent.iterdir()) == [file]
