"""A server that starts at once and answers what a replica is asked: its health, metrics, and which version it is.

standin.py VERSION PORT. A version that begins with `fails` answers 500, one with `sick` is never ready, one with `ends`
ends at once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    version = ""
    statuses: dict[int, int] = {}  # noqa: RUF012 - one process, one version
    lock = threading.Lock()

    def do_GET(self) -> None:
        if self.path == "/metrics":
            self._answer(200, self._metrics().encode())
        elif self.path == "/v2/health/ready":
            ready = not self.version.startswith("sick")
            self._answer(200 if ready else 503, json.dumps({"ready": ready}).encode())
        else:
            self._answer(404, b"{}")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        status = 500 if self.version.startswith("fails") else 200
        with self.lock:
            self.statuses[status] = self.statuses.get(status, 0) + 1
        self._answer(status, json.dumps({"version": self.version}).encode())

    def _metrics(self) -> str:
        labels = f'model="dense",version="{self.version}"'
        with self.lock:
            lines = [
                f'hone_requests_total{{{labels},protocol="predict",status="{status}"}} {count}'
                for status, count in self.statuses.items()
            ]
            total = sum(self.statuses.values())
        lines += [f'hone_request_seconds_bucket{{{labels},le="{bound}"}} {total}' for bound in ("0.005", "+Inf")]
        return "\n".join(lines) + "\n"

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    Answers.version, port = sys.argv[1], int(sys.argv[2])
    if Answers.version.startswith("ends"):
        time.sleep(0.05)
        sys.exit("error: no luck")
    if Answers.version.startswith("sick"):
        sys.stderr.write("error: other answers than its proof's\n")
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()


if __name__ == "__main__":
    main()
