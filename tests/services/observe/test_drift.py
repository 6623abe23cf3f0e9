"""Sketches that a service writes: of few rows a second, whole files, one an hour, and never at serving's cost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from hone.artifact import Artifact
from hone.cli.main import cli
from hone.services.observe import drift
from hone.services.observe.drift import ROWS_A_REQUEST, ROWS_A_SECOND, Follower, Sketcher
from hone.services.observe.metrics import Metrics
from hone.sketches import folder as sketches
from hone.sketches.reference import FILE, References, make_references
from hone.sketches.window import Window
from tests.models.dense import dense_answer, dense_artifact, dense_signature
from tests.servers import HONE, server, use_store

HOUR = 500_000


@pytest.fixture(scope="module")
def references() -> References:
    rows = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
    made = make_references(dense_signature(), {"features": rows}, {"scores": dense_answer(rows)}, private=False)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory, references: References) -> Artifact:
    home = tmp_path_factory.mktemp("drift")
    made = dense_artifact(home / "artifact").with_manifest(drift=FILE)
    (made.path / FILE).write_text(references.model_dump_json())
    return made


class Clock:
    now = HOUR * 3600.0 + 10

    def __call__(self) -> float:
        return self.now


@contextmanager
def sketching(folder: Path, artifact: Artifact, clock: Clock, **options: float) -> Iterator[tuple[Sketcher, Follower]]:
    sketcher = Sketcher(folder, flush_s=0.05, clock=clock, **options)  # type: ignore[arg-type]
    follower = sketcher.follow("m", "v1", artifact)
    assert follower is not None
    try:
        yield sketcher, follower
    finally:
        sketcher.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "TICK_S", 0.02)


def offer(follower: Follower, count: int) -> bool:
    rows = np.ones((count, 4), np.float32)
    return follower.take({"features": rows}, {"scores": dense_answer(rows)})


def wait_for(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def windows(folder: Path, hour: int = HOUR) -> list[Window]:
    return sketches.read(folder, "m", hour).windows


def test_rows_are_sketched_by_the_hour_and_the_last_ones_at_the_end(tmp_path: Path, artifact: Artifact) -> None:
    clock = Clock()
    with sketching(tmp_path, artifact, clock) as (sketcher, follower):
        assert offer(follower, 3)
        wait_for(lambda: windows(tmp_path))
        clock.now += 3600
        assert offer(follower, 2)
        wait_for(lambda: sketcher.stats.rows == 5)
        offer(follower, 4)
    assert [(one.about.hour, one.rows, one.requests) for one in windows(tmp_path, HOUR + 1)] == [
        (HOUR, 3, 1),
        (HOUR + 1, 6, 2),
    ]
    assert sketcher.stats.failed_writes == 0 and not list(tmp_path.rglob(".*"))
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in tmp_path.rglob("*.sketch"))


def test_a_second_takes_a_bounded_number_of_rows_from_all_over_a_request(references: References) -> None:
    follower = Follower("m", "v1", references, "")
    rows = np.arange(400, dtype=np.float32).reshape(100, 4)
    assert follower.take({"features": rows}, {"scores": dense_answer(rows)})
    ((inputs, outputs),) = follower.taken()
    assert len(inputs["features"]) == ROWS_A_REQUEST == len(outputs["scores"])
    assert inputs["features"][-1, 0] > 360 and inputs["features"].base is None
    taken = [offer(follower, ROWS_A_REQUEST) for _ in range(10)]
    assert taken.index(False) == ROWS_A_SECOND // ROWS_A_REQUEST - 1
    assert sum(len(inputs["features"]) for inputs, _ in follower.taken()) == ROWS_A_SECOND
    wide = np.zeros((20, 200_000), np.float32)
    assert follower.take({"features": wide}, {}) is True and follower.take({"features": wide}, {}) is False
    assert [len(inputs["features"]) for inputs, _ in follower.taken()] == [2, 1]  # 2 MB a second


def test_workers_windows_are_merged_and_a_killed_ones_half_file_is_not_read(tmp_path: Path, artifact: Artifact) -> None:
    for _ in range(2):
        with sketching(tmp_path, artifact, Clock()) as (_, follower):
            offer(follower, 5)
    place = next(tmp_path.rglob("*.sketch")).parent
    (place / ".vm-1-a.sketch.k3j").write_bytes(b"HONE")
    assert [one.rows for one in windows(tmp_path)] == [10] and len(list(place.glob("*.sketch"))) == 2


def test_full_disk_costs_sketches_only_and_they_are_written_when_it_has_room(
    tmp_path: Path, artifact: Artifact
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("a disk can't be mounted here")
    try:
        with sketching(disk / "sketches", artifact, Clock()) as (sketcher, follower):
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(4096))
            offer(follower, 5)
            wait_for(lambda: sketcher.stats.failed_writes >= 2)
            assert offer(follower, 5) and not windows(disk / "sketches")
            (disk / "filler").unlink()
            wait_for(lambda: windows(disk / "sketches"))
        assert [one.rows for one in windows(disk / "sketches")] == [10]
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_requests_are_taken_until_a_second_has_enough(references: References) -> None:
    metrics = Metrics("sketched", "v1")
    metrics.follower = follower = Follower("sketched", "v1", references, "")
    rows = np.ones((ROWS_A_REQUEST, 4), np.float32)
    for _ in range(10):
        if metrics.wants_sample:
            metrics.sample({"features": rows}, {"scores": dense_answer(rows)})
    assert sum(len(inputs["features"]) for inputs, _ in follower.taken()) == ROWS_A_SECOND
    metrics.forget()
    assert follower.left


def test_clock_that_jumps_and_rows_that_are_odd_end_nothing(tmp_path: Path, artifact: Artifact) -> None:
    clock = Clock()
    with sketching(tmp_path, artifact, clock) as (sketcher, follower):
        for step in (0, 400 * 3600, -400 * 3600):
            clock.now += step
            offer(follower, 1)
            wait_for(lambda want=sketcher.stats.rows + 1: sketcher.stats.rows >= want or not follower._waiting)
        follower._waiting.append(({"features": np.array([object()])}, {}))  # no row of the signature
        wait_for(lambda: not follower._waiting)
        offer(follower, 1)
    found = sketches.read(tmp_path, "m", HOUR)
    assert sum(one.rows for one in found.windows) >= 2 and "still to come" in found.problems[0]


def test_artifact_without_a_reference_or_with_a_broken_one_is_served_unsketched(
    tmp_path: Path, artifact: Artifact, caplog: pytest.LogCaptureFixture
) -> None:
    sketcher = Sketcher(tmp_path / "sketches")
    try:
        assert sketcher.follow("m", "v1", artifact.with_manifest(drift=None)) is None
        assert sketcher.follow("m", "v1", Artifact(tmp_path, artifact.manifest)) is None
        assert "traffic of m:v1 is not sketched" in caplog.text
    finally:
        sketcher.close()


@pytest.mark.slow
def test_service_sketches_what_it_answers(tmp_path: Path, artifact: Artifact) -> None:
    from hone import store

    use_store(tmp_path)
    store.put(artifact.with_manifest(), "dense", "onnx-fp32-1", None, {FILE: (artifact.path / FILE).read_bytes()})
    folder = tmp_path / "sketches"
    command = [HONE, "serve", "dense", "--port", "{port}"]
    with server(command, tmp_path, HONE_DRIFT_DIR=str(folder), HONE_DRIFT_FLUSH_S="0.2") as running:
        rows = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
        for row in rows:
            answer = running.client.post("/predict", json={"inputs": {"features": [row.tolist()]}})
            assert answer.status_code == 200
            time.sleep(0.01)
        wait_for(lambda: list(folder.rglob("*.sketch")))
        wait_for(lambda: "hone_sketched_rows_total" in running.client.get("/metrics").text)
        (worker,) = running.workers()
        os.kill(worker, signal.SIGKILL)  # what was written stays readable
    now = int(time.time()) // 3600
    found = sketches.read(folder, "dense", now)
    assert not found.problems and 1 <= sum(one.rows for one in found.windows) <= 40
    checked = CliRunner().invoke(cli, ["drift", "check", "dense", "--dir", str(folder)])
    assert checked.exit_code == 4 and "too thin" in checked.output
