"""What is wrong with a service's files shows at its start, and a killed `hone serve` leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hone.audit import verify
from hone.errors import HoneError
from hone.services.access.api_keys import add_key
from hone.services.launch import free_port
from hone.services.serve_folder import OWNER, PREFIX, remove_stale, serve_folder
from hone.services.settings import Settings
from hone.services.startup import check_start
from tests.servers import DIGITS, HONE, ROOT, put, self_signed, server

SERVE = [HONE, "serve", "digits", "--port", "{port}"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("startup")
    put(folder / "shop", folder / "a", "digits", "onnx-fp32-1", run="1")
    return folder / "shop"


def start(command: list[str], shop: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [argument.format(port=free_port()) for argument in command]
    variables = {**os.environ, "BENTOML_HOME": str(shop), **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("none.yaml: can't be read: No such file or directory", {"HONE_API_KEYS": "{tmp}/none.yaml"}),
        ("bad.yaml: not YAML", {"HONE_API_KEYS": "{tmp}/bad.yaml"}),
        (
            "bad.yaml: no key set",
            {"HONE_JWT_JWKS": "{tmp}/bad.yaml", "HONE_JWT_ISSUER": "a", "HONE_JWT_AUDIENCE": "b"},
        ),
        ("the audit log can't be written", {"HONE_AUDIT_LOG": "/dev/null/audit.jsonl"}),
        ("traffic can't be recorded there", {"HONE_RECORD_DIR": "{tmp}/bad.yaml"}),
        ("answers and feedback can't be kept there", {"HONE_FEEDBACK_DIR": "{tmp}/bad.yaml"}),
        ("bad.yaml: no key of 32 bytes", {"HONE_RECORD_KEY_FILE": "{tmp}/bad.yaml"}),
        ("HONE_REDIS_URL must be redis://", {"HONE_REDIS_URL": "localhost:6379", "HONE_CACHE_MB": "1"}),
    ],
)
def test_what_is_missing_or_broken_is_named(tmp_path: Path, words: str, settings: dict[str, str]) -> None:
    (tmp_path / "bad.yaml").write_text("keys: [")
    environment = {name: value.format(tmp=tmp_path) for name, value in settings.items()}
    with pytest.raises(HoneError, match=words) as caught:
        check_start(Settings.from_environment(environment), ["bentoml", "serve"])
    assert "\n" not in str(caught.value)


def test_bentoml_serve_on_a_missing_key_file_ends_with_one_line(shop: Path, tmp_path: Path) -> None:
    done = start(DIGITS, shop, HONE_API_KEYS=str(tmp_path / "none.yaml"))
    assert (done.returncode, done.stderr) == (
        1, f"error: {tmp_path / 'none.yaml'}: can't be read: No such file or directory\n",
    )  # fmt: skip


def test_hone_serve_checks_before_it_starts_a_server(shop: Path, tmp_path: Path) -> None:
    done = start([*SERVE, "--api-keys", str(tmp_path / "none.yaml")], shop)
    assert (done.returncode, done.stderr) == (
        1, f"error: {tmp_path / 'none.yaml'}: can't be read: No such file or directory\n",
    )  # fmt: skip


def test_files_are_found_from_the_folder_that_hone_serve_is_called_in(shop: Path, tmp_path: Path) -> None:
    key = add_key(tmp_path / "keys.yaml", "operator", ("admin",))
    (tmp_path / "digits").mkdir()  # a folder that is named like the model
    self_signed(tmp_path)
    command = [*SERVE, "--and", "digits", "--api-keys", "keys.yaml", "--audit-log", "audit.jsonl"]
    command += ["--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem"]
    with server(command, shop, tmp_path, "https", HONE_RECORD_DIR="traffic", PYTHONPATH=str(ROOT)) as running:
        headers = {"x-api-key": key}
        assert running.client.post("/v2/repository/models/digits/load", headers=headers).status_code == 200
    assert verify(tmp_path / "audit.jsonl").records == 2
    assert (tmp_path / "traffic").is_dir()


def test_certificate_without_its_key_is_named(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    (certificate, right), (_, wrong) = self_signed(tmp_path / "one"), self_signed(tmp_path / "two")
    arguments = ["bentoml", "serve", "--ssl-certfile", str(certificate), "--ssl-keyfile"]
    check_start(Settings(), [*arguments, str(right)])
    with pytest.raises(HoneError, match=f"{certificate}: not usable with its key {wrong}"):
        check_start(Settings(), [*arguments, str(wrong)])
    with pytest.raises(HoneError, match="none: can't be read: No such file"):
        check_start(Settings(), [*arguments, "none"])


def test_packing_a_bento_needs_none_of_it(tmp_path: Path) -> None:
    check_start(Settings(api_keys=str(tmp_path / "none.yaml")), ["bentoml", "build"])


def test_killed_hone_serve_takes_its_server_along_and_the_next_start_cleans_up(shop: Path, tmp_path: Path) -> None:
    with server(SERVE, shop, TMPDIR=str(tmp_path)) as running:
        family = psutil.Process(running.process.pid).children(recursive=True)
        assert len(family) >= 2
        left = next(tmp_path.glob(f"{PREFIX}*"))
        running.process.kill()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", running.port))
        assert left.exists()
        start([*SERVE, "--api-keys", "none"], shop, TMPDIR=str(tmp_path))
        assert not left.exists()
    assert not list(tmp_path.glob(f"{PREFIX}*"))


def test_temporary_files_of_a_server_that_is_killed_at_once_go_with_the_next_start(shop: Path, tmp_path: Path) -> None:
    temp = tmp_path / "temp"
    temp.mkdir()
    with server(SERVE, shop, TMPDIR=str(temp)) as running:
        family = [running.process, *psutil.Process(running.process.pid).children(recursive=True)]
        assert list(temp.glob(f"{PREFIX}*/bentoml-client-*"))
        for process in family:
            process.kill()
        psutil.wait_procs(family[1:], timeout=60)
        start([*SERVE, "--api-keys", "none"], shop, TMPDIR=str(temp))
    assert not [left for left in temp.iterdir() if left.is_dir()]


@pytest.mark.slow
def test_workers_end_a_server_whose_hone_serve_is_gone(shop: Path) -> None:
    """What systems without Linux's parent-death signal rely on."""
    code = (
        "import os, subprocess, sys, time\n"
        "environment = dict(os.environ, HONE_LAUNCHER=str(os.getpid()))\n"
        "process = subprocess.Popen(sys.argv[1:], env=environment)\n"
        "process.wait()\n"
    )
    with server([sys.executable, "-c", code, *DIGITS], shop) as running:
        family = psutil.Process(running.process.pid).children(recursive=True)
        running.process.kill()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive
        assert "hone serve, which started this server, is gone" in running.log.read_text()


