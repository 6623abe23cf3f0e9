"""What a production team does to a service, for real: keys, TLS, swaps under load, drains, crashes, slow callers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from hone import store
from hone.audit import verify
from hone.services.access.api_keys import add_key
from hone.services.launch import free_port
from hone.services.observe.recording import read
from tests.aside import Aside
from tests.models.dense import dense_answer, dense_artifact
from tests.servers import DIGITS, HONE, Server, caller, put, self_signed, server, use_store

BINARY = {"content-type": "application/octet-stream"}


def rows(count: int = 1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 4)).astype(np.float32)


def scores(answer: httpx.Response) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.frombuffer(answer.content, np.float32).reshape(-1, 3)


def ask(client: httpx.Client, count: int = 1, seed: int = 0, **headers: str) -> httpx.Response:
    return client.post("/predict", content=rows(count, seed).tobytes(), headers={**BINARY, **headers})


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A BentoML home with two versions of digits, with different weights; the older one is the winner."""
    return stocked(tmp_path)


def stocked(folder: Path) -> Path:
    home = folder / "shop"
    put(home, folder / "a", "digits", "onnx-fp32-1", run="1", rank=0, seed=0)
    put(home, folder / "b", "digits", "onnx-other-1", run="1", rank=1, seed=1)
    return home


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server of the shop without settings, for tests that leave it as it was: version onnx-fp32-1 is loaded."""
    home = stocked(tmp_path_factory.mktemp("plain"))
    with server(DIGITS, home) as running:
        yield running, home


class Load(Aside):
    """Callers that never stop, and every answer that was not one of the two models'."""

    def __init__(self, port: int, callers: int = 4) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self.wrong: list[str] = []
        self.answered = 0
        super().__init__(*(partial(self._call, index) for index in range(callers)))

    def _call(self, seed: int) -> None:
        features = rows(2, seed)
        right = [dense_answer(features, weights) for weights in (0, 1)]
        with caller(self._url) as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/predict", content=features.tobytes(), headers=BINARY)
                except httpx.TransportError as error:
                    self.wrong.append(repr(error))
                    continue
                found = np.frombuffer(answer.content, np.float32).reshape(-1, 3) if answer.status_code == 200 else None
                if found is None or not any(np.allclose(found, each, rtol=1e-4, atol=1e-5) for each in right):
                    self.wrong.append(f"{answer.status_code} {answer.text[:200]}")
                self.answered += 1


def test_versions_swap_under_load_with_no_failed_request_and_memory_given_back(shop: Path) -> None:
    with server(DIGITS, shop, HONE_AUDIT_LOG=str(shop / "audit.jsonl")) as running:
        client = running.client
        worker = psutil.Process(running.workers()[0])
        with Load(running.port) as load:
            time.sleep(0.5)
            before = worker.memory_info().rss
            for _ in range(10):
                for version in ("onnx-other-1", "onnx-fp32-1"):
                    answer = client.post("/v2/repository/models/digits/load", json={"parameters": {"version": version}})
                    assert answer.json() == {"name": "digits", "version": version}, answer.text
            time.sleep(0.5)
            grown = worker.memory_info().rss - before
        assert load.wrong == []
        assert load.answered > 100
        assert grown < 40e6
        index = client.post("/v2/repository/index").json()
        assert {entry["version"]: entry["state"] for entry in index} == {
            "onnx-fp32-1": "READY", "onnx-other-1": "UNAVAILABLE",
        }  # fmt: skip
    assert verify(shop / "audit.jsonl").records == 40  # each is recorded before and after


