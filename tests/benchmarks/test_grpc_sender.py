"""The sender of gRPC calls: what it writes down is what happened, whatever the server does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from tritonclient.grpc import service_pb2

from hone.benchmarks.load.sending.fleet import Fleet
from hone.benchmarks.load.sending.plan import INTERRUPTED, NOT_SENT, Plan
from hone.benchmarks.load.sending.protobuf import fields
from hone.benchmarks.load.target import Access, Target, grpc_address
from hone.benchmarks.load.wire import GRPC_METHOD, Expected, wire
from hone.errors import HoneError
from hone.services.launch import free_port
from hone.signature import Signature, TensorSpec
from tests.benchmarks.small_service import running
from tests.benchmarks.test_sender import sent
from tests.models.dense import dense_signature

Answer = Callable[[bytes, Any], bytes]


def answer_of(rows: int, tag: tuple[str, str] = ("dense", "v1")) -> bytes:
    answer = service_pb2.ModelInferResponse(model_name=tag[0], model_version=tag[1])
    answer.outputs.add(name="scores", datatype="FP32", shape=(rows, 3))
    answer.raw_output_contents.append(bytes(12 * rows))
    return bytes(answer.SerializeToString())


@contextmanager
def talker(answer: Answer, workers: int = 8) -> Iterator[str]:
    """A gRPC server of so many threads that lets a function answer each inference."""
    _, service, method = GRPC_METHOD.split("/")
    server = grpc.server(ThreadPoolExecutor(workers))
    handlers = {method: grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def plan(url: str, **load: Any) -> Plan:
    call = wire("grpc").call("/models/dense", dense_signature(), {"features": np.ones((1, 4), np.float32)})
    return Plan(
        url=url, requests=[call.body], rows=np.ones(1, int), order=np.zeros(1, np.uint32), wire="grpc",
        outputs=dense_signature().outputs, **load,
    )  # fmt: skip


def test_message_is_what_tritons_own_code_reads() -> None:
    signature = Signature(
        inputs=(
            TensorSpec(name="ids", dtype="int64", shape=("batch", "length")),
            TensorSpec(name="text", dtype="string", shape=("batch",)),
        ),
        outputs=(TensorSpec(name="scores", dtype="float32", shape=("batch", 3)),),
    )
    ids, text = np.arange(600).reshape(2, 300), np.array(["a", "bé"], object)
    call = wire("grpc").call("/models/tokens/versions/onnx-1", signature, {"ids": ids, "text": text})
    read = service_pb2.ModelInferRequest.FromString(call.body)
    assert (call.path, read.model_name, read.model_version) == (GRPC_METHOD, "tokens", "onnx-1")
    assert [(entry.name, entry.datatype, [*entry.shape]) for entry in read.inputs] == [
        ("ids", "INT64", [2, 300]),
        ("text", "BYTES", [2]),
    ]
    assert read.raw_input_contents[0] == ids.astype("<i8").tobytes()
    assert read.raw_input_contents[1] == b"\x01\x00\x00\x00a\x03\x00\x00\x00b\xc3\xa9"


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (answer_of(2), ""),
        (answer_of(2, ("dense", "v2")), "answered by dense:v2, not dense:v1"),
        (answer_of(3), "answer has [3] rows, not 2"),
        (b"\xff\xff", "answer is not a prediction"),
        (answer_of(2)[:-1], "answer is not a prediction"),
        (b"", "answer has [] rows, not 2"),
    ],
)
def test_wrong_answers_are_named(answer: bytes, fault: str) -> None:
    assert wire("grpc").fault(200, answer, {}, Expected(2, "dense:v1", dense_signature().outputs)) == fault


def test_numbers_and_fixed_fields_are_walked_over() -> None:
    assert list(fields(b"\x08\x96\x01\x11" + bytes(8) + b"\x1a\x02hi\x25" + bytes(4))) == [
        (1, 150),
        (2, bytes(8)),
        (3, b"hi"),
        (4, bytes(4)),
    ]
    with pytest.raises(ValueError, match="no protobuf message"):
        list(fields(b"\x0b"))


def test_open_loop_sends_every_request_once_at_its_time_with_its_key(tmp_path: Path) -> None:
    keys = set()

    def answer(_: bytes, context: Any) -> bytes:
        keys.add(dict(context.invocation_metadata()).get("x-api-key"))
        return answer_of(1)

    arrivals = np.sort(np.random.default_rng(0).random(200)) * 1.5
    with talker(answer) as url:
        records, errors, summary = sent(tmp_path, plan(url, arrivals=arrivals, metadata={"x-api-key": "secret"}))
    assert sorted(records["intended"]) == pytest.approx(arrivals)
    assert (records["started"] >= records["intended"]).all()
    assert (records["ended"] >= records["started"]).all()
    assert errors == [[]]
    assert keys == {"secret"}
    assert set(records["size"].tolist()) == {len(answer_of(1))}
    assert 0 < summary["cpu_share"] < 1


def test_latency_counts_from_the_time_that_was_meant(tmp_path: Path) -> None:
    """A server that answers one at a time: who comes while it sleeps waits for it, and that is seen."""

    def answer(_: bytes, __: Any) -> bytes:
        time.sleep(0.2)
        return answer_of(1)

    with talker(answer, workers=1) as url:
        records, _, _ = sent(tmp_path, plan(url, arrivals=np.linspace(0, 0.1, 5)))
    waited = np.sort(records["ended"] - records["intended"])
    assert waited[-1] > 5 * 0.2 - 0.1 - 0.05


def test_failures_are_named_by_their_code_and_more_than_may_be_in_flight_is_not_sent(tmp_path: Path) -> None:
    def answer(_: bytes, context: Any) -> bytes:
        time.sleep(0.3)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full")
        return b""

    with talker(answer) as url:
        records, errors, _ = sent(tmp_path, plan(url, arrivals=np.full(6, 0.01), in_flight=4))
    words = [["", *errors[0]][code] for code in records["error"]]
    assert sorted(words) == ["gRPC RESOURCE_EXHAUSTED"] * 4 + [NOT_SENT] * 2


def test_callers_come_and_go_and_a_stop_ends_what_is_in_flight(tmp_path: Path) -> None:
    slow = False

    def answer(_: bytes, context: Any) -> bytes:
        while slow and context.is_active():
            time.sleep(0.05)
        return answer_of(1)

    with talker(answer) as url:
        plan(url).write(tmp_path)
        fleet = Fleet([tmp_path])
        try:
            fleet.set_users(3)
            time.sleep(1.0)
            records = fleet.more()
            assert len(records) > 5
            fleet.set_users(0)
            time.sleep(1.0)
            fleet.more()
            time.sleep(0.5)
            assert len(fleet.more()) == 0
            slow = True
            fleet.set_users(2)
            time.sleep(0.6)
        finally:
            fleet.end()
    last = fleet.more()
    assert [fleet.errors()[0][code - 1] for code in last["error"]] == [INTERRUPTED] * 2
    assert fleet.failure() == ""


def test_no_service_is_one_line(tmp_path: Path) -> None:
    plan(f"grpc://127.0.0.1:{free_port()}", arrivals=np.zeros(1)).write(tmp_path)
    with pytest.raises(HoneError, match=r"grpc://127\.0\.0\.1:\d+: no gRPC service answers"):
        Fleet([tmp_path])


def test_address_is_the_one_given_or_the_one_that_the_service_says(tmp_path: Path) -> None:
    with running(tmp_path, 0.0) as url:  # which says nothing of gRPC
        target = Target(url, Access(), "dense", "v1", None, "/models/dense", dense_signature(), {})
        with pytest.raises(HoneError, match=r"has no gRPC port; start it with --grpc-port .* --grpc-address HOST:PORT"):
            grpc_address(target)
    behind = Target(
        "https://models.example.com",
        Access(grpc="grpc.example.com:443"),
        "dense",
        "v1",
        None,
        "",
        dense_signature(),
        {},
    )
    assert grpc_address(behind) == "grpcs://grpc.example.com:443"
