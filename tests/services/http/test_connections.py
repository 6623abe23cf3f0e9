"""Connections that are too many or never begin, with and without TLS, and large bodies at once, on real servers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import resource
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hone.services.settings import Settings
from tests.probes import ROW, get, post
from tests.servers import DIGITS, ROOT, Server, caller, put, self_signed, server


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    put(tmp_path / "shop", tmp_path / "a", "digits", "onnx-fp32-1")
    return tmp_path / "shop"


def connect(port: int, stack: contextlib.ExitStack, sent: bytes = b"") -> socket.socket:
    caller = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
    caller.sendall(sent)
    return caller


def status(port: int) -> int:
    with caller(f"http://127.0.0.1:{port}") as client:
        return client.post("/predict", content=ROW).status_code


def test_idle_connection_outlives_uvicorns_five_seconds_and_not_its_setting(shop: Path) -> None:
    """By default proxies are the first to close: ingress-nginx and others keep a connection for a minute."""
    assert Settings().keep_alive_s > 60
    with server(DIGITS, shop, HONE_KEEP_ALIVE_S="9") as running, contextlib.ExitStack() as stack:
        caller = connect(running.port, stack, post("/predict"))
        assert caller.recv(4096).startswith(b"HTTP/1.1 200")
        time.sleep(7)
        caller.sendall(post("/predict"))
        with caller.makefile("rb") as answers:
            assert answers.read().count(b"HTTP/1.1 200") == 1, "it is answered, and closed after nine seconds"


def test_full_worker_drops_who_only_holds_a_connection_and_refuses_all_but_probes_when_all_ask(shop: Path) -> None:
    with server(DIGITS, shop, HONE_MAX_CONNECTIONS="8", HONE_HEADER_TIMEOUT_S="60") as running:
        running.client.close()
        with contextlib.ExitStack() as stack:
            silent = [connect(running.port, stack) for _ in range(8)]
            _answered(running.port)
            silent[0].settimeout(10)
            assert sum(_closed(caller) for caller in silent) == 1
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                connect(running.port, stack, post("/predict")[:-5])
            caller = connect(running.port, stack, post("/predict"))
            answer = caller.recv(4096)
            assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer
            for path in ("/livez", "/readyz"):
                assert connect(running.port, stack, get(path)).recv(4096).startswith(b"HTTP/1.1 200")
            _answered(running.port)  # who sends slowly makes room
        _said_in(running, "connections over the limit")
        assert status(running.port) == 200


def test_connections_that_dribble_bodies_keep_nobody_out(shop: Path) -> None:
    with server(DIGITS, shop, HONE_MAX_CONNECTIONS="20") as running, contextlib.ExitStack() as stack:
        running.client.close()
        callers = [connect(running.port, stack, post("/predict")[:-20]) for _ in range(20)]
        for _ in range(3):
            time.sleep(2)
            for caller in callers:
                with contextlib.suppress(OSError):
                    caller.sendall(b" ")
            assert connect(running.port, stack, get("/livez")).recv(4096).startswith(b"HTTP/1.1 200")
        assert status(running.port) == 200


def test_slow_large_bodies_give_way_to_another_one(shop: Path) -> None:
    head = post("/predict", b"x" * 900_000, "content-encoding: gzip")[:-900_000]
    with (
        server(DIGITS, shop, HONE_MAX_BODY_MB="1", HONE_BODIES_MB="4") as running,
        contextlib.ExitStack() as stack,
    ):
        for sent in (b"", b"x" * 70_000):
            slow = [connect(running.port, stack, head + sent) for _ in range(4)]
            time.sleep(1.5)
            rows = b'{"inputs": {"features": [' + b"[1, 2, 3, 4]," * 15_000 + b"[1, 2, 3, 4]]}}"
            answer = running.client.post("/predict", content=rows)
            assert answer.status_code == 200, answer.text
        assert any(_said(caller).startswith(b"HTTP/1.1 408") for caller in slow)


def test_requests_that_were_accepted_are_answered_before_the_connection_ends(shop: Path) -> None:
    with server(DIGITS, shop) as running:
        for behind in (post("/predict") * 14, b"no HTTP\r\n\r\n"):
            accepted = 17 if behind.startswith(b"POST") else 16
            with socket.create_connection(("127.0.0.1", running.port), timeout=30) as caller:
                caller.sendall(post("/predict") * 16 + behind)
                received = b""
                while piece := caller.recv(65536):
                    received += piece
            assert received.count(b"HTTP/1.1 200") == accepted
            assert received.count(b"connection: close") == 1


def _closed(caller: socket.socket) -> bool:
    caller.settimeout(0.2)
    with contextlib.suppress(TimeoutError):
        return caller.recv(1) == b""
    return False


def test_worker_with_few_files_refuses_with_an_answer_and_says_so(shop: Path) -> None:
    command = f"ulimit -n 128; exec {sys.executable} -m bentoml serve services.digits:Digits --port {{port}}"
    with server(["bash", "-c", command], shop) as running, contextlib.ExitStack() as stack:
        callers = [connect(running.port, stack, post("/predict")[:-5]) for _ in range(150)]
        time.sleep(1.0)
        assert b"too many connections" in b"".join(_said(caller) for caller in callers)
        log = running.log.read_text()
        assert "connections at once: this process may open 128 files" in log
        for caller in callers:
            caller.close()
        time.sleep(1.0)
        assert status(running.port) == 200


def _said(caller: socket.socket) -> bytes:
    caller.settimeout(0.01)
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        return caller.recv(4096)
    return b""


def test_soft_limit_of_files_is_raised_to_what_connections_need(shop: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2000:
        pytest.skip("this host allows no more files")
    command = f"ulimit -Sn 256; exec {sys.executable} -m bentoml serve services.digits:Digits --port {{port}}"
    with server(["bash", "-c", command], shop) as running, contextlib.ExitStack() as stack:
        for _ in range(400):
            connect(running.port, stack)
        assert status(running.port) == 200
        assert "ulimit" not in running.log.read_text()


def test_tls_connections_have_the_same_bounds(shop: Path) -> None:
    certificate = self_signed(shop)
    command = [*DIGITS, "--ssl-certfile", str(certificate[0]), "--ssl-keyfile", str(certificate[1])]
    with server(command, shop, scheme="https", HONE_HEADER_TIMEOUT_S="2") as running:
        context = ssl.create_default_context(cafile=certificate[0])
        for sent, expected in (
            (get("/livez", "a: " + "x" * 40_000), b"431"),
            (get("/livez")[:20], b"408"),
            (post("/predict")[:-9], b"408"),
            (post("/predict%0a"), b"404"),
            (post("/predict"), b"200"),
        ):
            with (
                socket.create_connection(("127.0.0.1", running.port), timeout=20) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as caller,
            ):
                caller.sendall(sent)
                assert caller.recv(4096).split()[1] == expected
        with socket.create_connection(("127.0.0.1", running.port), timeout=20) as caller:
            started = time.monotonic()
            assert caller.recv(1) == b"", "a handshake that never begins"
            assert time.monotonic() - started < 15


def test_many_large_bodies_take_the_memory_of_few_and_hold_nobody_up(shop: Path) -> None:
    body = b'{"inputs": {"features": [' + b"[1.5, 2.5, 3.5, 4.5]," * 180_000 + b"[1, 2, 3, 4]]}}"
    environment = {
        "HONE_MAX_BODY_MB": "4",
        "HONE_BODIES_MB": "8",
        "HONE_QUEUE_ROWS": "1000000",
        "HONE_MAX_ROWS": "1000000",
    }
    with server(DIGITS, shop, **environment) as running:
        worker = psutil.Process(running.workers()[0])

        def call(_: int) -> int:
            with caller(running.client.base_url, 120) as client:
                return client.post("/predict", content=body).status_code

        assert call(0) == 200
        alone = worker.memory_info().rss
        most, slowest = alone, 0.0
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            calls = [pool.submit(call, index) for index in range(24)]
            while not all(done.done() for done in calls):
                started = time.monotonic()
                assert status(running.port) == 200
                slowest = max(slowest, time.monotonic() - started)
                most = max(most, worker.memory_info().rss)
                time.sleep(0.02)
        statuses = [done.result() for done in calls]
        assert set(statuses) <= {200, 503} and 200 in statuses
        assert (most - alone) / 1e6 < 300
        assert slowest < 10


GATEWAY = """
import bentoml
from services.digits import Digits

