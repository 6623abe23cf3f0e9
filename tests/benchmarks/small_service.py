"""A real service that answers after a time that is known, and works for one that is known."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from hone.services.launch import end, free_port
from tests.servers import wait_ready

SERVICE = """
import asyncio, json, sys, time
import uvicorn

answered = 0

async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body")
    global answered
    answer = {"answered": answered}
    if scope["path"] == "/v2/models/dense":
        answer = {"name": "dense", "versions": ["v1"]} | {
            side: [{"name": name, "datatype": "FP32", "shape": [-1, size]}]
            for side, name, size in (("inputs", "features", 4), ("outputs", "scores", 3))
        }
    if scope["path"] == "/models/dense/predict":
        await asyncio.sleep(float(sys.argv[2]))
        end = time.thread_time() + float(sys.argv[3])
        while time.thread_time() < end:
            pass
        answered += 1
        rows = len(json.loads(body)["inputs"]["features"])
        answer = {"outputs": {"scores": [[0.0] * 3] * rows}, "model": "dense:v1"}
    data = json.dumps(answer).encode()
    head = [(b"content-length", str(len(data)).encode()), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    await send({"type": "http.response.body", "body": data})

uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""


@contextmanager
def running(folder: Path, takes_s: float, work_s: float = 0.0) -> Iterator[str]:
    """A small service that answers after so many seconds, and works for some of its processor; yields its address."""
    port, script, log = free_port(), folder / "service.py", folder / "service.log"
    script.write_text(SERVICE)
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, str(script), str(port), str(takes_s), str(work_s)], stdout=stream, stderr=stream
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_ready(client, process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        end(process)
