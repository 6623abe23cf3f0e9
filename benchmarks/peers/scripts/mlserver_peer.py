# /// script
# dependencies = ["mlserver==1.7.1", "onnxruntime==1.31.1", "numpy"]
#
# [tool.hone.server]
# ready_path = "/v2/health/ready"
# settings = "adaptive batching of 64 rows within 1 ms, parallel_workers 0, V2 JSON; docs.seldon.ai/mlserver"
# payloads.json = {format = "v2-json", path = "/v2/models/model/infer"}
# payloads.binary = {format = "v2-json", path = "/v2/models/model/infer"}
# ///

"""MLServer with its adaptive batching: max_batch_size 64, max_batch_time a millisecond, inference in the process."""

from __future__ import annotations

import asyncio
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from peer_model import MAX_BATCH, Model, port


class Onnx(MLModel):
    async def load(self) -> bool:
        self.onnx = Model()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        arrays = {entry.name: NumpyCodec.decode_input(entry) for entry in payload.inputs}
        outputs = self.onnx.run({name: arrays[name].astype(dtype) for name, dtype, _ in self.onnx.inputs})
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("outputs", outputs)])


async def main() -> None:
    settings = Settings(
        host="127.0.0.1", http_port=port(), grpc_port=port() + 1, metrics_port=port() + 2, parallel_workers=0,
        debug=False, access_logs=False,
    )  # fmt: skip
    model = ModelSettings(name="model", implementation=Onnx, max_batch_size=MAX_BATCH, max_batch_time=0.001)
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main())
