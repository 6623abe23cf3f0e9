"""A cache that others can write to gives nothing that is loaded; what is old can be removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from hone.cache import check_own
from hone.cli.main import cli
from hone.converters.run.pipeline import Pipeline, Progress
from hone.errors import ArtifactError
from tests.models.dense import dense_artifact


def test_what_others_could_have_written_is_refused(tmp_path: Path) -> None:
    artifact = dense_artifact(tmp_path / "entry").path
    assert check_own(artifact) == artifact
    artifact.chmod(0o777)
    with pytest.raises(ArtifactError, match="other users could have written it; remove it, or set HONE_CACHE"):
        check_own(artifact)
    (tmp_path / "link").symlink_to(artifact)
    with pytest.raises(ArtifactError, match="other users"):
        check_own(tmp_path / "link")


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="only root can give a file away")
def test_result_of_another_user_is_made_anew(tmp_path: Path) -> None:
    artifact = dense_artifact(tmp_path / "entry").path
    said: list[str] = []
    assert Pipeline._cached(artifact, Progress(on_message=said.append)) is not None
    os.chown(artifact, 12345, 12345)
    assert Pipeline._cached(artifact, Progress(on_message=said.append)) is None
    assert "cache entry dropped" in said[0]


def test_prune_removes_what_was_not_used_for_a_while(home: Path) -> None:
    old, new = home / "cache" / "passes" / "old", home / "cache" / "passes" / "new"
    plan = home / "cache" / "tensorrt" / "engine.plan"
    for folder in (old, new):
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(b"0" * 1000)
    plan.parent.mkdir()
    plan.write_bytes(b"0" * 500)
    month_ago = time.time() - 40 * 86_400
    for path in (old / "model.onnx", old, plan):
        os.utime(path, (month_ago, month_ago))

    listed = CliRunner().invoke(cli, ["cache", "list"]).stdout.splitlines()
    assert [line.split() for line in listed[1:]] == [["passes", "2", "0.0", "MB"], ["tensorrt", "1", "0.0", "MB"]]
    dry = CliRunner().invoke(cli, ["cache", "prune", "--dry-run"])
    assert dry.stdout == "would remove 2 entries, 0.0 MB; 0.0 MB stay\n"
    assert old.is_dir()
    assert CliRunner().invoke(cli, ["cache", "prune"]).exit_code == 0
    assert not old.exists() and not plan.exists() and (new / "model.onnx").is_file()
    assert CliRunner().invoke(cli, ["cache", "prune", "--keep-gb", "0"]).exit_code == 0
    assert list(new.parent.iterdir()) == []
