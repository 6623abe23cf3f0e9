"""The side-by-side benchmark: payloads, the load generator, medians and the table."""

from __future__ import annotations

import shutil
import socketserver
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from hone.benchmarks.load.wire import Call
from hone.benchmarks.peers.description import Peer, Server, servers
from hone.benchmarks.peers.payloads import call
from hone.benchmarks.serving import wrk
from hone.benchmarks.serving.__main__ import compare
from hone.benchmarks.serving.measure import median_runs
from hone.benchmarks.serving.report import to_markdown
from hone.benchmarks.serving.servers import peer_server
from hone.benchmarks.serving.workloads import WORKLOADS, calls_of, digits_rows, mixed_texts, text_rows
from hone.errors import HoneError
from hone.services.protocols.raw import RawBytes
from hone.services.protocols.v2 import V2
from tests.models.dense import dense_signature

OFFER = {"format": "tensors-json", "path": "/json"}
SERVERS = ["hone", *(peer.name for peer in servers())]


@pytest.mark.parametrize("server", SERVERS)
def test_every_server_is_asked_for_the_same_rows(server: str) -> None:
    for kind in ("json-1", "binary-1", "binary-64"):
        found = call(server, "digits", digits_rows(int(kind.partition("-")[2])), kind)
        if found is None:
            assert (server, kind) == ("rayserve", "json-1") or (server, kind) == ("bare-asgi", "json-1")
            continue
        assert found[0].body and found[0].path.startswith("/")


def test_hones_own_payloads_are_what_its_protocols_read() -> None:
    rows = {"features": np.arange(8, dtype=np.float32).reshape(2, 4)}
    made = call("hone", "dense", rows, "binary-2")
    assert made is not None
    np.testing.assert_array_equal(
        RawBytes(dense_signature(), "dense", "1").decode({}, made[0].body).inputs["features"], rows["features"]
    )
    triton = call("pytriton", "dense", rows, "binary-2")
    assert triton is not None
    head = {name.encode(): value.encode() for name, value in triton[0].headers.items()}
    decoded = V2(dense_signature(), "dense", "1").decode(head, triton[0].body)
    np.testing.assert_array_equal(decoded.inputs["features"], rows["features"])


def test_texts_are_of_several_lengths_and_always_the_same() -> None:
    lengths = [text["input_ids"].shape[1] for text in mixed_texts()]
    assert min(lengths) >= 8 and max(lengths) <= 256 and len(set(lengths)) > 40
    np.testing.assert_array_equal(text_rows(2)["input_ids"], text_rows(2)["input_ids"])
    assert len(calls_of("hone", WORKLOADS["minilm"], "mixed-1")) == 96
    assert calls_of("bentoml", WORKLOADS["minilm"], "mixed-1") == []


QUOTED = r"""print('failed: "Traceback:\\n  x\\nAttributeError: no such thing\\n"')"""


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (QUOTED, "AttributeError: no such thing"),
        ("print('one')\nprint('two\\n')", "two"),
        ("", "it printed nothing"),
    ],
    ids=["quoted", "plain", "silent"],
)
def test_a_peer_that_ends_says_why_in_its_log(tmp_path: Path, script: str, reason: str) -> None:
    (tmp_path / "ends_peer.py").write_text(script)
    about = Server.model_validate({"settings": "none", "ready_path": "/", "payloads": {"json": OFFER}})
    peer = Peer("ends", tmp_path / "ends_peer.py", (), about)
    with (
        pytest.raises(HoneError, match=f"^{reason}$"),
        peer_server(peer, Path(sys.executable), tmp_path / "model.onnx", 1, tmp_path),
    ):
        pass


def test_an_unknown_server_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(HoneError, match="--server: no 'litserv'; did you mean 'litserve'"):
        compare([], {"litserv"}, 1, 1.0, tmp_path)


class Echo(BaseHTTPRequestHandler):
    """Keeps what it got, and answers 200 or, for /bad, 500."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, str | None, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.seen.append((self.path, self.headers["x-mark"], body))
        self.send_response(500 if self.path == "/bad" else 200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def echo() -> Iterator[str]:
    Echo.seen.clear()

    class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
        daemon_threads = True
        allow_reuse_address = True

    with Server(("127.0.0.1", 0), Echo) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_generator_sends_every_byte_and_counts_errors(echo: str) -> None:
    every = bytes(range(256))
    calls = [Call("/a", {"x-mark": 'a"\\b'}, every), Call("/b", {"x-mark": "b"}, b""), Call("/bad", {}, b"x")]
    found = wrk.load(echo, calls, 2, 1)
    assert {entry[:2] for entry in Echo.seen} == {("/a", 'a"\\b'), ("/b", "b"), ("/bad", None)}
    assert {body for path, _, body in Echo.seen if path == "/a"} == {every}
    assert 0 < found.errors < found.requests
    assert found.rps > 0 and 0 < found.p50_ms <= found.p99_ms <= found.p999_ms


def test_report_holds_medians_errors_and_what_did_not_run() -> None:
    def run(server: str, rps: float, errors: int = 0) -> dict[str, object]:
        return {
            "server": server, "model": "digits", "payload": "binary-1", "connections": 8, "rps": rps,
            "rows_per_s": rps, "p50_ms": 1.0, "p99_ms": 2.0, "errors": errors,
        }  # fmt: skip

    runs = median_runs([run("hone", 100), run("other", 40), run("hone", 300), run("other", 60, 2), run("hone", 200)])
    assert [(entry["server"], entry["rps"], entry["errors"], entry["rounds"]) for entry in runs] == [
        ("hone", 200, 0, 3), ("other", 50, 2, 2),
    ]  # fmt: skip
    text = to_markdown(
        {
            "machine": "a machine", "rounds": 3, "seconds": 1.0, "runs": runs, "settings": {"other": "its best"},
            "not_run": [{"server": "third", "model": "digits", "error": "no such library"}],
        }
    )  # fmt: skip
    assert "| hone | 8 | 200 |" in text and "third (digits): no such library" in text
    assert "| other | 8 | 50 | 50 | 1.00 | 2.00 | 2 | errors |" in text
