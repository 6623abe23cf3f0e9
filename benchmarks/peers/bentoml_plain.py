"""BentoML as its documentation shows it: a batchable method with numpy arrays, JSON, default logging."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import bentoml
import numpy as np
from common import MAX_BATCH, Model


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
        "bentoml_plain:Plain",
        "--host",
        "127.0.0.1",
        "--port",
        os.environ["PEER_PORT"],
    ]
    os.execv(sys.executable, [sys.executable, *command])
