from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.cli.main import cli
from hone.errors import HoneError
from hone.services.http.failures import OverloadedError
from hone.services.observe.record_chain import verify
from hone.services.observe.record_table import parse_hidden
from hone.services.observe.recording import Recorder, read


def offer(recorder: Recorder, index: int, rows: int = 1, length: int = 4) -> None:
    inputs = {
        "image": np.full((rows, 2, length), index, np.float32),
        "word": np.array([f"w{index}"] * rows, dtype=object),
        "age": np.full(rows, index, np.int64),
    }
    outputs = {"scores": np.full((rows, 3), index / 2, np.float32)}
    recorder.offer("digits", "v1", f"request-{index}", inputs, outputs, 0.001 * index)


def test_rows_come_back(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    for index in range(1, 6):
        offer(recorder, index, rows=index, length=index)
    recorder.close()
    table = read(tmp_path, "digits").sort_by([("request_id", "ascending"), ("row", "ascending")])
    assert table.num_rows == 15 == recorder.stats.rows
    last = table.slice(14).to_pylist()[0]
    assert last["model"] == "digits" and last["version"] == "v1" and last["row"] == 4
    assert last["latency_ms"] == pytest.approx(5.0)
    assert last["input.image"] == [5.0] * 10 and last["input.image.shape"] == [2, 5]
    assert last["input.word"] == "w5" and last["input.age"] == 5
    assert last["output.scores"] == [2.5] * 3
    file = next(tmp_path.rglob("*.parquet"))
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
    assert not list(tmp_path.rglob("*.tmp"))


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 100)), min_size=1, max_size=20))
def test_what_was_offered_is_what_is_read(requests: list[tuple[int, int]]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder), rows_per_file=7)
        for index, (rows, value) in enumerate(requests):
            recorder.offer("m", "1", str(index), {"x": np.full((rows, 1), value)}, {"y": np.zeros(rows)}, 0.0)
        recorder.close()
        found = sorted(
            (int(row["request_id"]), row["row"], row["input.x"][0]) for row in read(Path(folder)).to_pylist()
        )
    assert found == [(i, row, value) for i, (rows, value) in enumerate(requests) for row in range(rows)]


def test_sample_keeps_its_share(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, sample=0.2, seed=1)
    for index in range(2000):
        offer(recorder, index)
    recorder.close()
    assert 330 < recorder.stats.rows < 470


def test_full_queue_drops_and_counts(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, max_queue_rows=10, max_age_s=60)
    for index in range(25):
        offer(recorder, index)
    recorder.close()
    assert (recorder.stats.rows, recorder.stats.dropped) == (10, 15)


