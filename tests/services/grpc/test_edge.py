"""gRPC's edge: keys before bodies, bounded calls, and a port that belongs to one server."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2

from hone import store
from hone.lifecycle.feedback.joined import joined
from hone.services.access.api_keys import add_key
from hone.services.launch import free_port
from tests.models.dense import dense_answer
from tests.models.words import WIDTH, words_artifact
from tests.servers import DIGITS, ROOT, Server, put, server, use_store

INFER = "/inference.GRPCInferenceService/ModelInfer"
UNLIMITED = [("grpc.max_send_message_length", -1)]
ROW = np.arange(4, dtype=np.float32)
WIDE = """
import numpy as np


def repeat(columns):
    return {"wide": np.repeat(columns["embedding"], 400, axis=1)}
"""


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    file = tmp_path_factory.mktemp("keys") / "keys.yaml"
    return add_key(file, "ci", ("predict",)), file


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, port: int, key: tuple[str, Path]) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("shop")
    put(home, home / "artifact", "digits", "v1")
    kept = {"HONE_FEEDBACK_DIR": str(home / "feedback"), "HONE_FEEDBACK_FLUSH_S": "1"}
    with server(DIGITS, home, HONE_GRPC_PORT=str(port), HONE_API_KEYS=str(key[1]), **kept) as running:
        yield running


def message(content: bytes = ROW.tobytes(), shape: tuple[int, ...] = (1, 4), model: str = "digits") -> bytes:
    request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[content])
    request.inputs.add(name="features", datatype="FP32", shape=shape)
    return request.SerializeToString()


def infer(port: int, body: bytes, **options: object) -> np.ndarray:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=UNLIMITED) as channel:
        answer = service_pb2.ModelInferResponse.FromString(channel.unary_unary(INFER)(body, timeout=60, **options))
    return np.frombuffer(answer.raw_output_contents[0], np.float32)


def test_answers_are_kept_under_the_id_that_they_tell(locked: Server, port: int, key: tuple[str, Path]) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        metadata = [("x-api-key", key[0])]
        raw = channel.unary_unary(INFER)(message(), timeout=60, metadata=metadata)
    identity = service_pb2.ModelInferResponse.FromString(raw).parameters["request_id"].string_param
    folder, deadline, found = locked.log.parent / "feedback", time.monotonic() + 60, {}
    while identity not in found and time.monotonic() < deadline:
        time.sleep(0.2)
        found = {one.request_id: one for one in joined(folder, "digits")}
    np.testing.assert_allclose(found[identity].outputs["scores"][0], dense_answer(ROW), rtol=1e-5)
    assert re.search(r"^hone_answers_noted_total [1-9]", locked.client.get("/metrics").text, re.MULTILINE)


def test_answers_of_steps_are_as_large_as_a_request_may_have_them(tmp_path: Path) -> None:
    (tmp_path / "wide.py").write_text(WIDE)
    outputs = {"wide": {"shape": ["batch", 400 * WIDTH]}}
    function = {"call": "wide:repeat", "inputs": {"embedding": {"shape": ["batch", WIDTH]}}, "outputs": outputs}
    use_store(tmp_path)
    store.put(words_artifact(tmp_path / "a", name="digits", post=({"function": function},)), "digits", "v1")

    def text(rows: int) -> bytes:
        request = service_pb2.ModelInferRequest(model_name="digits")
        request.inputs.add(name="text", datatype="BYTES", shape=[rows]).contents.bytes_contents.extend([b"good"] * rows)
        return request.SerializeToString()

    port, limit = free_port(), {"HONE_MAX_READ_MB": "0.5", "HONE_TRUST_CODE": "1"}
    with server(DIGITS, tmp_path, HONE_GRPC_PORT=str(port), **limit):
        assert infer(port, text(2)).size == 2 * 400 * WIDTH
        with pytest.raises(grpc.RpcError, match="the answer to this request would take about 1 MB") as caught:
            infer(port, text(60))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_callers_without_a_key_are_refused_before_their_bodies_are_read(
    locked: Server, port: int, key: tuple[str, Path]
) -> None:
    body = message(bytes(15_000_000), (937_500, 4))
    np.testing.assert_allclose(infer(port, message(), metadata=[("x-api-key", key[0])]), dense_answer(ROW), rtol=1e-4)
    (worker,) = locked.workers()
    before = psutil.Process(worker).memory_info().rss

    def call(_: int) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.RpcError) as caught:
            infer(port, body)
        return caught.value.code(), caught.value.details()

    with ThreadPoolExecutor(8) as pool:
        refused = list(pool.map(call, range(40)))
    assert {code for code, _ in refused} == {grpc.StatusCode.UNAUTHENTICATED}
    assert "a key is needed" in refused[0][1]
    assert (psutil.Process(worker).memory_info().rss - before) / 1e6 < 200  # read, they are 600 MB
    assert "Traceback" not in locked.log.read_text()


def test_metadata_is_bounded(port: int, key: tuple[str, Path], locked: Server) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(port, message(), metadata=[("x-api-key", key[0]), ("x-much", "a" * 100_000)])
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    infer(port, message(), metadata=[("x-api-key", key[0]), ("x-much", "a" * 8_000)])


def test_memory_of_large_messages_is_given_back(locked: Server, port: int, key: tuple[str, Path]) -> None:
    (worker,) = locked.workers()
    process = psutil.Process(worker)
    infer(port, message(), metadata=[("x-api-key", key[0])])
    before = process.memory_info().rss
    body = message(bytes(15_000_000))

    def call(_: int) -> None:
        with pytest.raises(grpc.RpcError, match="needs 16 bytes"):
            infer(port, body, metadata=[("x-api-key", key[0])])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(40)))
    deadline = time.monotonic() + 20
    while (grown := process.memory_info().rss - before) > 200e6 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert grown < 200e6  # kept, they are 600 MB, and as many in copies


def serve_until_it_ends(home: Path, port: int, grpc_port: int) -> subprocess.CompletedProcess[str]:
    command = [part.format(port=port) for part in DIGITS]
    environment = {**psutil.Process().environ(), "BENTOML_HOME": str(home), "HONE_GRPC_PORT": str(grpc_port)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)


def test_a_second_server_can_not_share_the_port_of_a_first(tmp_path: Path) -> None:
    grpc_port = free_port()
    first, second = tmp_path / "first", tmp_path / "second"
    put(first, tmp_path / "a", "digits", "v1", seed=0)
    put(second, tmp_path / "b", "digits", "v1", seed=1)
    with server(DIGITS, first, HONE_GRPC_PORT=str(grpc_port), HONE_WORKERS="2") as running:
        assert len(running.workers()) == 2  # they share it
        done = serve_until_it_ends(second, free_port(), grpc_port)
        assert done.returncode == 1
        assert f"can't listen on 127.0.0.1:{grpc_port}: Address already in use; choose another HONE_GRPC_PORT" in (
            done.stderr
        )
        assert "Traceback" not in done.stderr
        code = "import sys; from hone.services.http.ports import joining\n"
        code += "with joining('127.0.0.1', int(sys.argv[1]), 'X'): pass"
        joined = subprocess.run([sys.executable, "-c", code, str(grpc_port)], cwd=ROOT, capture_output=True, text=True)
        assert "HoneError" in joined.stderr and "Address already in use" in joined.stderr  # a worker of another server
        for _ in range(30):
            np.testing.assert_allclose(infer(grpc_port, message()), dense_answer(ROW, 0), rtol=1e-4, atol=1e-5)
