from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from hone.artifact import Artifact
from hone.errors import ArtifactError
from hone.files import atomic_directory, atomic_write
from tests.models.dense import dense_artifact


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


def rewrite(artifact: Artifact, **changes: object) -> None:
    """Change fields of a manifest on disk, as someone who made the artifact up could have written them."""
    manifest = json.loads((artifact.path / "artifact.json").read_text())
    manifest.update(changes)
    (artifact.path / "artifact.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../secret", "", ".", "a//b", "C:x", "a\\b", "a\nb"])
def test_file_outside_the_artifact_is_refused(tmp_path: Path, name: str) -> None:
    artifact = dense_artifact(tmp_path / "a")
    (tmp_path / "secret").write_bytes(b"x")
    record = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
    files = json.loads((artifact.path / "artifact.json").read_text())["files"]
    rewrite(artifact, files={**files, name: record})
    with pytest.raises(ArtifactError, match="outside the artifact"):
        Artifact.open(artifact.path, verify=False)


@pytest.mark.parametrize("entry", ["../other/model.onnx", "/etc/passwd", "unlisted.onnx", "artifact.json"])
def test_entry_that_is_not_a_listed_file_is_refused(tmp_path: Path, entry: str) -> None:
    dense_artifact(tmp_path / "other")
    artifact = dense_artifact(tmp_path / "a")
    rewrite(artifact, entry=entry)
    with pytest.raises(ArtifactError, match=r"entry: .* is not one of the files"):
        Artifact.open(artifact.path, verify=False)


def test_link_in_an_artifact_is_refused_even_with_the_right_content(tmp_path: Path) -> None:
    artifact = dense_artifact(tmp_path / "a")
    artifact.entry.rename(tmp_path / "elsewhere.onnx")
    artifact.entry.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(ArtifactError, match="a symbolic link"):
        Artifact.open(artifact.path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("name", "../x"), ("name", "Evil <script>"), ("runtime", "on\nnx"), ("variant", "\x1b[31m"), ("precision", "a b")],
)
def test_words_of_a_manifest_are_plain(tmp_path: Path, field: str, value: str) -> None:
    artifact = dense_artifact(tmp_path / "a")
    rewrite(artifact, **{field: value})
    with pytest.raises(ArtifactError, match=rf"artifact\.json: {field}: "):
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
