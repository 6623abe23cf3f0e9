"""Answers that are far larger than what asked for them, on a real server: bounded, and nobody else waits for them."""

from __future__ import annotations

import contextlib
import gzip
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tritonclient.grpc import service_pb2

from hone import store
from hone.artifact import Artifact, Manifest, Selection, seal
from hone.services.launch import free_port
from hone.signature import Signature, TensorSpec
from tests.probes import post
from tests.servers import DIGITS, Server, server, use_store
from tests.services.http.test_bodies_over_http import GZIP, JSON, RAW, Peak, infer

WIDTH = 500
SETTINGS = {"HONE_BODIES_MB": "64", "HONE_MAX_READ_MB": "100", "HONE_QUEUE_ROWS": "100000"}


def wide(path: Path) -> Artifact:
    """Seal `scores = features @ W`, of four features and many scores."""
    path.mkdir(parents=True)
    weights = np.random.default_rng(0).normal(size=(4, WIDTH)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "W"], ["scores"])],
        "wide",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", WIDTH])],
        [numpy_helper.from_array(weights, "W")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path / "model.onnx")
    signature = Signature(
        inputs=(TensorSpec(name="features", shape=("batch", 4)),),
        outputs=(TensorSpec(name="scores", shape=("batch", WIDTH)),),
    )
    selection = Selection(run="20260101-000000-0000", rank=0, eligible=True)
    return seal(path, Manifest(name="digits", variant="v", runtime="onnx", precision="fp32", entry="model.onnx",
                        signature=signature, selection=selection))  # fmt: skip


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("shop")
    use_store(home)
    store.put(wide(home / "artifact"), "digits", "v1")
    with server(DIGITS, home, HONE_GRPC_PORT=str(port), **SETTINGS) as running:
        yield running


def rows(count: int) -> bytes:
    return b'{"inputs": {"features": [' + b"[1, 2, 3, 4]," * (count - 1) + b"[1, 2, 3, 4]]}}"


def test_answer_of_hundreds_of_megabytes_is_refused_before_it_is_computed(served: Server, port: int) -> None:
    with Peak(served) as peak:
        answer = served.client.post("/predict", content=gzip.compress(rows(65_536)), headers=GZIP)
        assert (answer.status_code, "the answer to this request" in answer.text) == (413, True), answer.text[:300]
        request = service_pb2.ModelInferRequest(model_name="digits", raw_input_contents=[bytes(16 * 65_536)])
        request.inputs.add(name="features", datatype="FP32", shape=[65_536, 4])
        with pytest.raises(grpc.RpcError) as caught:
            infer(port, request.SerializeToString())
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the answer to this request" in caught.value.details()
    assert peak.grown_mb < 150
    assert peak.wrong == []


def test_large_answer_is_whole_and_others_are_answered_meanwhile(served: Server) -> None:
    with Peak(served) as peak:
        answer = served.client.post("/predict", content=rows(6000), headers=JSON)
    scores = np.array(answer.json()["outputs"]["scores"])
    assert scores.shape == (6000, WIDTH) and len(answer.content) > 20_000_000
    assert (peak.wrong, peak.longest_s < 10) == ([], True)


def test_answers_that_nobody_reads_take_the_memory_of_a_few_and_yield(served: Server) -> None:
    body = np.ones((6000, 4), np.float32).tobytes()  # 12 MB of scores
    request = post("/predict", body, "content-type: application/octet-stream").replace(
        b"content-type: application/json\r\n", b""
    )
    with contextlib.ExitStack() as stack, Peak(served) as peak:
        for _ in range(40):
            caller = stack.enter_context(socket.socket())
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            caller.connect(("127.0.0.1", served.port))
            caller.sendall(request)
        time.sleep(2)
        for _ in range(10):
            answer = served.client.post("/predict", content=body, headers=RAW)
            if answer.status_code == 200:
                break
            assert answer.status_code == 503
        assert len(answer.content) == 6000 * WIDTH * 4
    assert peak.grown_mb < 140
    assert peak.wrong == []
