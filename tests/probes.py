"""Requests that nobody sends by mistake, and what a service must make of each. Add a line for another one.

They are bytes on a socket, because HTTP clients refuse to send most of them. `KEY` stands for a key with every scope.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import psutil

from tests.servers import Server

CLOSED = 0
"""The connection is closed without an answer."""

SETTINGS = {"HONE_HEADER_TIMEOUT_S": "2", "HONE_BODY_TIMEOUT_S": "4", "HONE_MAX_BODY_MB": "16"}
"""Of a server that is probed."""

ROW = b'{"inputs": {"features": [[1, 2, 3, 4]]}}'
LOAD, UNLOAD = "/v2/repository/models/{}/load", "/v2/repository/models/{}/unload"


def request(method: str, path: str, *headers: str, body: bytes = b"", host: str = "host: localhost") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", host, "x-api-key: KEY", *headers]
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join([*filter(None, lines), "", ""]).encode() + body


def post(path: str, body: object = ROW, *headers: str) -> bytes:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return request("POST", path, "content-type: application/json", *headers, body=content)


def get(path: str, *headers: str) -> bytes:
    return request("GET", path, *headers)


def slowly(whole: bytes, quick: int, pause_s: float = 0.4) -> Callable[[], Iterator[bytes]]:
    """Send all but `quick` bytes one by one."""

    def pieces() -> Iterator[bytes]:
        yield whole[:quick]
        for index in range(quick, len(whole)):
            time.sleep(pause_s)
            yield whole[index : index + 1]

    return pieces


@dataclass(frozen=True)
class Probe:
    """One request.

    Attributes:
        name: what it tries.
        sent: bytes, or what yields them.
        status: of the answer, or CLOSED.
        within_s: until the answer; generous, it tells a server that hangs from one that doesn't.
        grows_mb: most memory that a worker may take meanwhile.
        workers_too: worth trying with several workers and keys.
    """

    name: str
    sent: bytes | Callable[[], Iterator[bytes]]
    status: int
    within_s: float = 10.0
    grows_mb: float = 40.0
    workers_too: bool = False


CHUNKED = "transfer-encoding: chunked"
UPGRADE = ("connection: upgrade", "upgrade: websocket", "sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==")
OFFER_OF_HTTP2 = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
"""As Java's HTTP client does."""

ENDED = b"%x\r\n%s\r\n0\r\n\r\n" % (len(ROW), ROW)

ODD_PATHS = [
    "/predict%0a", "/predict%0d%0a", "/predict%00", "/predict/", "//predict", "/PREDICT", "/predict;a=b", "/%2fpredict",
    "/./predict", "/x/../predict", "/predict%3fa", "/models/digits%2fpredict", "/models/digits/predict%0a", "/livez%0a",
    "/metrics/", "/docs.json%0a", "/schema.json/", "/v2%0a", "/static_content/", "/static_content/../x",
    "/static_content/index.css%0a", "/static_content%2findex.css", "/static_content/favicon-dark-32x32.png",
    "/healthz/x", "/anything",
]  # fmt: skip