def test_folder_in_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    being_made = tmp_path / f"{PREFIX}new"
    being_made.mkdir()
    stale = tmp_path / f"{PREFIX}old"
    (stale / "home").mkdir(parents=True)
    outside = tmp_path / "models"
    outside.mkdir()
    (outside / "model").write_text("")
    (stale / "home" / "models").symlink_to(outside)
    (stale / OWNER).write_text("")
    with serve_folder() as folder:
        remove_stale()
        assert folder.path.exists() and being_made.exists() and not stale.exists()
        assert (outside / "model").exists()
    assert not folder.path.exists()


@pytest.mark.slow
def test_worker_that_comes_back_to_a_broken_key_file_leaves_the_others_serving(shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    key = add_key(file, "ci", ("predict",))
    content = file.read_text()
    with server(DIGITS, shop, HONE_WORKERS="2", HONE_API_KEYS=str(file)) as running:
        deadline = time.monotonic() + 60
        while running.log.read_text().count("Completed async startup hook") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        file.write_text("keys: [")
        os.kill(running.workers()[0], signal.SIGKILL)
        deadline = time.monotonic() + 60
        while "not YAML" not in running.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        answer = running.client.get("/v2/models/digits", headers={"x-api-key": key})
        assert answer.status_code == 200
        file.write_text(content)
        while running.log.read_text().count("Completed async startup hook") < 3 and time.monotonic() < deadline + 60:
            time.sleep(0.1)
        assert running.log.read_text().count("Completed async startup hook") == 3
