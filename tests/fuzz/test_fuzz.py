"""Over ten thousand broken and odd requests over every protocol: no 5xx, no hang, nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from hone.errors import SignatureError
from hone.services.batching.scheduler import Scheduler
from hone.services.grpc.v2 import decode
from hone.services.http.failures import RequestError
from hone.services.models.desired import DesiredState
from hone.services.routes.edge import Edge
from hone.services.routes.hub import Hub
from hone.services.routes.management import Management
from hone.services.routes.repository import Repository
from hone.services.settings import Settings
from tests.models.dense import dense_answer, dense_signature
from tests.servers import DIGITS, put, server, use_store

ROW = np.arange(4, dtype=np.float32)
HTTP_CASES, GRPC_CASES, SCHEMA_CASES = 9_000, 2_000, 300


class InProcess:
    """Our endpoints on an event loop of their own, without sockets: thousands of cases in seconds."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.run(self._start(folder))

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    async def _start(self, folder: Path) -> None:
        edge = Edge(Settings(max_body_mb=0.2))
        self.hub = Hub(edge, Scheduler(1))
        await self.hub.load("digits")
        repository = Repository(self.hub, edge, DesiredState(folder / "state"))
        self.management = Management(self.hub, edge, repository)

    def call(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, dict[bytes, bytes], bytes]:
        sent: list[Any] = []
        pieces = [body[:7], body[7:]] if len(body) % 3 == 0 else [body]

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def send(message: Any) -> None:
            sent.append(message)

        lines = [(key.lower().encode("latin-1"), value.encode("latin-1", "ignore")) for key, value in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": lines}
        self.run(self.hub.routes.get(path, self.management)(scope, receive, send))
        return sent[0]["status"], dict(sent[0]["headers"]), bytes(sent[1]["body"])


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[InProcess]:
    home = tmp_path_factory.mktemp("home")
    put(home, home / "artifact", "digits", "v1")
    with contextlib.ExitStack() as stack:
        made = InProcess(home)
        stack.callback(made.loop.call_soon_threadsafe, made.loop.stop)
        yield made


@pytest.fixture(autouse=True)
def fuzzed_store(service: InProcess, tmp_path: Path, home: Path) -> None:
    """Give the module's service a store that a stray `load` finds empty."""
    use_store(tmp_path)


def _v2() -> tuple[bytes, dict[str, str]]:
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return text + ROW.tobytes(), {"inference-header-content-length": str(len(text))}


def _npy() -> bytes:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + ROW.tobytes()


def _arrow() -> bytes:
    import pyarrow as pa

    table = pa.table({"features": pa.FixedSizeListArray.from_arrays(pa.array(ROW), 4)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


V2_JSON = json.dumps({"inputs": [{"name": "features", "datatype": "FP32", "shape": [1, 4], "data": [0, 1, 2, 3]}]})
VALID: list[tuple[str, dict[str, str], bytes]] = [
    ("/predict", {"content-type": "application/json"}, json.dumps({"inputs": {"features": [ROW.tolist()]}}).encode()),
    ("/predict", {"content-type": "application/octet-stream"}, ROW.tobytes()),
    ("/predict", {"content-type": "application/x-npy"}, _npy()),
    ("/predict", {"content-type": "application/vnd.apache.arrow.stream"}, _arrow()),
    ("/v1/models/digits:predict", {}, json.dumps({"instances": [ROW.tolist()]}).encode()),
    ("/v2/models/digits/infer", {}, V2_JSON.encode()),
    ("/v2/models/digits/infer", _v2()[1], _v2()[0]),
    ("/v2/models/digits/infer", {"inference-header-content-length": "0"}, ROW.tobytes()),
]
OTHER_PATHS = [
    "/v2", "/v2/", "/v2/health/ready", "/v2/models/digits", "/v2/models/digits/versions", "/v2/models/digits/versions/",
    "/v2/models/digits/versions/v1/ready", "/v2/models/digits/config", "/v2/models/", "/v1/models", "/v1/models/",
    "/v1/models/x:predict", "/v2/repository/index", "/v2/repository/models/nothing/load", "/v2/repository/", "//",
    "/v2//x",
]  # fmt: skip
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(
            st.sampled_from(["inputs", "instances", "name", "shape", "data", "datatype", "parameters", "outputs", "id"])
            | st.text(max_size=4),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["content-type", "content-encoding", "content-length", "x-timeout-ms", "x-shape", "x-request-id", "accept",
         "inference-header-content-length", "authorization", "traceparent", "origin", "host"]
    ),
    st.sampled_from(
        ["", "0", "-1", "1", "16", "99999999999999999999", "gzip", "zstd", "br", "identity", "nan", "inf", "1e400", "4",
         "1,4", "0,4", "application/json", "application/octet-stream", "application/x-npy", "Bearer x"]
    )
    | st.text(st.characters(max_codepoint=255), max_size=12),
    max_size=3,
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, dict[str, str], bytes]:
    """Return a valid request that was broken in a few places, or one made of nothing but its form."""
    path, headers, body = draw(st.sampled_from(VALID))
    change = draw(st.sampled_from(["json", "bytes", "flip", "cut", "grow", "numbers", "pack", "none", "path"]))
    if change == "json":
        body = json.dumps(draw(JSON_VALUES), allow_nan=True).encode()
    elif change == "bytes":
        body = draw(st.binary(max_size=100))
    elif change == "flip" and body:
        changed = bytearray(body)
        for position in draw(st.lists(st.integers(0, len(body) - 1), min_size=1, max_size=5)):
            changed[position] = draw(st.integers(0, 255))
        body = bytes(changed)
    elif change == "cut":
        body = body[: draw(st.integers(0, len(body)))]
    elif change == "grow":
        body += draw(st.binary(min_size=1, max_size=40))
    elif change == "numbers":
        body = np.array(draw(st.lists(st.floats(width=32), max_size=12)), np.float32).tobytes()
    elif change == "pack":
        packed = draw(st.sampled_from([gzip.compress, zstandard.compress]))(body)
        body = packed[: draw(st.integers(0, len(packed)))] if draw(st.booleans()) else packed
        headers = {**headers, "content-encoding": draw(st.sampled_from(["gzip", "zstd"]))}
    elif change == "path":
        path = draw(st.sampled_from(OTHER_PATHS))
    method = draw(st.sampled_from(["POST"] * 8 + ["GET", "PUT"]))
    return method, path, {**headers, **draw(HEADERS)}, body


def test_memory_stays_flat_over_requests_of_every_kind(service: InProcess) -> None:
    random, process, sizes = np.random.default_rng(1), psutil.Process(), []
    for _ in range(3):
        for number in range(1000):
            path, headers, body = VALID[random.integers(len(VALID))]
            if number % 3 == 1 and body:
                flipped = bytearray(body)
                flipped[random.integers(len(body))] = random.integers(256)
                body = bytes(flipped)
            elif number % 3 == 2:
                path, body = (path, body[: len(body) // 2]) if number % 2 else (f"/made-up/{number}", body)
            service.call("POST", path, headers, body)
        gc.collect()
        sizes.append(process.memory_info().rss)
    assert sizes[2] - sizes[0] < 20e6


@pytest.mark.slow
def test_http_requests_of_every_kind_get_an_answer(service: InProcess) -> None:
    seen: dict[int, int] = {}

    @settings(max_examples=HTTP_CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(requests())
    def each(request: tuple[str, str, dict[str, str], bytes]) -> None:
        status, headers, body = service.call(*request)
        seen[status] = seen.get(status, 0) + 1
        assert status < 500 or (status == 503 and b"retry-after" in headers), (status, body)
        if status >= 400 and not request[1].startswith("/v2/health"):
            problem = json.loads(body)
            assert list(problem) == ["error"] and problem["error"] and "\n" not in problem["error"]

    each()
    assert seen[200] > HTTP_CASES // 50 and seen[400] > HTTP_CASES // 5
    assert sum(seen.values()) >= HTTP_CASES
    served = service.hub.get("digits")
    assert (served.metrics.in_flight, served._lane.queue.rows, served._lane.flying) == (0, 0, 0)
    status, _, body = service.call("POST", *VALID[1])
    assert status == 200
    np.testing.assert_allclose(np.frombuffer(body, np.float32), dense_answer(ROW), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("request_", VALID, ids=range(len(VALID)))
def test_what_is_broken_above_is_whole_here(service: InProcess, request_: tuple[str, dict[str, str], bytes]) -> None:
    assert service.call("POST", *request_)[0] == 200


FIELDS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["features", "features", "feature", ""]),
        "datatype": st.sampled_from(["FP32", "FP32", "FP64", "BYTES", ""]),
        "shape": st.lists(st.integers(-2, 5) | st.integers(-(2**63), 2**63 - 1), max_size=3) | st.just([1, 4]),
    }
)


@pytest.mark.slow
@settings(max_examples=GRPC_CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(FIELDS, max_size=2),
    st.lists(st.binary(max_size=24) | st.just(ROW.tobytes()), max_size=2),
    st.lists(st.floats(width=32), max_size=6),
)
def test_grpc_requests_are_understood_or_refused(
    inputs: list[dict[str, Any]], raw: list[bytes], values: list[float]
) -> None:
    request = service_pb2.ModelInferRequest(raw_input_contents=raw)
    for fields in inputs:
        request.inputs.add(**fields).contents.fp32_contents.extend(values)
    try:
        arrays = decode(request, dense_signature())
    except (RequestError, SignatureError) as error:
        assert str(error) and "\n" not in str(error)
        return
    assert arrays["features"].shape[1] == 4 and np.isfinite(arrays["features"]).all()


@pytest.mark.slow
def test_schemathesis_finds_nothing_in_what_openapi_promises(tmp_path: Path) -> None:
    put(tmp_path, tmp_path / "artifact", "digits", "v1")
    with server(DIGITS, tmp_path) as running:
        url = f"http://127.0.0.1:{running.port}"
        command = [
            str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/docs.json",
            "--checks", "not_a_server_error,content_type_conformance",
            "--max-examples", str(SCHEMA_CASES), "--phases", "examples,coverage,fuzzing",
            "--include-path-regex", "predict|infer", "--request-timeout", "20", "--suppress-health-check", "all",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-500:]
        answer = running.client.post("/predict", json={"inputs": {"features": [ROW.tolist()]}})
        assert answer.status_code == 200
