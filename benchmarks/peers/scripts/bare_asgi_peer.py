# /// script
# dependencies = ["uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0", "onnxruntime==1.31.1", "numpy"]
#
# [tool.hone.server]
# ready_path = "/"
# settings = "one call of ONNX Runtime in a bare ASGI function; no checks, no batching, no metrics"
# payloads.binary = {format = "counted-bytes", path = "/"}
# ///

"""The upper reference: uvicorn and one call of ONNX Runtime, nothing else; no checks, no batching, no metrics."""

from __future__ import annotations

import gc
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import uvicorn
from peer_model import Model, port

model = Model()


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    rows = next((int(value) for key, value in scope["headers"] if key == b"x-rows"), 0)
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    answer = model.run(model.tensors(body, rows)).tobytes() if rows else b"ready"
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    gc.freeze()
    uvicorn.run(
        app, host="127.0.0.1", port=port(), access_log=False, log_level="warning", loop="uvloop", http="httptools"
    )
