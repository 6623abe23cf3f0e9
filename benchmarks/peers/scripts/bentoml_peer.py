# /// script
# dependencies = ["bentoml==1.4.39", "uvloop==0.23.0", "httptools==0.9.0", "onnxruntime==1.31.1", "numpy"]
#
# [tool.hone.server]
# ready_path = "/readyz"
# settings = "batchable method, numpy arrays as JSON, max_batch_size 64; docs.bentoml.com, adaptive batching"
# payloads.json = {format = "array-json", path = "/predict"}
# payloads.binary = {format = "array-json", path = "/predict"}
# pausable = false  # its batcher learns from how long requests took, a stop included
# ///

"""BentoML as its documentation shows it: a batchable method with numpy arrays, JSON, default logging."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

# Before the import: a home of its own, beside Hone's.
os.environ["BENTOML_HOME"] = os.path.join(os.environ["PEER_FOLDER"], "bentoml")
os.environ["BENTOML_DO_NOT_TRACK"] = "True"

import bentoml
import numpy as np
from peer_model import MAX_BATCH, Model


@bentoml.service(workers=1, traffic={"timeout": 60})
class Plain:
    def __init__(self) -> None:
        self.model = Model()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=1000)
    def predict(self, inputs: np.ndarray) -> np.ndarray:
        name, dtype, _ = self.model.inputs[0]
        return self.model.run({name: inputs.astype(dtype)})


if __name__ == "__main__":
    folder = os.path.dirname(os.path.abspath(__file__))
    os.chdir(folder)
    command = [
        "-m",
        "bentoml",
        "serve",
        "bentoml_peer:Plain",
        "--host",
        "127.0.0.1",
        "--port",
        os.environ["PEER_PORT"],
    ]
    os.execv(sys.executable, [sys.executable, *command])
