"""What is kept of a request or a person is deleted, everywhere, and the chain of recorded files tells of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from hone.audit import records
from hone.cli.main import cli
from hone.errors import HoneError
from hone.lifecycle.feedback.joined import joined
from hone.services.feedback.collector import Collector
from hone.services.observe.record_chain import verify
from hone.services.observe.recording import Recorder, read
from hone.traffic.feedback import parse_feedback
from hone.traffic.keys import LockedError, RecordKey, read_key

NAMES = ["anna", "berta", "carl"]


@pytest.fixture(params=["plain", "encrypted"])
def key_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    if request.param == "plain":
        return None
    file = tmp_path / "record.key"
    file.write_text("ab" * 32 + "\n")
    return file


def traffic(folder: Path, key: RecordKey | None) -> None:
    """Write a file of records for each of three people, four requests each, their answers and feedback."""
    collector = Collector(folder / "feedback", key=key, flush_s=3600)
    for name in NAMES:
        recorder = Recorder(folder / "records", key=key, hidden={"input.user": "hash"})
        for number in range(4):
            scores = np.full((1, 2), number, np.float32)
            inputs = {"user": np.array([name], dtype=object), "x": np.array([[number, 7.25]])}
            recorder.offer("m", "1", f"{name}-{number}", inputs, {"scores": scores}, 0.0)
            collector.note(("m", "1"), f"{name}-{number}".encode(), {"scores": scores}, "", "", name.encode())
        recorder.close()
        collector.take("m", parse_feedback([{"request_id": f"{name}-{number}", "label": 1} for number in range(4)]))
    collector.close()


def run(folder: Path, key_file: Path | None, *arguments: str) -> Result:
    keyed = ["--key", str(key_file)] if key_file else []
    places = ["--record-dir", str(folder / "records"), "--feedback-dir", str(folder / "feedback")]
    log = ["--audit-log", str(folder / "audit.jsonl"), "--reason", "art. 17"]
    return CliRunner().invoke(cli, ["records", "delete", *places, *keyed, *log, *arguments])


def left(folder: Path, key: RecordKey | None) -> tuple[set[str], set[str], set[str]]:
    recorded = set(read(folder / "records", "m", key).column("request_id").to_pylist())
    rows = list(joined(folder / "feedback", "m", key=key))
    return recorded, {one.request_id for one in rows}, {one.request_id for one in rows if one.label is not None}


def test_a_request_and_a_person_are_deleted_everywhere(tmp_path: Path, key_file: Path | None) -> None:
    key = read_key(key_file)
    traffic(tmp_path, key)
    everybody = {f"{name}-{number}" for name in NAMES for number in range(4)}
    assert left(tmp_path, key) == (everybody, everybody, everybody)
    one = run(tmp_path, key_file, "--request", "anna-1")
    assert one.exit_code == 0 and "1 recorded rows, 1 answers, 1 entries" in one.output, one.output
    person = run(tmp_path, key_file, "--subject", "berta")
    assert person.exit_code == 0 and "4 recorded rows, 4 answers, 4 entries" in person.output, person.output
    rest = {one for one in everybody if not one.startswith("berta") and one != "anna-1"}
    assert left(tmp_path, key) == (rest, rest, rest)
    found = verify(tmp_path / "records")
    assert (found.files, found.rows, found.deleted) == (3, 7, 5)
    kept = "".join(file.read_text() for file in (tmp_path / "audit.jsonl", tmp_path / "records/deletions.jsonl"))
    assert "art. 17" in kept and "berta" not in kept and "request anna-1" in kept
    done = [record for _, record in records(tmp_path / "audit.jsonl") if record and record["outcome"] == "done"]
    assert [record["details"]["rows"] for record in done] == ["1", "4"]
    again = run(tmp_path, key_file, "--subject", "berta")
    assert again.exit_code == 1 and "nothing was deleted" in again.output


def test_a_column_that_is_hashed_says_whose_rows_they_are(tmp_path: Path) -> None:
    traffic(tmp_path, None)
    shutil.rmtree(tmp_path / "feedback")
    places = ["--record-dir", str(tmp_path / "records"), "--reason", "asked"]
    refused = CliRunner().invoke(cli, ["records", "delete", "--subject", "carl", *places])
    assert refused.exit_code == 1 and "--column" in str(refused.output)
    found = CliRunner().invoke(cli, ["records", "delete", "--subject", "carl", "--column", "input.user", *places])
    assert found.exit_code == 0 and "4 recorded rows" in found.output
    assert verify(tmp_path / "records").deleted == 4


def test_a_change_that_no_deletion_tells_of_breaks_the_chain(tmp_path: Path) -> None:
    traffic(tmp_path, None)
    assert run(tmp_path, None, "--request", "anna-1").exit_code == 0
    first = sorted((tmp_path / "records").rglob("*.parquet"), key=lambda file: file.name)[0]
    pq.write_table(pq.read_table(first).slice(1), first)
    with pytest.raises(HoneError, match="was changed"):
        verify(tmp_path / "records")
    log = tmp_path / "records/deletions.jsonl"
    log.write_text(log.read_text().replace("art. 17", "art. 16"))
    with pytest.raises(HoneError, match="its hash is another"):
        verify(tmp_path / "records")


def test_encrypted_files_tell_nothing_without_the_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "other").write_bytes(bytes(32))
    key = read_key(tmp_path / "key")
    traffic(tmp_path, key)
    everything = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"anna" not in everything and b"request_id" in everything
    assert verify(tmp_path / "records").rows == 12, "the chain needs no key"
    for wrong in (None, read_key(tmp_path / "other")):
        with pytest.raises(LockedError, match="key"):
            read(tmp_path / "records", key=wrong)
        with pytest.raises(LockedError, match="key"):
            list(joined(tmp_path / "feedback", "m", key=wrong))
    for content in (b"short", b"x" * 33):
        (tmp_path / "key").write_bytes(content)
        with pytest.raises(HoneError, match="no key of 32 bytes"):
            read_key(tmp_path / "key")


def test_wrong_input_is_one_line(tmp_path: Path) -> None:
    runner = CliRunner()
    nothing = runner.invoke(cli, ["records", "delete", "--reason", "x", "--record-dir", str(tmp_path)])
    assert nothing.exit_code == 2 and "--request ID or --subject ID" in nothing.output
    nowhere = runner.invoke(cli, ["records", "delete", "--reason", "x", "--request", "a"], env={})
    assert nowhere.exit_code == 2 and "--record-dir" in nowhere.output
    missing = run(tmp_path, None, "--request", "a")
    assert missing.exit_code == 1 and "not a folder" in missing.output
    assert json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1])["outcome"] == "failed"
