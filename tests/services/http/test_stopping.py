"""A service ends when it is told to, whatever its callers, its collectors and its model do."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from hone import store
from hone.artifact import Manifest, Selection, seal
from hone.services.launch import free_port
from tests.models.dense import CLASSES, FEATURES, dense_signature
from tests.servers import DIGITS, HONE, put, server, use_store

STOP_S = 6.0
PATIENT = {"HONE_STOP_S": str(STOP_S), "HONE_HEADER_TIMEOUT_S": "600", "HONE_BODY_TIMEOUT_S": "600"}
"""Settings with which only the end itself can end a connection."""


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """Accept connections and never answer, as a collector or a cache does that hangs."""
    accepted: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    accepted.append(listener.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])


def half_a_body(port: int) -> socket.socket:
    caller = socket.create_connection(("127.0.0.1", port))
    caller.sendall(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{")
    return caller


def unread_answer(port: int) -> socket.socket:
    """Ask for more than the buffers between here and there hold, and read none of it."""
    caller = socket.socket()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    caller.connect(("127.0.0.1", port))
    body = np.zeros((600_000, 4), np.float32).tobytes()
    caller.sendall(
        b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\n"
        b"content-length: %d\r\n\r\n" % len(body) + body
    )
    return caller


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(DIGITS, id="bentoml"),
        pytest.param([HONE, "serve", "digits", "--port", "{port}"], id="hone", marks=pytest.mark.slow),
    ],
)
def test_nobody_holds_up_the_end(tmp_path: Path, command: list[str]) -> None:
    put(tmp_path, tmp_path / "a", "digits", "onnx-fp32-1")
    with contextlib.ExitStack() as stack:
        collector, cache = stack.enter_context(silent_server()), stack.enter_context(silent_server())
        environment = {
            "HONE_TRACE_SAMPLE": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}",
            "HONE_CACHE_MB": "1", "HONE_REDIS_URL": f"redis://127.0.0.1:{cache}", **PATIENT,
        }  # fmt: skip
        running = stack.enter_context(server(command, tmp_path, **environment))
        for seed in range(3):
            body = {"inputs": {"features": [[seed, 2, 3, 4]]}}
            assert running.client.post("/predict", json=body).status_code == 200
        for make in (half_a_body, unread_answer):
            stack.enter_context(make(running.port))
        time.sleep(2.0)
        running.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert running.process.wait(STOP_S + 20) == 0
        assert time.monotonic() - started < STOP_S + 10
        log = running.log.read_text()
        assert "connections are closed before their end" in log
        assert "Completed async cleanup hook" in log
        assert "Traceback" not in log


def endless_model(folder: Path) -> None:
    """Write a dense model that first counts to the largest of its inputs."""
    scalar = [numpy_helper.from_array(np.array(value), name) for name, value in (("yes", True), ("one", 1.0))]
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Sin", ["value"], ["next"])],
        "count",
        [
            helper.make_tensor_value_info("index", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("value", TensorProto.DOUBLE, []),
        ],
        [
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.DOUBLE, []),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["features"], ["most"], keepdims=0),
            helper.make_node("Cast", ["most"], ["count"], to=TensorProto.INT64),
            helper.make_node("Loop", ["count", "yes", "one"], ["last"], body=body),
            helper.make_node("Cast", ["last"], ["more"], to=TensorProto.FLOAT),
            helper.make_node("MatMul", ["features", "W"], ["product"]),
            helper.make_node("Add", ["product", "more"], ["scores"]),
        ],
        "endless",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", CLASSES])],
        [*scalar, numpy_helper.from_array(np.ones((FEATURES, CLASSES), np.float32), "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    folder.mkdir()
    onnx.save(model, folder / "model.onnx")


@pytest.mark.slow
def test_inference_that_never_ends_is_left_behind(tmp_path: Path) -> None:
    use_store(tmp_path)
    endless_model(tmp_path / "a")
    manifest = Manifest(
        name="digits", variant="onnx-fp32", runtime="onnx", precision="fp32", entry="model.onnx",
        signature=dense_signature(), selection=Selection(run="1", rank=0, eligible=True),
    )  # fmt: skip
    store.put(seal(tmp_path / "a", manifest), "digits", "onnx-fp32-1")
    with server(DIGITS, tmp_path, **PATIENT) as running:
        with pytest.raises(httpx.ReadTimeout):
            running.client.post("/predict", json={"inputs": {"features": [[1e15, 0, 0, 0]]}}, timeout=2.0)
        workers = running.workers()
        running.process.send_signal(signal.SIGTERM)
        started = time.monotonic()
        running.process.wait(STOP_S + 20)
        assert time.monotonic() - started < STOP_S + 10
        assert "not stopped in HONE_STOP_S (6 s)" in running.log.read_text()
        assert workers and not [pid for pid in workers if psutil.pid_exists(pid)]


def test_readiness_goes_first_and_what_was_accepted_is_answered(tmp_path: Path) -> None:
    put(tmp_path, tmp_path / "a", "digits", "onnx-fp32-1")
    with server(DIGITS, tmp_path, HONE_DRAIN_S="3", HONE_GRPC_PORT=str(free_port()), **PATIENT) as running:
        caller = half_a_body(running.port)
        running.process.send_signal(signal.SIGTERM)
        wait_unready(running.port)
        assert running.client.post("/predict", json={"inputs": {"features": [[1, 2, 3, 4]]}}).status_code == 200
        time.sleep(3.0)
        rest = b'"inputs": {"features": [[1, 2, 3, 4]]}}'
        caller.sendall(rest + b" " * (999 - len(rest)))
        assert caller.recv(4096).startswith(b"HTTP/1.1 200 OK")
        caller.close()
        assert running.process.wait(30) == 0
        assert "not stopped" not in running.log.read_text()


def test_callers_who_keep_connections_are_sent_elsewhere_while_it_drains(tmp_path: Path) -> None:
    """What balances connections, as a Service does, leaves open ones where they are."""
    put(tmp_path, tmp_path / "a", "digits", "onnx-fp32-1")
    body = b'{"inputs": {"features": [[1, 2, 3, 4]]}}'
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % len(body)
    with server(DIGITS, tmp_path, HONE_DRAIN_S="5", **PATIENT) as running, contextlib.ExitStack() as stack:
        kept, piping, reading = (
            stack.enter_context(socket.create_connection(("127.0.0.1", running.port))) for _ in range(3)
        )
        for caller in (kept, piping):
            caller.sendall(head + body)
            assert b"connection: close" not in answers(caller, 1)[0]
        reading.sendall(head + body[:-1])
        running.process.send_signal(signal.SIGTERM)
        wait_unready(running.port)
        kept.sendall(head + body)
        piping.sendall((head + body) * 3)
        reading.sendall(body[-1:])
        for caller, count in ((kept, 1), (piping, 3), (reading, 1)):
            told = [b"connection: close" in answer for answer in answers(caller, count)]
            assert told == [False] * (count - 1) + [True]
            assert caller.recv(1) == b""
        assert running.process.poll() is None


def answers(caller: socket.socket, count: int) -> list[bytes]:
    """Read the answers to so many requests; each is 200, and its body is JSON that nothing follows."""
    caller.settimeout(10)
    data = b""
    while data.count(b"HTTP/1.1 200") < count or not data.endswith(b"}"):
        part = caller.recv(65536)
        assert part, data
        data += part
    return data.split(b"HTTP/1.1 200")[1:]


def wait_unready(port: int) -> None:
    deadline = time.monotonic() + 10
    while httpx.get(f"http://127.0.0.1:{port}/readyz", verify=False).status_code == 200:
        assert time.monotonic() < deadline