def test_two_versions_side_by_side_and_unloading(plain: tuple[Server, Path]) -> None:
    running, _ = plain
    client = running.client
    body = {"parameters": {"version": "onnx-other-1", "keep": True}}
    assert client.post("/v2/repository/models/digits/load", json=body).status_code == 200
    assert set(client.get("/v2/models/digits").json()["versions"]) == {"onnx-fp32-1", "onnx-other-1"}
    for version, seed in (("onnx-fp32-1", 0), ("onnx-other-1", 1)):
        answer = client.post(f"/models/digits/versions/{version}/predict", content=rows(3).tobytes(), headers=BINARY)
        np.testing.assert_allclose(scores(answer), dense_answer(rows(3), seed), rtol=1e-4, atol=1e-5)
    client.post("/v2/repository/models/digits/unload", json={"parameters": {"version": "onnx-other-1"}})
    np.testing.assert_allclose(scores(ask(client)), dense_answer(rows(), 0), rtol=1e-4, atol=1e-5)
    assert client.post("/v2/repository/models/digits/unload").status_code == 200
    assert ask(client).status_code == 404
    assert client.get("/v2/health/ready").status_code == 503
    assert client.post("/v2/repository/models/digits/load").status_code == 200
    assert ask(client).status_code == 200
    for path, body, status in (
        ("/v2/repository/models/nothing/load", {}, 404),
        ("/v2/repository/models//load", {}, 404),
        ("/v2/repository/models/../load", {}, 404),
        ("/v2/repository/models/%2e%2e/load", {}, 404),
        ("/v2/repository/models/digits/load", {"parameters": {"version": 7}}, 400),
        ("/v2/repository/models/nothing/unload", {}, 404),
        ("/v2/repository/models/digits/burn", {}, 404),
    ):
        assert client.post(path, json=body).status_code == status, path


def test_store_that_breaks_while_serving_hurts_nobody(shop: Path) -> None:
    with server(DIGITS, shop) as running, Load(running.port, 2) as load:
        folder = shop / "models" / "digits" / "onnx-other-1"
        model = folder / "model.onnx"
        model.chmod(0o644)
        model.write_bytes(model.read_bytes()[:-1] + b"x")
        answer = running.client.post(
            "/v2/repository/models/digits/load", json={"parameters": {"version": "onnx-other-1"}}
        )
        assert (answer.status_code, "corrupt" in answer.text) == (422, True)
        shutil.rmtree(shop / "models" / "digits")
        assert running.client.post("/v2/repository/models/digits/load").status_code == 404
        assert ask(running.client).status_code == 200
    assert load.wrong == []


def test_all_workers_follow_and_a_killed_one_loses_what_was_in_flight_and_comes_back_as_they_are(shop: Path) -> None:
    with server(DIGITS, shop, HONE_WORKERS="2") as running:
        client = running.client
        deadline = time.monotonic() + 60
        while running.log.read_text().count("Completed async startup hook") < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        body = {"parameters": {"version": "onnx-other-1"}}
        assert client.post("/v2/repository/models/digits/load", json=body).status_code == 200

        def answers() -> set[int]:
            found = set()
            for _ in range(20):
                with caller(client.base_url) as fresh:
                    answer = scores(ask(fresh))
                found.add(next(seed for seed in (0, 1) if np.allclose(answer, dense_answer(rows(), seed), rtol=1e-3)))
            return found

        assert answers() == {1}
        victim = running.workers()[0]
        with Load(running.port) as load:
            time.sleep(0.5)
            os.kill(victim, signal.SIGKILL)
            time.sleep(0.5)
        assert len(load.wrong) <= 4  # a caller has one request in flight
        assert all("Error" in problem for problem in load.wrong)
        assert load.answered > 20
        deadline = time.monotonic() + 60
        while (victim in running.workers() or len(running.workers()) < 2) and time.monotonic() < deadline:
            time.sleep(0.1)
        while running.log.read_text().count("Completed async startup hook") < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.0)
        assert answers() == {1}
        counted = sum(
            float(line.rsplit(" ", 1)[1])
            for line in client.get("/metrics").text.splitlines()
            if line.startswith("hone_requests_total") and 'protocol="predict"' in line
        )
        assert counted > load.answered / 2


