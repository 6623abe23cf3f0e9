from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from hone import runtimes
from hone.artifact import Artifact
from hone.converters.run.pass_task import PassTask, run_pass
from hone.converters.run.prepare import prepare
from hone.errors import PassError
from tests.later import later
from tests.passes import details

later("torch_pruning")

CODE = """
import numpy as np, torch
from torch import nn
from torch.nn import functional

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = 4
        self.query, self.key, self.value, self.mix = (nn.Linear(32, 32) for _ in range(4))
        self.wide, self.narrow = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, states):
        parts = [layer(states).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                 for layer in (self.query, self.key, self.value)]
        states = states + self.mix(functional.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2))
        return states + self.narrow(functional.gelu(self.wide(states)))

class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.blocks, self.head = nn.Linear(4, 32), nn.Sequential(Block(), Block()), nn.Linear(32, 3)

    def forward(self, x):
        return self.head(self.blocks(self.embed(x)).mean(1))

def network():
    torch.manual_seed(0)
    return Network()

def weak():
    model = network()
    with torch.no_grad():
        model.blocks[0].wide.weight[5:20] *= 0.01
    return model

def rows():
    return {"x": np.random.default_rng(0).normal(size=(32, 6, 4)).astype(np.float32)}
"""

TRANSFORMER = ["*.wide", "*.query", "*.key", "*.value"]


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "net.py").write_text(CODE)
    content = {
        "name": "small",
        "source": {"loader": "net:network"},
        "signature": {"inputs": {"x": {"shape": ["batch", 6, 4]}}, "outputs": ["y"]},
        "calibration": "net:rows",
        "evaluation": "net:rows",
        "variants": ["onnx-fp32"],
    }
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def test_channels_below_a_threshold_are_removed(recipe: Path) -> None:
    recipe.write_text(recipe.read_text().replace("net:network", "net:weak"))
    source = prepare(recipe, recipe.parent / "source", recipe.parent / "evaluation").source
    for round_to, left in ((1, 49), (8, 56)):
        options = {"threshold": 0.02, "layers": ["*.wide"], "round_to": round_to}
        task = PassTask("prune", options, source, recipe.parent / f"pruned-{left}", recipe)
        channels = details(Artifact.open(run_pass(task)))["channels"]
        assert (channels["blocks.0.wide"], channels["blocks.1.wide"]) == (f"64 -> {left}", "64 -> 64")


def prune(recipe: Path, **options: Any) -> Artifact:
    source = prepare(recipe, recipe.parent / "source", recipe.parent / "evaluation").source
    return Artifact.open(run_pass(PassTask("prune", options, source, recipe.parent / "pruned", recipe)))


def test_heads_and_neurons_of_a_transformer_are_removed(recipe: Path) -> None:
    artifact = prune(recipe, ratio=0.5, layers=TRANSFORMER, heads="heads")
    facts = details(artifact)
    assert facts["heads"] == "8 -> 4"
    assert facts["channels"]["blocks.0.query"] == "32 -> 16"
    assert facts["channels"]["blocks.1.wide"] == "64 -> 32"
    assert facts["channels"]["blocks.0.mix"] == "32 -> 32"
    assert facts["parameters_after"] < 0.6 * facts["parameters_before"]
    exported = Artifact.open(run_pass(PassTask("export", {}, artifact.path, recipe.parent / "onnx", recipe)))
    rows = {"x": np.random.default_rng(1).normal(size=(5, 6, 4)).astype(np.float32)}
    answers = [runtimes.load(each, 1).run(rows)["y"] for each in (artifact, exported)]
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_only_the_named_layers_lose_neurons(recipe: Path) -> None:
    channels = details(prune(recipe, ratio=0.25, layers=["blocks.1.wide"]))["channels"]
    changed = {name for name, change in channels.items() if len(set(change.split(" -> "))) == 2}
    assert changed == {"blocks.1.wide"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"layers": ["*.wider"]}, r"layers: '\*\.wider' matches no layer; there are embed, blocks\.0\.query"),
        ({"heads": "num_heads"}, "no module has an integer 'num_heads'"),
        ({"layers": ["*.wide"], "round_to": 64}, "no layer could be pruned; lower round_to"),
        ({"layers": ["*.wide"], "threshold": 1e-6}, "no layer could be pruned; lower round_to, raise threshold"),
    ],
)
def test_what_cannot_be_pruned_is_named(recipe: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(PassError, match=words):
        prune(recipe, **options)
