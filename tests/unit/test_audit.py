from __future__ import annotations

import json
import multiprocessing
import resource
import signal
from pathlib import Path

import pytest

from hone.errors import HoneError
from services.audit import AuditLog, verify


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