def test_sigterm_turns_readiness_off_serves_on_and_drains(shop: Path) -> None:
    with server(DIGITS, shop, HONE_DRAIN_S="2") as running:
        client = running.client
        worker = running.workers()[0]
        os.kill(worker, signal.SIGTERM)
        time.sleep(0.5)
        assert client.get("/readyz").status_code == 503
        assert client.get("/v2/health/ready").status_code == 503
        assert ask(client).status_code == 200  # a load balancer that has not noticed yet
        psutil.Process(worker).wait(20)


def test_workers_of_a_killed_server_stop(shop: Path) -> None:
    with server(DIGITS, shop) as running:
        worker = psutil.Process(running.workers()[0])
        os.kill(running.process.pid, signal.SIGKILL)
        worker.wait(20)


def test_keys_scopes_rates_and_audit(shop: Path) -> None:
    keys, audit = shop / "keys.yaml", shop / "audit.jsonl"
    reader = add_key(keys, "reader", ("predict",))
    admin = add_key(keys, "operator", ("predict", "admin"))
    slow = add_key(keys, "slow", ("predict",), 1.0)
    port = free_port()
    environment = {"HONE_API_KEYS": str(keys), "HONE_AUDIT_LOG": str(audit), "HONE_GRPC_PORT": str(port)}
    with server(DIGITS, shop, **environment) as running:
        client = running.client
        assert ask(client).status_code == 401
        assert ask(client).headers["www-authenticate"] == "Bearer"
        assert ask(client, **{"x-api-key": "wrong"}).status_code == 401
        assert ask(client, **{"x-api-key": reader}).status_code == 200
        assert ask(client, authorization=f"Bearer {reader}").status_code == 200
        assert client.get("/v2/models/digits").status_code == 401
        assert client.get("/readyz").status_code == 200  # probes have no keys
        load = "/v2/repository/models/digits/load"
        assert client.post(load, headers={"x-api-key": reader}).status_code == 403
        assert client.post(load, headers={"x-api-key": admin}).status_code == 200
        limited = [ask(client, **{"x-api-key": slow}) for _ in range(3)]
        assert [answer.status_code for answer in limited] == [200, 429, 429]
        assert int(limited[1].headers["retry-after"]) >= 1
        with triton_grpc.InferenceServerClient(f"127.0.0.1:{port}") as triton:
            tensor = triton_grpc.InferInput("features", [1, 4], "FP32")
            tensor.set_data_from_numpy(rows())
            with pytest.raises(InferenceServerException, match="a key is needed"):
                triton.infer("digits", [tensor])
            with pytest.raises(InferenceServerException, match="needs the scope 'operate'"):
                triton.unload_model("digits", headers={"x-api-key": reader})
            triton.infer("digits", [tensor], headers={"x-api-key": reader})
            triton.load_model("digits", headers={"x-api-key": admin})
        log = running.log.read_text()
        assert not any(key in log for key in (reader, admin, slow))
    assert verify(audit).records == 4
    assert {json.loads(line)["actor"] for line in audit.read_text().splitlines()} == {"operator"}


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_addresses_need_keys(shop: Path, host: str) -> None:
    command = [*DIGITS[:-2], "--host", host, "--port", str(free_port())]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[2], env={**os.environ, "BENTOML_HOME": str(shop)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith(f"error: refusing to serve {host} without keys")


def test_insecure_serves_but_takes_no_admin_actions(shop: Path) -> None:
    with server([*DIGITS, "--host", "0.0.0.0"], shop, HONE_INSECURE="1") as running:
        assert ask(running.client).status_code == 200
        assert running.client.post("/v2/repository/models/digits/load").status_code == 403


def test_pages_of_other_sites_cant_act(plain: tuple[Server, Path]) -> None:
    running, _ = plain
    for headers in ({"origin": "https://evil.example"}, {"host": "evil.example", "origin": "http://evil.example"}):
        answer = running.client.post("/v2/repository/models/digits/unload", headers=headers)
        assert answer.status_code == 403
    assert ask(running.client).status_code == 200


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    return self_signed(tmp_path)


def test_tls_for_http_and_grpc(shop: Path, certificate: tuple[Path, Path]) -> None:
    port = free_port()
    hone = [HONE, "serve", "digits", "--port", "{port}", "--grpc-port", str(port)]
    command = [*hone, "--ssl-certfile", str(certificate[0]), "--ssl-keyfile", str(certificate[1])]
    with server(command, shop, scheme="https") as running:
        context = ssl.create_default_context(cafile=str(certificate[0]))
        with httpx.Client(base_url=f"https://localhost:{running.port}", verify=context) as client:
            assert ask(client).status_code == 200
        options = triton_grpc.InferenceServerClient(
            f"localhost:{port}", ssl=True, root_certificates=str(certificate[0])
        )
        with options as triton:
            assert triton.is_model_ready("digits")


def test_recorder_shadow_cache_and_their_metrics(shop: Path, tmp_path: Path) -> None:
    folder = tmp_path / "traffic"
    environment = {
        "HONE_RECORD_DIR": str(folder), "HONE_SHADOW": "digits:onnx-other-1", "HONE_CACHE_MB": "1",
        "HONE_LOG_FORMAT": "json", "HONE_ACCESS_LOG": "all",
    }  # fmt: skip
    with server(DIGITS, shop, **environment) as running:
        client = running.client
        for seed in (1, 2, 3, 1):
            answer = scores(ask(client, 2, seed, **{"x-request-id": f"id-{seed}"}))
            np.testing.assert_allclose(answer, dense_answer(rows(2, seed)), rtol=1e-4, atol=1e-5)
        time.sleep(1.0)
        metrics = client.get("/metrics").text
        assert 'result="memory_hit"' in metrics and 'result="miss"' in metrics
        shadowed = [
            float(line.rsplit(" ", 1)[1]) for line in metrics.splitlines() if line.startswith("hone_shadow_rows_total")
        ]
        assert sum(shadowed) == 8
        assert (
            "hone_input_mean{" not in metrics and "hone_predicted_class_total{" not in metrics
        )  # 8 rows tell too much
        scores(ask(client, 120, 4))
        time.sleep(1.0)
        metrics = client.get("/metrics").text
        assert "hone_input_mean{" in metrics and "hone_predicted_class_total{" in metrics
        lines = [json.loads(line) for line in running.log.read_text().splitlines() if line.startswith("{")]
        accesses = [line for line in lines if line["logger"] == "hone.access"]
        assert [line["request_id"] for line in accesses][:4] == ["id-1", "id-2", "id-3", "id-1"]
        assert accesses[0]["rows"] == 2 and "127.0.0.1" not in json.dumps(accesses)
    table = read(folder, "digits")
    assert table.num_rows == 128
    assert set(table["version"].to_pylist()) == {"onnx-fp32-1"}


def test_traces_go_to_the_collector_with_the_callers_parent(shop: Path) -> None:
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    collector = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    environment = {
        "HONE_TRACE_SAMPLE": "0.000001", "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
    }  # fmt: skip
    with server(DIGITS, shop, **environment) as running:
        assert ask(running.client, traceparent=f"00-{trace}-00f067aa0ba902b7-01").status_code == 200
        for _ in range(20):
            ask(running.client)
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    requests = [ExportTraceServiceRequest.FromString(body) for body in bodies]
    spans = [s for r in requests for part in r.resource_spans for scope in part.scope_spans for s in scope.spans]
    assert sorted(span.name for span in spans) == ["infer predict", "inference", "queue"]
    assert {span.trace_id.hex() for span in spans} == {trace}
    collector.shutdown()


@contextlib.contextmanager
def connection(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), 10) as link:
        yield link


HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n"


def test_callers_who_dawdle_or_leave_hurt_nobody(plain: tuple[Server, Path]) -> None:
    running, _ = plain
    body = rows().tobytes()
    with contextlib.ExitStack() as stack:
        for _ in range(50):  # slowloris: heads and bodies that never end
            link = stack.enter_context(connection(running.port))
            link.sendall(HEAD[:40])
            link = stack.enter_context(connection(running.port))
            link.sendall(HEAD % len(body) + body[:5])
        with Load(running.port) as load:
            for _ in range(50):
                with connection(running.port) as link:
                    link.sendall(HEAD % len(body) + body)  # leaves before the answer
                with connection(running.port) as link:
                    link.sendall(HEAD % 10_000 + body)  # lies about its length, then leaves
                with connection(running.port) as link:
                    link.sendall(HEAD % len(body) + body)
                    link.shutdown(socket.SHUT_WR)  # half closed: still gets its answer, or a clean end
                    link.settimeout(10)
                    assert link.recv(4096)[:12] in (b"HTTP/1.1 200", b"")
                with connection(running.port) as link:
                    link.sendall(b"\x16\x03\x01 not http at all\r\n\r\n")
                    link.settimeout(10)
                    assert link.recv(4096)[:12] in (b"HTTP/1.1 400", b"")
        assert load.wrong == []
    for line in running.client.get("/metrics").text.splitlines():
        if line.startswith("hone_in_flight_requests"):
            assert float(line.rsplit(" ", 1)[1]) <= 50


