"""A cache that others can write to gives nothing that is loaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hone.cache import check_own
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
