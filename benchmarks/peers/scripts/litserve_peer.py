# /// script
# dependencies = ["litserve==0.2.19", "uvloop==0.23.0", "httptools==0.9.0", "onnxruntime==1.31.1", "numpy"]
#
# [tool.hone.server]
# ready_path = "/health"
# settings = "max_batch_size 64, batch_timeout 1 ms, one worker; lightning.ai/docs/litserve, batching. JSON only"
# payloads.json = {format = "tensors-json", path = "/predict"}
# payloads.binary = {format = "tensors-json", path = "/predict"}
# ///

"""LitServe with its batching: max_batch_size and a batch_timeout of a millisecond, one worker."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import litserve
import numpy as np
from peer_model import MAX_BATCH, Model, port


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.model = Model()

    def decode_request(self, request):
        if "inputs" in request:
            return {name: np.array(request["inputs"][name], dtype) for name, dtype, _ in self.model.inputs}
        raise ValueError("no inputs")

    def batch(self, inputs):
        return list(inputs)

    def predict(self, batch):
        return self.model.run_many(batch) if isinstance(batch, list) else self.model.run(batch)

    def unbatch(self, output):
        return output

    def encode_response(self, output) -> dict[str, list]:
        return {"outputs": output.tolist()}


if __name__ == "__main__":
    api = Api(max_batch_size=MAX_BATCH, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=port(), generate_client_file=False, log_level="warning", access_log=False)