def test_full_disk_for_logs_stops_nothing(shop: Path) -> None:
    command = " ".join([*DIGITS, "2>/dev/full", ">/dev/full"])
    environment = {"HONE_ACCESS_LOG": "all", "HONE_LOG_FORMAT": "json"}
    with server(["sh", "-c", f"exec {command}"], shop, **environment) as running:
        for seed in range(20):
            np.testing.assert_allclose(
                scores(ask(running.client, 1, seed)), dense_answer(rows(1, seed)), rtol=1e-4, atol=1e-5
            )


def test_shed_requests_are_told_when_to_come_back_and_the_others_are_right(shop: Path) -> None:
    with server(DIGITS, shop, HONE_QUEUE_ROWS="64", HONE_MAX_BATCH_ROWS="4", HONE_DEFAULT_TIMEOUT_MS="30") as running:

        def call(seed: int) -> int:
            with caller(running.client.base_url) as client:
                answer = ask(client, 60, seed)
                if answer.status_code == 200:
                    np.testing.assert_allclose(scores(answer), dense_answer(rows(60, seed)), rtol=1e-4, atol=1e-5)
                else:
                    assert int(answer.headers["retry-after"]) >= 1
                return answer.status_code

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            statuses = set(pool.map(call, range(100)))
        assert statuses <= {200, 503} and 200 in statuses


def test_cli_makes_keys_and_checks_logs(tmp_path: Path) -> None:
    def hone(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [HONE, *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    made = hone("keys", "new", "ci", "--scope", "admin", "--rate", "5")
    assert made.returncode == 0 and len(made.stdout.strip()) == 43
    assert hone("keys", "list").stdout == "ci\tadmin\t5/s\n"
    twice = hone("keys", "new", "ci")
    assert (twice.returncode, twice.stderr.count("\n")) == (1, 1)
    assert hone("keys", "rm", "ci").returncode == 0
    gone = hone("audit", "verify", "none.jsonl")
    assert (gone.returncode, "can't be read" in gone.stderr) == (1, True)


def test_put_while_serving_is_loaded_by_name(plain: tuple[Server, Path], tmp_path: Path) -> None:
    running, home = plain
    use_store(home)
    new = store.put(dense_artifact(tmp_path / "new", name="digits", run="2", seed=1), "digits", "onnx-new-2")
    answer = running.client.post("/v2/repository/models/digits/load")
    assert answer.json()["version"] == "onnx-new-2"
    np.testing.assert_allclose(scores(ask(running.client)), dense_answer(rows(), 1), rtol=1e-4, atol=1e-5)
    store.remove(new)
    assert running.client.post("/v2/repository/models/digits/load").json()["version"] == "onnx-fp32-1"
