"""Bodies that cost far more than they weigh, against one real server: refused, cheaply, while it answers others."""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import threading
import time
from collections.abc import Iterator

import grpc
import httpx
import numpy as np
import orjson
import psutil
import pyarrow as pa
import pytest
import zstandard
from tritonclient.grpc import service_pb2

from hone.services.launch import free_port
from tests.aside import Aside
from tests.fuzz.valid import stream
from tests.models.dense import dense_answer
from tests.servers import DIGITS, Server, caller, put, server

MOST_MB = 700
"""What a worker may grow by for one body of 16 MB: what reading it may take, the body itself, and room."""

PATIENCE_S = 10.0
"""Far more than any of these takes, far less than a worker that is held up takes."""


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("shop")
    put(home, home / "artifact", "digits", "v1")
    with server(DIGITS, home, HONE_GRPC_PORT=str(port)) as running:
        yield running


def predict(value: object, name: str = "features") -> bytes:
    return orjson.dumps({"inputs": {name: value}})


def arrow(rows: int, codec: str | None = None) -> bytes:
    flat = pa.array(np.zeros(rows * 4, np.float32))
    return stream(pa.table({"features": pa.FixedSizeListArray.from_arrays(flat, 4)}), compression=codec)


def lists() -> bytes:
    return b'{"inputs": {"features": [' + b"[]," * 5_000_000 + b"[]]}}"


def npy_of(shape: str) -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x02\0" + len(header).to_bytes(4, "little") + header


def v2(**entry: object) -> bytes:
    return json.dumps({"inputs": [{"name": "features", "datatype": "FP32", "data": [], **entry}]}).encode()


def cut_zstd() -> bytes:
    return zstandard.compress(np.random.default_rng(0).normal(size=(2000, 4)).astype(np.float32).tobytes())[:-1]


TEXTS = ["a" * 2_000_000, *[""] * 500]
JSON, RAW = {"content-type": "application/json"}, {"content-type": "application/octet-stream"}
ARROW, NPY = {"content-type": "application/vnd.apache.arrow.stream"}, {"content-type": "application/x-npy"}
GZIP = {**JSON, "content-encoding": "gzip"}
V1, V2 = "/v1/models/digits:predict", "/v2/models/digits/infer"
HUGE = [0, 2**40 - 1, 2**40 - 1]
BODIES = {
    "2 kB that are 2 MB of strings": ("/predict", GZIP, lambda: gzip.compress(predict(TEXTS)), 400, "strings"),
    "strings among numbers": ("/predict", JSON, lambda: predict([[1.5] * 900_000, TEXTS]), 400, "ragged"),
    "strings in V1": (V1, GZIP, lambda: gzip.compress(orjson.dumps({"instances": TEXTS})), 400, "strings"),
    "strings in V2": (V2, GZIP, lambda: gzip.compress(v2(shape=[501], data=TEXTS)), 400, "strings"),
    "five million lists": ("/predict", JSON, lists, 413, "MB of memory"),
    "a long name": ("/predict", JSON, lambda: predict(1, "A" * 15_900_000), 400, "unknown input 'AAA"),
    "a long field": ("/predict", JSON, lambda: orjson.dumps({"inputs": {}, "A" * 15_900_000: 1}), 400, "unknown field"),
    "a long type": (V2, JSON, lambda: v2(shape=[0], datatype="A" * 15_000_000), 400, "datatype AAA"),
    "a million rows": ("/predict", JSON, lambda: predict([[0, 0, 0, 0]] * 1_000_000), 413, "1000000 rows"),
    "a million raw rows": ("/predict", RAW, lambda: bytes(16_000_000), 413, "1000000 rows"),
    "an Arrow bomb": ("/predict", ARROW, lambda: arrow(4_000_000, "zstd"), 400, "compressed buffers"),
    "Arrow rows": ("/predict", {**ARROW, "content-encoding": "zstd"}, lambda: zstandard.compress(arrow(900_000)), 413,
                   "900000 rows"),
    "Arrow cut between batches": ("/predict", ARROW, lambda: arrow(3)[:-8], 400, "end-of-stream marker"),
    "cut zstd": ("/predict", {**RAW, "content-encoding": "zstd"}, cut_zstd, 400, "ends early"),
    "a huge V2 shape": (V2, JSON, lambda: v2(shape=HUGE), 400, "not possible"),
    "a V2 shape of 65 axes": (V2, JSON, lambda: v2(shape=[1] * 65, data=[1]), 400, "32 at most"),
    "V2 data of 70 levels": (V2, JSON, lambda: v2(shape=[1]).replace(b"[]", b"[" * 70 + b"1" + b"]" * 70), 400, "deep"),
    "a huge x-shape": ("/predict", {**RAW, "x-shape": "0,99999999999,99999999999"}, bytes, 400, "not possible"),
    "a huge npy shape": ("/predict", NPY, lambda: npy_of(f"(0, {10**30})"), 400, "not possible"),
    "an npy shape of 3,700 digits": ("/predict", NPY, lambda: npy_of(f"(0x{'f' * 3000},)"), 400, "not possible"),
}  # fmt: skip


