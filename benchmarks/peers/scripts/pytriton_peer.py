# /// script
# dependencies = ["nvidia-pytriton==0.7.0", "onnxruntime==1.31.1", "numpy"]
#
# [tool.hone.server]
# ready_path = "/v2/models/model/ready"
# settings = "Triton's dynamic batcher, 64 rows within 0.5 ms, V2 binary; triton-inference-server.github.io/pytriton"
# payloads.json = {format = "v2-json", path = "/v2/models/model/infer"}
# payloads.binary = {format = "v2-binary", path = "/v2/models/model/infer"}
# ///

"""PyTriton: NVIDIA's Triton server with a Python function behind its dynamic batcher."""

from __future__ import annotations

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import numpy as np
from peer_model import MAX_BATCH, Model, port
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

if __name__ == "__main__":
    model = Model()

    @batch
    def infer(**inputs):
        return [model.run(inputs)]

    addresses = {"http_address": "127.0.0.1", "http_port": port(), "grpc_port": port() + 1, "metrics_port": port() + 2}
    with Triton(config=TritonConfig(**addresses)) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=[
                Tensor(name=name, dtype=dtype.type, shape=tuple(s if isinstance(s, int) else -1 for s in shape[1:]))
                for name, dtype, shape in model.inputs
            ],
            outputs=[Tensor(name="outputs", dtype=np.float32, shape=(-1,))],
            config=ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=500)),
        )
        triton.serve()