@bentoml.service(name="gateway", http={"host": "127.0.0.1"})
class Gateway:
    model = bentoml.depends(Digits)

    @bentoml.api
    async def ask(self, rows: list[list[float]]) -> dict:
        return await self.model.to_async.predict(inputs={"features": rows})
"""


def test_service_that_depends_on_this_one_calls_it(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "gateway.py").write_text(GATEWAY)
    command = [sys.executable, "-m", "bentoml", "serve", "gateway:Gateway", "--port", "{port}"]
    with server(command, shop, tmp_path, PYTHONPATH=f"{ROOT}:{tmp_path}") as running:
        _said_in(running, "Completed async startup hook")
        answer = running.client.post("/ask", json={"rows": [[1, 2, 3, 4]]})
        assert answer.status_code == 200, answer.text
        assert answer.json()["model"] == "digits:onnx-fp32-1"
        assert running.client.post("/predict", content=ROW).status_code == 404


def _said_in(running: Server, words: str) -> None:
    """Wait until the log has the words."""
    deadline = time.monotonic() + 60
    while words not in running.log.read_text():
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.1)


def _answered(port: int) -> None:
    """Ask until there is room."""
    deadline = time.monotonic() + 30
    while (found := status(port)) != 200:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_moved_uvicorn_is_said_at_import() -> None:
    code = (
        "import hone.services.http.connections as c; c.PINNED = '9.9'\n"
        "try:\n    c.check_version()\nexcept c.HoneError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "is written against 9.9; install uvicorn==9.9" in done.stdout
