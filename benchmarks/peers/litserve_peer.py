"""LitServe with its batching: max_batch_size and a batch_timeout of a millisecond, one worker."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import litserve
import numpy as np
from common import MAX_BATCH, Model, port


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
