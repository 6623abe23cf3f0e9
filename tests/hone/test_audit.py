from __future__ import annotations

import json
import multiprocessing
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hone.audit import AuditLog, AuditStream, verify
from hone.errors import HoneError


def append(path: Path, actor: str, count: int) -> None:
    log = AuditLog(path)
    for index in range(count):
        log.append(actor, "load", f"model-{index}", "done", reason="test")


def test_several_processes_make_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=append, args=(path, f"worker-{number}", 50)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    result = verify(path)
    assert result.records == 200
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text().splitlines()[-1])["hash"] == result.head


@pytest.mark.parametrize(
    "field", ["seq", "time", "actor", "action", "subject", "outcome", "details", "previous", "hash"]
)
def test_any_change_breaks_the_chain_there(tmp_path: Path, field: str) -> None:
    path = tmp_path / "audit.jsonl"
    append(path, "ann", 5)
    lines = path.read_text().splitlines()
    record = json.loads(lines[2])
    record[field] = {"reason": "x"} if field == "details" else 9 if field == "seq" else "0" * 64
    lines[2] = json.dumps(record)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(HoneError, match=r"audit.jsonl:[34]: "):
        verify(path)


def test_removed_and_swapped_lines_show(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    append(path, "ann", 4)
    lines = path.read_text().splitlines(keepends=True)
    for broken in ([lines[0], *lines[2:]], [lines[1], lines[0], *lines[2:]], lines[1:]):
        path.write_text("".join(broken))
        with pytest.raises(HoneError, match="the chain breaks"):
            verify(path)
    path.write_text("".join(lines[:-1]))
    assert verify(path).records == 3  # cut at its end: only a head kept elsewhere shows that


def test_torn_line_is_kept_and_told(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    append(path, "ann", 2)
    with path.open("a") as stream:
        stream.write('{"seq": 3, "actor": "an')
    with pytest.raises(HoneError, match="the last line is torn"):
        verify(path)
    append(path, "bob", 2)
    assert verify(path).records == 4
    assert '"torn":true' in path.read_text().splitlines()[3]
    assert '{"seq": 3, "actor": "an' in path.read_text()


def test_full_disk_is_called_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="/dev/full: the audit record was not written: No space left on device"):
        AuditLog(Path("/dev/full")).append("ann", "load", "model", "done")


def write(folder: str, actor: str) -> None:
    log = AuditStream(sys.stdout.fileno(), Path(folder))
    for index in range(50):
        log.append(actor, "load", f"model-{index}", "done")


def test_streams_of_several_workers_are_one_chain_a_server_among_other_lines(tmp_path: Path) -> None:
    collected = tmp_path / "collected.log"
    with collected.open("ab", buffering=0) as stream:
        for server in ("one", "two"):
            folder = tmp_path / server
            folder.mkdir()
            stream.write(b"2026-01-01 [INFO] another program's line\n")
            code = "import sys; from tests.hone.test_audit import write; write(*sys.argv[1:])"
            command = [sys.executable, "-c", code, str(folder), server]
            workers = [subprocess.Popen(command, stdout=stream) for _ in range(3)]
            assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    result = verify(collected)
    assert (result.records, result.chains) == (300, 2)
    lines = collected.read_text().splitlines(keepends=True)
    for broken in (lines[:5] + lines[6:], [*lines[:5], lines[5].replace("model-", "m-"), *lines[6:]]):
        collected.write_text("".join(broken))
        with pytest.raises(HoneError, match=r"collected.log:\d+: (the chain breaks|record \d+ was changed)"):
            verify(collected)


def test_stream_that_takes_nothing_is_told(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(HoneError, match="No space left on device"):
        AuditStream(full.fileno(), tmp_path).append("ann", "load", "model", "done")


def fill(path: Path, size: int) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    log = AuditLog(path)
    try:
        while True:
            log.append("ann", "load", "model", "done")
    except HoneError as error:
        raise SystemExit(7 if "was not written" in str(error) else 8) from None


def test_full_disk_leaves_a_whole_chain(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    worker = multiprocessing.get_context("spawn").Process(target=fill, args=(path, 5_000))
    worker.start()
    worker.join()
    assert worker.exitcode == 7
    before = verify(path).records
    assert before > 5
    append(path, "bob", 1)
    assert verify(path).records == before + 1