def test_recording_keeps_no_batch_alive(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    batch = np.arange(8.0).reshape(8, 1)
    recorder.offer("m", "1", "a", {"x": batch[2:3]}, {"y": batch[4:5]}, 0.0)
    batch[:] = -1
    recorder.close()
    row = read(tmp_path).to_pylist()[0]
    assert (row["input.x"], row["output.y"]) == ([2.0], [4.0])


def test_total_size_is_bounded_oldest_first(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, rows_per_file=1, max_total_mb=0.02)
    for index in range(30):
        offer(recorder, index)
    recorder.close()
    files = list(tmp_path.rglob("*.parquet"))
    assert sum(file.stat().st_size for file in files) <= 20_000 + 10_000
    kept = {row["request_id"] for row in read(tmp_path).to_pylist()}
    assert "request-29" in kept and "request-0" not in kept


def _on_a_full_disk(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    recorder = Recorder(folder, rows_per_file=1, max_age_s=0.05)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
    offer(recorder, 1)
    while not recorder.stats.failed_writes:
        time.sleep(0.02)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    offer(recorder, 2)
    recorder.close()
    stats = recorder.stats
    raise SystemExit(7 if (stats.rows, stats.dropped, stats.failed_writes) == (1, 1, 1) else 8)


def test_full_disk_loses_rows_and_recovers(tmp_path: Path) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=_on_a_full_disk, args=(tmp_path,))
    worker.start()
    worker.join(60)
    assert worker.exitcode == 7
    assert [row["request_id"] for row in read(tmp_path).to_pylist()] == ["request-2"]


def _write_until_killed(folder: Path) -> None:
    recorder = Recorder(folder, rows_per_file=1)
    for index in range(1_000_000):
        offer(recorder, index)
        time.sleep(0.001)


def test_killed_writer_leaves_whole_files(tmp_path: Path) -> None:
    workers = [
        multiprocessing.get_context("spawn").Process(target=_write_until_killed, args=(tmp_path,)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    deadline = time.monotonic() + 60
    while len(list(tmp_path.rglob("*.parquet"))) < 40 and time.monotonic() < deadline:
        time.sleep(0.05)
    for worker in workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
    files = list(tmp_path.rglob("*.parquet"))
    assert len(files) >= 40
    for file in files:
        assert pq.ParquetFile(file).read().num_rows == 1


def test_nothing_recorded_and_unusable_folder_are_told(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="no recorded traffic of x"):
        read(tmp_path, "x")
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(HoneError, match="can't be recorded there"):
        Recorder(file)


def require(recorder: Recorder, index: int) -> None:
    recorder.require("m", "1", f"request-{index}", {"x": np.full((1, 1), index)}, {"y": np.full(1, index)}, 0.0)


def test_complete_record_refuses_what_it_cant_queue_and_loses_nothing(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, complete=True, max_queue_rows=10, max_age_s=0.05)
    target = tmp_path / "model=m"
    target.write_text("a disk that takes nothing")
    queued = 0
    with pytest.raises(OverloadedError, match="can't be recorded"):
        for index in range(20):
            require(recorder, index)
            queued += 1
    assert queued == 10
    while not recorder.stats.failed_writes:
        time.sleep(0.02)
    target.unlink()
    while recorder.stats.rows < 10:
        time.sleep(0.02)
    require(recorder, 11)
    recorder.close()
    assert (recorder.stats.rows, recorder.stats.dropped) == (11, 0)
    assert len({row["request_id"] for row in read(tmp_path).to_pylist()}) == 11


def test_hidden_columns_are_left_out_or_hashed_alike_in_every_file(tmp_path: Path) -> None:
    hidden = parse_hidden("input.name, hash:input.user ,hash:output.y")
    for part in range(2):
        recorder = Recorder(tmp_path, hidden=hidden)
        users = np.array(["ann", "bob", "ann"], dtype=object)
        inputs = {"name": users, "user": users, "x": np.arange(3.0)}
        recorder.offer("m", "1", str(part), inputs, {"y": np.array([[1.0], [1.0], [2.0]])}, 0.0)
        recorder.close()
    rows = read(tmp_path).to_pylist()
    assert "input.name" not in rows[0] and rows[1]["input.x"] == 1.0
    first, second, third = (row["input.user"] for row in rows[:3])
    assert first == third == rows[3]["input.user"] != second
    assert rows[0]["output.y"] == rows[1]["output.y"] != rows[2]["output.y"]
    assert b"ann" not in b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert (tmp_path / "hash.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("text", ["name", "input.", "sha:input.x", "hash:", "input.x output.y:"])
def test_wrong_column_is_named(text: str) -> None:
    with pytest.raises(HoneError, match="HONE_RECORD_EXCLUDE: '"):
        parse_hidden(text)


def _record(folder: str, name: str) -> None:
    recorder = Recorder(Path(folder), rows_per_file=1)
    for index in range(20):
        recorder.offer("m", name, str(index), {"x": np.full((1, 1), index)}, {"y": np.zeros(1)}, 0.0)
    recorder.close()


def test_workers_make_one_chain_and_any_change_shows(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_record, args=(str(tmp_path), name)) for name in "abc"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    result = verify(tmp_path)
    assert (result.files, result.rows, result.removed) == (60, 60, 0)
    files = sorted(tmp_path.rglob("*.parquet"), key=lambda file: file.name[-17:])
    for file, words in ((files[30], "file 31 before it"), (files[-1], "the last file is 59")):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(HoneError, match=words):
            verify(tmp_path)
        file.write_bytes(content)
    for file in (files[30], files[-1]):
        content = file.read_bytes()
        pq.write_table(pq.read_table(file, partitioning=None), file)
        with pytest.raises(HoneError, match="was changed"):
            verify(tmp_path)
        file.write_bytes(content)
    assert verify(tmp_path) == result
    files[0].unlink()
    assert verify(tmp_path).removed == 1
    told = CliRunner().invoke(cli, ["audit", "verify", str(tmp_path)])
    assert told.stdout == (
        f"{tmp_path}: 59 files, 59 rows, the chain holds, the 1 before them were removed; head {result.head}\n"
    )


def test_file_whose_writer_was_killed_before_it_had_its_name_gets_it(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path, rows_per_file=1)
    offer(recorder, 1)
    recorder.close()
    file = next(tmp_path.rglob("*.parquet"))
    file.rename(file.with_suffix(".tmp"))
    recorder = Recorder(tmp_path, rows_per_file=1)
    offer(recorder, 2)
    recorder.close()
    assert file.exists()
    assert verify(tmp_path).files == 2


def test_old_files_are_removed(tmp_path: Path) -> None:
    for index in range(3):
        recorder = Recorder(tmp_path, rows_per_file=1, max_days=1.0)
        offer(recorder, index)
        recorder.close()
        for file in tmp_path.rglob("*.parquet"):
            os.utime(file, (0, time.time() - 90_000))
    assert {row["request_id"] for row in read(tmp_path).to_pylist()} == {"request-2"}
    assert verify(tmp_path).removed == 2
