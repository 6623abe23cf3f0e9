"""Full disks, memory and file descriptors that run out, a silent collector: one line each, and serving goes on."""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from click.testing import CliRunner

from hone import store
from hone.audit import verify
from hone.cli.main import cli
from hone.files import atomic_write
from hone.services.observe.record_chain import verify as verify_traffic
from hone.services.observe.recording import read
from hone.store import archive
from tests.models.dense import dense_answer
from tests.servers import DIGITS, Server, caller, put, server, use_store

BINARY = {"content-type": "application/octet-stream"}
LOAD = "/v2/repository/models/digits/load"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    put(folder / "shop", folder / "a", "digits", "onnx-fp32-1", run="1")
    return folder / "shop"


class Disk:
    """A small disk that can be filled to the last byte."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        with contextlib.suppress(OSError), self._filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))

    def free(self) -> None:
        self._filler.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], capture_output=True).returncode:
        pytest.skip("a disk can't be mounted here")
    yield Disk(path)
    subprocess.run(["umount", "--lazy", str(path)], check=True)


def answers(running: Server, seed: int = 0) -> None:
    rows = np.random.default_rng(seed).normal(size=(2, 4)).astype(np.float32)
    answer = running.client.post("/predict", content=rows.tobytes(), headers=BINARY)
    assert answer.status_code == 200, answer.text
    np.testing.assert_allclose(
        np.frombuffer(answer.content, np.float32).reshape(-1, 3), dense_answer(rows), rtol=1e-4, atol=1e-5
    )


def wait_for(found: object, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not found():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_full_disk_refuses_admin_actions_loses_recordings_and_serves_on(shop: Path, disk: Disk) -> None:
    audit, traffic = disk.path / "audit.jsonl", disk.path / "traffic"
    with server(DIGITS, shop, HONE_AUDIT_LOG=str(audit), HONE_RECORD_DIR=str(traffic)) as running:
        assert running.client.post(LOAD).status_code == 200
        disk.fill()
        for _ in range(20):  # the last page of the file still has room for some records
            refused = running.client.post(LOAD)
            if refused.status_code != 200:
                break
        assert refused.status_code == 503
        assert refused.json() == {"error": "load was not done: it can't be recorded; the server's log says why"}
        assert "the audit record was not written: No space left on device" in running.log.read_text()
        for seed in range(20):
            answers(running, seed)
        records = verify(audit).records
        disk.free()
        assert running.client.post(LOAD).status_code == 200
        answers(running)
    assert verify(audit).records == records + 2
    assert read(traffic).num_rows == verify_traffic(traffic).rows >= 2


def test_audit_log_that_takes_nothing_refuses_before_the_action(shop: Path) -> None:
    with server(DIGITS, shop, HONE_AUDIT_LOG="/dev/full") as running:
        assert running.client.post("/v2/repository/models/digits/unload").status_code == 503
        answers(running)
        log = running.log.read_text()
        assert "unload refused: /dev/full: the audit record was not written: No space left on device" in log
        assert "Traceback" not in log


def test_commands_on_a_full_disk_say_which_file_and_leave_nothing(disk: Disk, tmp_path: Path) -> None:
    home = disk.path / "home"
    use_store(home)
    entry = put(home, tmp_path / "a", "digits", "v1")
    packed = archive.export(entry, tmp_path)
    store.remove(entry)
    disk.fill()
    before = sorted(disk.path.rglob("*"))
    for arguments, file in (
        (["models", "import", str(packed)], str(packed)),
        (["keys", "new", "ci", "--file", str(disk.path / "keys.yaml")], str(disk.path / "keys.yaml")),
        (["schema", "--out", str(disk.path / "schema.json")], str(disk.path / "schema.json")),
    ):
        result = CliRunner().invoke(cli, arguments)
        assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
        assert file in result.stderr
        assert "No space left on device" in result.stderr or " 0 MB free" in result.stderr
        assert sorted(disk.path.rglob("*")) == before


def test_export_to_a_full_disk_leaves_no_half_archive(disk: Disk, tmp_path: Path) -> None:
    put(tmp_path / "home", tmp_path / "a", "digits", "v1")
    disk.fill()
    result = CliRunner().invoke(cli, ["models", "export", "digits:v1", str(disk.path)])
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1), result.output
    assert "No space left on device" in result.stderr
    assert [file.name for file in disk.path.iterdir()] == ["filler"]


def test_file_that_cant_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="File exists") as caught:
        atomic_write(tmp_path / "file" / "below", "text")
    assert caught.value.filename == str(tmp_path / "file" / "below")


@pytest.mark.slow
def test_request_that_memory_doesnt_hold_fails_alone(shop: Path) -> None:
    with server(DIGITS, shop, HONE_MAX_BODY_MB="400", HONE_QUEUE_ROWS="100000000") as running:
        worker = psutil.Process(running.workers()[0])
        answers(running)
        limit = worker.memory_info().vms + 200_000_000
        worker.rlimit(resource.RLIMIT_AS, (limit, limit))
        with contextlib.suppress(httpx.TransportError), caller(running.client.base_url) as client:
            answer = client.post("/predict", content=bytes(320_000_000), headers=BINARY, timeout=60)
            assert answer.status_code >= 500
        wait_for(lambda: running.workers())
        wait_for(lambda: _ready(running))
        answers(running)


def _ready(running: Server) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return running.client.get("/readyz").status_code == 200
    return False


@pytest.mark.slow
def test_callers_beyond_the_file_descriptors_dont_stop_the_service(shop: Path) -> None:
    with server(DIGITS, shop) as running:
        worker = psutil.Process(running.workers()[0])
        answers(running)
        most = worker.num_fds() + 8
        worker.rlimit(resource.RLIMIT_NOFILE, (most, most))
        with contextlib.ExitStack() as stack:
            for _ in range(60):
                link = stack.enter_context(socket.create_connection(("127.0.0.1", running.port), 10))
                with contextlib.suppress(OSError):
                    link.sendall(b"GET /livez HTTP/1.1\r\n")
            time.sleep(1.0)
        wait_for(lambda: _ready(running))
        answers(running)
        assert worker.is_running()


def test_collector_that_never_answers_doesnt_hold_the_exit_up(shop: Path) -> None:
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(silent.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        environment = {
            "HONE_TRACE_SAMPLE": "1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        with server(DIGITS, shop, **environment) as running:
            answers(running)
            worker = psutil.Process(running.workers()[0])
            running.process.terminate()
            worker.wait(20)  # it was 30 seconds
            assert "they are lost" in running.log.read_text()
        silent.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_complete_record_on_a_full_disk_refuses_what_it_cant_keep_and_loses_nothing(shop: Path, disk: Disk) -> None:
    traffic = disk.path / "traffic"
    with server(DIGITS, shop, HONE_RECORD_DIR=str(traffic), HONE_RECORD_MODE="complete") as running:
        answers(running)
        wait_for(lambda: list(traffic.rglob("*.parquet")))
        disk.fill()
        for seed in range(5):
            answers(running, seed)
        wait_for(lambda: "recorded traffic waits" in running.log.read_text())
        assert "No space left on device" in running.log.read_text()
        answer = running.client.post("/predict", content=bytes(16 * 10_000), headers=BINARY)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        disk.free()
        wait_for(lambda: verify_traffic(traffic).rows == 12)
        assert answer.headers["x-request-id"] not in read(traffic)["request_id"].to_pylist()
        answers(running)
        assert "hone_record_failed_writes_total" in running.client.get("/metrics").text
    assert verify_traffic(traffic).rows == 14
