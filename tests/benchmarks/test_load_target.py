"""What a load test asks of a service that answers with malice: neither the key nor the memory goes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hone.benchmarks.load import target
from hone.benchmarks.load.payload import rows_for
from hone.benchmarks.load.target import Access, Target, ask, require_ready
from hone.errors import HoneError
from hone.signature import Signature, TensorSpec

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def service(answer: Answer) -> Iterator[tuple[str, list[str]]]:
    """A server that answers every GET so; yields its address, and the keys that it was sent."""
    keys: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("x-api-key", ""))
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", keys
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def empty(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "2")
    handler.end_headers()
    handler.wfile.write(b"{}")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_key_does_not_follow_a_redirect(status: int) -> None:
    with service(empty) as (thief, stolen):

        def elsewhere(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("location", f"{thief}/readyz")
            handler.end_headers()

        with service(elsewhere) as (url, keys):
            with pytest.raises(HoneError, match=rf"answers {status}: it is elsewhere, at '{thief}/readyz'"):
                require_ready(url, Access(api_key="secret"))
            assert keys == ["secret"]
        assert stolen == []


def test_answer_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "MOST_BYTES", 100_000)

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b" " * 65536)
        except OSError:
            pass

    with service(endless) as (url, _), pytest.raises(HoneError, match="more than 100,000 bytes"):
        ask(url, Access())


def test_rows_of_any_size_are_not_made_up() -> None:
    spec = TensorSpec(name="x", dtype="float32", shape=("batch", 1_000_000_000, 1_000))
    huge = Target("http://h", Access(), "m", "1", None, "/m", Signature(inputs=(spec,), outputs=(spec,)), {})
    with pytest.raises(HoneError, match=r"^http://h: input 'x' is .*too large to make rows of it up"):
        rows_for(huge)
