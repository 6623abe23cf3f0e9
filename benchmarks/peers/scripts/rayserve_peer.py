# /// script
# dependencies = ["ray[serve]==2.60.0", "onnxruntime==1.31.1", "numpy"]
#
# [tool.hone.server]
# ready_path = "/"
# settings = "one replica, serve.batch of 64 rows within 1 ms, access log off; docs.ray.io, dynamic request batching"
# payloads.binary = {format = "counted-bytes", path = "/"}
# pausable = false
# ///

"""Ray Serve with its batching: one replica, max_batch_size 64, a wait of a millisecond, access log off."""

from __future__ import annotations

import logging
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

os.environ["RAY_DEDUP_LOGS"] = "0"  # read when Ray is imported

import ray
from peer_model import MAX_BATCH, Model, port
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

ENVIRONMENT = {name: os.environ[name] for name in ("PEER_MODEL", "PEER_THREADS", "PEER_PORT")}


@serve.deployment(
    num_replicas=1,
    max_ongoing_requests=512,
    ray_actor_options={"num_cpus": 1, "runtime_env": {"env_vars": ENVIRONMENT}},
    logging_config={"enable_access_log": False},
)
class Deployment:
    def __init__(self) -> None:
        self.model = Model()

    @serve.batch(max_batch_size=MAX_BATCH, batch_wait_timeout_s=0.001)
    async def predict(self, requests):
        return self.model.run_many(requests)

    async def __call__(self, request: Request) -> Response:
        if request.method == "GET":
            return Response(b"ready")
        inputs = self.model.tensors(await request.body(), int(request.headers["x-rows"]))
        return Response((await self.predict(inputs)).tobytes(), media_type="application/octet-stream")


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port()}, logging_config={"enable_access_log": False})
    serve.run(Deployment.bind(), route_prefix="/")
    signal.signal(signal.SIGTERM, lambda *_: (serve.shutdown(), ray.shutdown(), sys.exit(0)))
    signal.pause()
