"""A user's project in a folder: a small torch model that learned something, or a graph, its data, and a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DATA = """

def data(rows, seed):
    features = np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)
    return {"features": features, "label": (features.sum(axis=1) > 0).astype(np.int64)}


def calibration():
    return data(64, 2)


def evaluation():
    return data(256, 3)
"""

MODEL = (
    '''
"""A two-layer network that tells whether four numbers sum to more than zero."""
import numpy as np
import torch
from torch import nn


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 32)
        self.scores = nn.Linear(32, 2)

    def forward(self, features):
        return self.scores(torch.relu(self.hidden(features)))


def load():
    torch.manual_seed(0)
    return train(Network(), 30)


def train(model, epochs):
    rows = data(512, 1)
    features, labels = torch.from_numpy(rows["features"]), torch.from_numpy(rows["label"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(features), labels).backward()
        optimizer.step()
    return model.eval()
'''
    + DATA
)

GRAPH = (
    '''
"""The same task as an ONNX graph: the sum and its opposite. Without torch a run takes a third of the time."""
import numpy as np
from onnx import TensorProto, helper, numpy_helper


def load():
    weights = {"hidden": [[1, -1]] * 4, "classes": [[-1, 1], [1, -1]]}
    nodes = [
        helper.make_node("MatMul", ["features", "hidden"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["positive"]),
        helper.make_node("MatMul", ["positive", "classes"], ["scores"]),
    ]
    inputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", 4])]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])]
    tensors = [numpy_helper.from_array(np.array(values, np.float32), name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "sums", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
'''
    + DATA
)


def recipe(**changes: Any) -> dict[str, Any]:
    """Return a recipe for the network, with top-level fields changed; None removes one."""
    content: dict[str, Any] = {
        "name": "sums",
        "source": {"loader": "network:load"},
        "signature": {
            "inputs": {"features": {"dtype": "float32", "shape": ["batch", 4]}},
            "outputs": ["scores"],
        },
        "calibration": "network:calibration",
        "evaluation": "network:evaluation",
        "quality": {"metric": "accuracy"},
        "budget": {"quality_drop": 0.05},
        "variants": ["onnx-fp32", "onnx-int8-static"],
        "measure": {"batches": [1, 8], "threads": [1, "all"], "rounds": 2, "round_ms": 5},
        **changes,
    }
    return {key: value for key, value in content.items() if value is not None}


def write_project(folder: Path, code: str = MODEL, **changes: Any) -> Path:
    """Write the project and return the path of its recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "network.py").write_text(code)
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe(**changes), sort_keys=False))
    return file
