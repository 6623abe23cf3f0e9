"""The model that every peer serves, and its port: what PEER_MODEL, PEER_THREADS and PEER_PORT say.

It runs in the peers' environments, so it imports nothing of Hone.
"""

from __future__ import annotations

import os

import numpy as np
import onnxruntime as ort

TYPES = {"tensor(float)": np.float32, "tensor(int64)": np.int64}
MAX_BATCH = 64
"""Rows that a server may join into one batch."""


class Model:
    """The ONNX file of PEER_MODEL with PEER_THREADS threads.

    Attributes:
        inputs: (name, dtype, shape) of each; a text in a shape is an axis that varies.
        outputs: name of the first one, in a list.
    """

    def __init__(self) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(os.environ["PEER_THREADS"])
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["PEER_MODEL"], options)
        self.inputs = [(n.name, np.dtype(TYPES[n.type]), n.shape) for n in self.session.get_inputs()]
        self.outputs = [self.session.get_outputs()[0].name]

    def tensors(self, body: bytes, rows: int) -> dict[str, np.ndarray]:
        """Cut a body of all inputs, one behind the other; a dynamic axis takes what the rows leave."""
        part = len(body) // len(self.inputs)
        return {
            name: np.frombuffer(body[i * part : (i + 1) * part], dtype).reshape(
                rows, *(size if isinstance(size, int) else -1 for size in shape[1:])
            )
            for i, (name, dtype, shape) in enumerate(self.inputs)
        }

    def run(self, tensors: dict[str, np.ndarray]) -> np.ndarray:
        """Return the first output."""
        return self.session.run(self.outputs, tensors)[0]

    def run_many(self, requests: list[dict[str, np.ndarray]]) -> list[np.ndarray]:
        """Join requests into one batch, filled up with zeros to the longest, and split the answer."""
        counts = [len(next(iter(request.values()))) for request in requests]
        joined = {name: pad([request[name] for request in requests]) for name, _, _ in self.inputs}
        return np.split(self.run(joined), np.cumsum(counts)[:-1])


def pad(arrays: list[np.ndarray]) -> np.ndarray:
    """Concatenate arrays, filled up with zeros along axis 1 where they differ."""
    if len({array.shape[1:] for array in arrays}) == 1:
        return np.concatenate(arrays)
    longest = max(array.shape[1] for array in arrays)
    return np.concatenate([np.pad(array, ((0, 0), (0, longest - array.shape[1]))) for array in arrays])


def port() -> int:
    """Return the port to listen on."""
    return int(os.environ["PEER_PORT"])
