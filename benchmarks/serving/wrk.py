"""wrk, the compiled load generator: a Python one would saturate before the servers do."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hone.errors import HoneError
from hone.processes import output_of

from ..load.wire import Call


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        rps: requests a second.
        p50_ms, p99_ms, p999_ms: from sending a request to its whole answer; closed loop.
        errors: of sockets and statuses over 399.
        requests: answered.
    """

    rps: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    errors: int
    requests: int


DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"us":%d,"p50":%d,"p99":%d,"p999":%d,"errors":%d}\\n', summary.requests,
    summary.duration, latency:percentile(50), latency:percentile(99), latency:percentile(99.9),
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


def require() -> None:
    """Raise HoneError unless wrk is installed."""
    if shutil.which("wrk") is None:
        raise HoneError("wrk is not installed; install it with: apt-get install wrk")


def load(url: str, calls: Sequence[Call], connections: int, seconds: float) -> Measured:
    """Send requests in turn over so many connections for so many seconds, each when the one before was answered.

    Raises:
        HoneError: wrk is missing or fails.
    """
    require()
    with tempfile.TemporaryDirectory(prefix="hone-wrk-") as folder:
        script = Path(folder) / "requests.lua"
        script.write_text(_script(calls))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        printed = output_of([*command, "-s", str(script), url], f"wrk on {url}")
    found = json.loads(next(line for line in reversed(printed.splitlines()) if line.startswith("{")))
    return Measured(
        rps=found["requests"] / found["us"] * 1e6,
        p50_ms=found["p50"] / 1e3,
        p99_ms=found["p99"] / 1e3,
        p999_ms=found["p999"] / 1e3,
        errors=found["errors"],
        requests=found["requests"],
    )


def _script(calls: Sequence[Call]) -> str:
    lines = ["local calls = nil", "local function make()", "  calls = {}"]
    for index, call in enumerate(calls, 1):
        headers = ", ".join(f"[{_quoted(k.encode())}] = {_quoted(v.encode())}" for k, v in call.headers.items())
        path, body = _quoted(call.path.encode()), _quoted(call.body)
        lines.append(f'  calls[{index}] = wrk.format("POST", {path}, {{{headers}}}, {body})')
    lines += ["end", "local turn = 0", "request = function()", "  if calls == nil then make() end"]
    return "\n".join([*lines, f"  turn = turn % {len(calls)} + 1", "  return calls[turn]", "end", DONE])


def _quoted(content: bytes) -> str:
    """Return a Lua string literal of any bytes."""
    return '"' + "".join(chr(b) if 32 <= b < 127 and b not in (34, 92) else f"\\{b:03d}" for b in content) + '"'
