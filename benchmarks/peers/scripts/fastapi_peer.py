# /// script
# dependencies = [
#     "fastapi==0.165.0",
#     "uvicorn==0.54.0",
#     "uvloop==0.23.0",
#     "httptools==0.9.0",
#     "orjson==3.13.0",
#     "onnxruntime==1.31.1", "numpy",
# ]
#
# [tool.hone.server]
# ready_path = "/ready"
# settings = "uvicorn with uvloop and httptools, no access log, orjson, heap frozen; no batching of its own"
# payloads.json = {format = "tensors-json", path = "/json"}
# payloads.binary = {format = "counted-bytes", path = "/binary"}
# ///

"""FastAPI on uvicorn with uvloop and httptools, ONNX Runtime in the handler: what its documentation recommends for
small models, plus orjson and a raw binary route."""

from __future__ import annotations

import gc
import os
import sys

sys.path.insert(0, os.path.dirname(__file__))

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from peer_model import Model, port

model = Model()
app = FastAPI()


@app.get("/ready")
async def ready() -> dict[str, bool]:
    return {"ready": True}


@app.post("/json")
async def predict_json(request: Request) -> Response:
    inputs = orjson.loads(await request.body())["inputs"]
    outputs = model.run({name: np.array(inputs[name], dtype) for name, dtype, _ in model.inputs})
    return Response(
        orjson.dumps({"outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json"
    )


@app.post("/binary")
async def predict_binary(request: Request) -> Response:
    outputs = model.run(model.tensors(await request.body(), int(request.headers["x-rows"])))
    return Response(outputs.tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    gc.freeze()
    uvicorn.run(app, host="127.0.0.1", port=port(), access_log=False, log_level="warning")