PROBES = [
    Probe("plain", post("/predict"), 200, workers_too=True),
    # Paths: only as they are written.
    *(Probe(f"path {path}", post(path), 404, workers_too=True) for path in ODD_PATHS),
    Probe("query is no path", post("/predict?a=/livez"), 200),
    Probe("websocket", get("/predict", *UPGRADE, "sec-websocket-version: 13"), 405, workers_too=True),
    Probe("HTTP/2 offered", post("/predict", ROW, *OFFER_OF_HTTP2), 200, workers_too=True),
    Probe("HTTP/2 offered in small letters", post("/predict", ROW, "upgrade:h2c", "connection: upgrade"), 200),
    # Heads: bounded, and read in one way only.
    Probe("HTTP/0.9", b"GET /livez\r\n\r\n", 400),
    Probe("HTTP/0.9 with headers", b"GET /livez HTTP/0.9\r\nhost: localhost\r\n\r\n", 400),
    Probe("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    Probe("no HTTP", b"\x16\x03\x01\x02\x00\r\n\r\n", 400),
    Probe("two hosts", get("/livez", "host: other"), 400),
    Probe("no host", request("GET", "/livez", host=""), 400),
    Probe("HTTP/1.0 in chunks", request("POST", "/predict", CHUNKED).replace(b"1.1", b"1.0", 1) + ENDED, 400),
    Probe("in chunks", request("POST", "/predict", CHUNKED) + ENDED, 200),
    Probe(
        "header behind the body", request("POST", "/predict", CHUNKED) + ENDED[:-2] + b"x-timeout-ms: x\r\n\r\n", 200
    ),
    Probe("path of 9 kB", get("/" + "x" * 9000), 414),
    Probe("path without end", b"GET /" + b"x" * 20_000_000, 414, workers_too=True),
    Probe("header of 40 kB", get("/livez", "a: " + "x" * 40_000), 431, workers_too=True),
    Probe("header without end", get("/livez")[:-2] + b"a: " + b"x" * 20_000_000, 431, workers_too=True),
    Probe("1,000 headers", get("/livez", *["a: b"] * 1000), 431, workers_too=True),
    Probe("trailer without end", request("POST", "/predict", CHUNKED) + ENDED[:-2] + b"a: " + b"x" * 9_000_000, 431),
    Probe("30 requests at once", post("/predict") * 30, 200),
    # Time: nobody waits for a caller for ever.
    Probe("silence", b"", CLOSED),
    Probe("half a head", get("/livez")[:20], 408, workers_too=True),
    Probe("slow head", slowly(get("/livez"), 4), 408),
    Probe("half a body", post("/predict")[:-9], 408, workers_too=True),
    Probe("slow body", slowly(post("/predict"), len(post("/predict")) - 30), 408),
    Probe("half a chunk", request("POST", "/predict", CHUNKED) + ENDED[:9], 408),
    Probe("no more requests", get("/livez", "connection: keep-alive"), 200),
    # Names and forms of admin actions: the caller's mistakes are the caller's.
    *(
        Probe(f"{path.rsplit('/')[-1]} {name[:9]!r}", post(path.format(name), {}), 404, workers_too=True)
        for path in (LOAD, UNLOAD)
        for name in ("", "x" * 300, "a/b", "a%2fb", "..", "%2e%2e%2f%2e%2e", "a%0ab", "%00", "%ff")
    ),
    Probe("version of 300", post(LOAD.format("digits"), {"parameters": {"version": "x" * 300}}), 404),
    Probe("version with slashes", post(LOAD.format("digits"), {"parameters": {"version": "../digits"}}), 404),
    *(
        Probe(f"parameters {parameters}", post(path.format("digits"), {"parameters": parameters}), 400)
        for path in (LOAD, UNLOAD)
        for parameters in ([], "x", 1, None, {"version": 1}, {"version": None}, {"version": ["a"]})
    ),
    # Bodies.
    Probe("name of 4 MB", post("/predict", b'{"inputs": {"%s": 1}}' % (b"A" * 4_000_000)), 400, 60.0, 250.0, True),
    Probe("body over the limit", post("/predict", b"[" * 16_000_001), 413),
    Probe("length over the limit", post("/predict", b"x", "content-length: 99999999999")[:-1], 400),
]


@dataclass(frozen=True)
class Found:
    """What a probe met with.

    Attributes:
        status: of the answer, or CLOSED.
        body: of it.
        seconds: until it came.
        grown_mb: most memory that a worker took meanwhile.
    """

    status: int
    body: bytes
    seconds: float
    grown_mb: float


def probed(probe: Probe, server: Server, key: str = "none") -> Found:
    """Send a probe and wait for the first answer, or the end of the connection."""
    peaks = {pid: _forget_peak(pid) for pid in server.workers()}
    started = time.monotonic()
    pieces = [probe.sent] if isinstance(probe.sent, bytes) else probe.sent()
    with socket.create_connection(("127.0.0.1", server.port)) as caller:
        caller.settimeout(probe.within_s)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for piece in pieces:
                caller.sendall(piece.replace(b"KEY", key.encode()))
        status, body = _first_answer(caller)
    seconds = time.monotonic() - started
    grown = max((_peak(pid) - before for pid, before in peaks.items()), default=0)
    return Found(status, body, seconds, grown / 1e6)


def _first_answer(caller: socket.socket) -> tuple[int, bytes]:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while b"\r\n\r\n" not in received:
            piece = caller.recv(65536)
            if not piece:
                return CLOSED, received
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        while len(body) < length and (piece := caller.recv(65536)):
            body += piece
        return int(head.split()[1]), body[:length]
    return CLOSED, received


def _forget_peak(pid: int) -> int:
    """Let Linux forget the most memory that a process has had; return what it has now, bytes."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/clear_refs", "w") as stream:  # noqa: PTH123
        stream.write("5")
    return int(psutil.Process(pid).memory_info().rss)


def _peak(pid: int) -> int:
    with contextlib.suppress(OSError, StopIteration), open(f"/proc/{pid}/status") as stream:  # noqa: PTH123
        return 1024 * next(int(line.split()[1]) for line in stream if line.startswith("VmHWM"))
    return int(psutil.Process(pid).memory_info().rss)
