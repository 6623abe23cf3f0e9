"""What runs beside the load, in processes of their own: `python -m hone.benchmarks.overload.beside ready URL SECONDS`.

`ready` asks for `/readyz` as a kubelet does, on a new connection each time; `sleep` only sleeps, and shows what the
machine alone makes late. Both print milliseconds, as JSON, at their end.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from hone.errors import HoneError
from hone.processes import why_failed

EVERY_S = 0.1
TIMEOUT_S = 10.0
NAP_S = 0.002
END_S = 30.0


def ask_ready(url: str, seconds: float) -> tuple[list[float], int]:
    """Return the milliseconds of every answer, and how many were none or said that the service isn't ready."""
    place = urlsplit(url)
    took, failed, end = [], 0, time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT_S)
        try:
            connection.request("GET", "/readyz")
            answer = connection.getresponse()
            answer.read()
            failed += answer.status != 200
        except OSError:
            failed += 1
        finally:
            connection.close()
        took.append((time.monotonic() - began) * 1e3)
        time.sleep(max(0.0, began + EVERY_S - time.monotonic()))
    return took, failed


def sleep(seconds: float) -> list[float]:
    """Return how late each of many short sleeps ended, ms."""
    late, end = [], time.monotonic() + seconds
    while (began := time.monotonic()) < end:
        time.sleep(NAP_S)
        late.append((time.monotonic() - began - NAP_S) * 1e3)
    return late


@dataclass(frozen=True)
class Seen:
    """What one of the processes saw: milliseconds, and answers that were none."""

    milliseconds: list[float]
    failed: int = 0


class Beside:
    """One of the processes; it ends by itself.

    Args:
        arguments: as of the command line, without the seconds.
        seconds: that it runs.
    """

    def __init__(self, *arguments: str, seconds: float) -> None:
        self._seconds = seconds
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, *arguments, str(seconds)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def seen(self) -> Seen:
        """Wait for its end; raises HoneError when it failed."""
        try:
            output, errors = self._process.communicate(timeout=self._seconds + END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise HoneError("a process beside the load did not end; its machine is too busy") from None
        if self._process.returncode:
            raise HoneError(f"a process beside the load failed: {why_failed(errors)}")
        return Seen(**json.loads(output))

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


def main(arguments: list[str]) -> None:
    kind, *place, seconds = arguments
    took, failed = ask_ready(place[0], float(seconds)) if kind == "ready" else (sleep(float(seconds)), 0)
    sys.stdout.write(json.dumps({"milliseconds": took, "failed": failed}))


if __name__ == "__main__":
    main(sys.argv[1:])