class Peak(Aside):
    """The largest resident memory of a process while this is entered, and the longest wait of another caller."""

    def __init__(self, served: Server) -> None:
        (pid,) = served.workers()
        self._process = psutil.Process(pid)
        self._url = f"http://127.0.0.1:{served.port}/predict"
        super().__init__(self._look, self._ask)
        self.base = self.rss = self._process.memory_info().rss
        self.longest_s = 0.0
        self.wrong: list[int] = []

    def _look(self) -> None:
        while not self._stop.wait(0.01):
            self.rss = max(self.rss, self._process.memory_info().rss)

    def _ask(self) -> None:
        row = np.ones((1, 4), np.float32).tobytes()
        with caller(timeout=60) as client:
            while not self._stop.wait(0.05):
                started = time.monotonic()
                status = client.post(self._url, content=row, headers=RAW).status_code
                self.longest_s = max(self.longest_s, time.monotonic() - started)
                self.wrong += [status] if status != 200 else []

    @property
    def grown_mb(self) -> float:
        return (self.rss - self.base) / 1e6


@pytest.mark.parametrize("name", list(BODIES))
def test_a_body_that_costs_more_than_it_weighs_is_refused_while_others_are_answered(served: Server, name: str) -> None:
    path, headers, make, status, words = BODIES[name]
    body = make()
    started = time.monotonic()
    with Peak(served) as peak:
        answer = served.client.post(path, content=body, headers=headers)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text[:300]
    assert len(answer.content) < 1200
    assert time.monotonic() - started < PATIENCE_S
    assert (peak.wrong, peak.longest_s < PATIENCE_S) == ([], True), peak.longest_s
    assert peak.grown_mb < MOST_MB
    assert "Traceback" not in served.log.read_text()


def infer(port: int, body: bytes, timeout: float = 60) -> bytes:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_send_message_length", -1)]) as channel:
        answer: bytes = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(body, timeout=timeout)
        return answer


def message(shape: list[int], raw: bytes = b"", **fields: object) -> bytes:
    request = service_pb2.ModelInferRequest(model_name="digits", raw_input_contents=[raw])
    request.inputs.add(**{"name": "features", "datatype": "FP32", "shape": shape, **fields})
    return request.SerializeToString()


CODE = grpc.StatusCode
CALLS = {
    "no message": (lambda: b"\xff" * 100, CODE.INVALID_ARGUMENT, "not a ModelInferRequest"),
    "countless fields": (lambda: b"\x2a\0" * 7_000_000, CODE.RESOURCE_EXHAUSTED, "more than 250000 fields"),
    "a huge shape": (lambda: message(HUGE), CODE.INVALID_ARGUMENT, "not possible"),
    "a shape of 65 axes": (lambda: message([1] * 65), CODE.INVALID_ARGUMENT, "65 axes"),
    "a million rows": (lambda: message([999_000, 4], bytes(15_984_000)), CODE.RESOURCE_EXHAUSTED, "999000 rows"),
    "a long name": (lambda: message([1, 4], name="A" * 15_000_000), CODE.INVALID_ARGUMENT, "unknown input 'AAA"),
    "over the limit": (lambda: message([1, 4], bytes(17_000_000)), CODE.RESOURCE_EXHAUSTED, "larger than max"),
}


@pytest.mark.parametrize("name", list(CALLS))
def test_a_grpc_message_is_refused_in_one_line(served: Server, port: int, name: str) -> None:
    make, code, words = CALLS[name]
    body = make()
    with Peak(served) as peak, pytest.raises(grpc.RpcError) as caught:
        infer(port, body)
    assert (caught.value.code(), words in caught.value.details()) == (code, True), caught.value.details()[:300]
    assert "\n" not in caught.value.details()
    assert (peak.wrong, peak.longest_s < PATIENCE_S) == ([], True)
    assert peak.grown_mb < MOST_MB
    assert "Traceback" not in served.log.read_text()


def test_largest_bodies_that_may_come_are_answered(served: Server, port: int) -> None:
    rows = np.random.default_rng(0).normal(size=(65_536, 4)).astype(np.float32)
    expected = dense_answer(rows)
    raw = served.client.post("/predict", content=rows.tobytes(), headers=RAW)
    np.testing.assert_allclose(np.frombuffer(raw.content, np.float32).reshape(-1, 3), expected, rtol=1e-3, atol=1e-4)
    table = served.client.post("/predict", content=arrow(65_536), headers=ARROW)
    assert pa.ipc.open_stream(table.content).read_all().num_rows == 65_536
    answer = service_pb2.ModelInferResponse.FromString(infer(port, message([65_536, 4], rows.tobytes())))
    scores = np.frombuffer(answer.raw_output_contents[0], np.float32).reshape(-1, 3)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-4)


def test_a_call_without_a_message_is_refused(port: int) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(iter([]), timeout=20)
    assert (caught.value.code(), caught.value.details()) == (CODE.INVALID_ARGUMENT, "the call came without a message")


def test_sigterm_ends_a_server_that_got_all_of_these(served: Server) -> None:
    bodies = [(*BODIES[name][:2], BODIES[name][2]()) for name in ("an Arrow bomb", "five million lists")]

    def send(path: str, headers: dict[str, str], body: bytes) -> None:
        with contextlib.suppress(httpx.TransportError):  # the server may go first
            httpx.post(f"http://127.0.0.1:{served.port}{path}", content=body, headers=headers, timeout=30, verify=False)

    threads = [threading.Thread(target=send, args=body) for body in bodies * 2]
    for thread in threads:
        thread.start()
    time.sleep(0.2)
    served.process.send_signal(signal.SIGTERM)
    served.process.wait(30)
    for thread in threads:
        thread.join()
