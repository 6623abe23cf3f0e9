"""The upper reference: uvicorn and one call of ONNX Runtime, nothing else; no checks, no batching, no metrics.

Runs in the environment of a peer; settings are environment variables: PEER_MODEL, PEER_PORT, PEER_THREADS.
"""

from __future__ import annotations

import gc
import os

import numpy as np
import onnxruntime as ort
import uvicorn

options = ort.SessionOptions()
options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["PEER_MODEL"], options)
TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
INPUTS = [(node.name, np.dtype(TYPES[node.type]), node.shape) for node in session.get_inputs()]
OUTPUTS = [session.get_outputs()[0].name]


def tensors(body: bytes, rows: int) -> dict[str, np.ndarray]:
    """Cut a body of all inputs, one behind the other; a dynamic axis takes what the rows leave."""
    if len(INPUTS) == 1:
        name, dtype, shape = INPUTS[0]
        return {name: np.frombuffer(body, dtype).reshape(rows, *(s if isinstance(s, int) else -1 for s in shape[1:]))}
    part = len(body) // len(INPUTS)
    return {
        name: np.frombuffer(body[i * part : (i + 1) * part], dtype).reshape(rows, -1)
        for i, (name, dtype, _) in enumerate(INPUTS)
    }


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
    answer = session.run(OUTPUTS, tensors(body, rows))[0].tobytes() if rows else b"ready"
    headers = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


if __name__ == "__main__":
    gc.freeze()
    port = int(os.environ["PEER_PORT"])
    uvicorn.run(
        app, host="127.0.0.1", port=port, access_log=False, log_level="warning", loop="uvloop", http="httptools"
    )
