"""Sketches that a service puts into an object store, and that are read from there on another host."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hone import store
from hone.cli.main import cli
from hone.errors import HoneError
from hone.lifecycle.drift.check import Question, check
from hone.services.observe.drift import Sketcher
from hone.sketches.bucket import Bucket, address_of, fetched
from hone.sketches.uploads import Uploads
from tests.buckets import s3_bucket
from tests.lifecycle.drift.traffic import NOW, NOW_S, normal, stored
from tests.models.dense import dense_answer


def test_address_is_told_from_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert address_of(Path("s3://models/hone/")) == "s3://models/hone" and address_of(tmp_path) == ""
    assert fetched(tmp_path, "dense", tmp_path / "cache") == tmp_path
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with pytest.raises(HoneError, match="name a bucket"):
        Bucket("s3://")


@pytest.mark.slow
def test_sketches_lie_in_s3_through_an_outage_and_are_read_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    stored(tmp_path)
    with s3_bucket(tmp_path, monkeypatch) as address:
        sketcher = Sketcher(Path(address), flush_s=0.05, clock=lambda: NOW_S)
        follower = sketcher.follow("dense", "v1", store.resolve("dense").opened())
        assert follower is not None
        uploads, real = sketcher._uploads, Bucket.put
        assert isinstance(uploads, Uploads)
        monkeypatch.setattr(Bucket, "put", _away)
        rows = normal(np.random.default_rng(1), 16, shift=3.0)
        follower.take({"features": rows}, {"scores": dense_answer(rows)})
        _until(lambda: sketcher.stats.failed_writes > 0)
        assert uploads.waiting and sketcher.stats.rows == 16
        monkeypatch.setattr(Bucket, "put", real)
        _until(lambda: not uploads.waiting)
        spool = uploads.folder
        sketcher.close()
        assert not spool.exists()
        found = check("dense", Path(address), Question(), NOW_S)
        assert found.rows == 16 and not found.problems
        assert check("dense", Path(address), Question(), NOW_S).rows == 16, "what was fetched is not fetched again"
        done = CliRunner().invoke(cli, ["drift", "check", "dense", "--dir", address])
        assert done.exit_code in (3, 4), done.output
        bucket = Bucket(address)
        assert len(bucket.names()) == 1
        uploads.remove_before(NOW + 1)
        assert bucket.names() == [] and check("dense", Path(address), Question(), NOW_S).rows == 0
    with pytest.raises(HoneError, match="s3://models/hone: can't be read"):
        check("dense", Path(address), Question(), NOW_S)
    gone = CliRunner().invoke(cli, ["drift", "check", "dense", "--dir", address])
    assert gone.exit_code == 1 and len(gone.output.splitlines()) == 1


def _away(*_: object) -> None:
    raise OSError("the store is away")


def _until(reached: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end
        time.sleep(0.02)
