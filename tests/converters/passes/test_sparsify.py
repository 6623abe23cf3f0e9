from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from hone import runtimes
from hone.artifact import Artifact
from hone.converters.passes.compress.sparsify import Options
from hone.converters.run.pass_task import PassTask, run_pass
from hone.converters.run.prepare import prepare
from hone.errors import PassError
from tests.later import later
from tests.passes import details

torch = later("torch")

CODE = """
import numpy as np, torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.Tanh(), nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 3))

def image_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 8, 3), nn.ReLU(), nn.Conv1d(8, 4, 3), nn.Flatten(), nn.Linear(8, 3))

def no_layer():
    return nn.BatchNorm1d(6)

def rows():
    x = np.random.default_rng(0).normal(size=(128, 6)).astype(np.float32)
    return {"x": x}

def image_rows():
    return {"x": rows()["x"][:, None]}

def train(model, epochs):
    wanted = torch.from_numpy(rows()["x"])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(epochs * 20):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(wanted), wanted[:, :3] * 2).backward()
        optimizer.step()
    return model.eval()

def other(model, epochs):
    return network()
"""


def project(folder: Path, loader: str = "network", rows: str = "rows", train: str | None = None) -> Path:
    (folder / "net.py").write_text(CODE)
    shape = ["batch", 1, 6] if rows == "image_rows" else ["batch", 6]
    content = {
        "name": "small",
        "source": {"loader": f"net:{loader}"},
        "signature": {"inputs": {"x": {"shape": shape}}, "outputs": ["y"]},
        "calibration": f"net:{rows}",
        "evaluation": f"net:{rows}",
        "variants": ["onnx-fp32"],
        **({"train": f"net:{train}"} if train else {}),
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def sparsify(recipe: Path, parent: Path | None = None, target: str = "sparse", **options: Any) -> Artifact:
    source = parent or prepare(recipe, recipe.parent / "source", recipe.parent / "evaluation").source
    return Artifact.open(run_pass(PassTask("sparsify", options, source, recipe.parent / target, recipe)))


def weights(artifact: Artifact) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return {name: array for name, array in load_file(artifact.entry).items() if array.ndim > 1}


def test_global_magnitude_reaches_the_share_and_zeroes_the_smallest(tmp_path: Path) -> None:
    recipe = project(tmp_path)
    sparse = sparsify(recipe, sparsity=0.8)
    found = weights(sparse)
    values = np.concatenate([array.ravel() for array in found.values()])
    assert (values == 0).mean() == pytest.approx(0.8, abs=1e-3)
    dense = weights(Artifact.open(next((tmp_path / "source").iterdir())))
    kept = np.concatenate([np.abs(dense[name][found[name] != 0]) for name in found])
    gone = np.concatenate([np.abs(dense[name][found[name] == 0]) for name in found])
    assert gone.max() <= kept.min()
    assert len({round(share, 1) for share in details(sparse)["layers"].values()}) > 1
    assert "none" in details(sparse)["speed_gain"]


def test_layer_scope_gives_each_layer_its_share(tmp_path: Path) -> None:
    found = weights(sparsify(project(tmp_path), sparsity=0.5, scope="layer"))
    assert {round(float((array == 0).mean()), 2) for array in found.values()} == {0.5}


def test_gradual_pruning_trains_around_the_zeros(tmp_path: Path) -> None:
    recipe = project(tmp_path, train="train")
    sparse = sparsify(recipe, sparsity=0.7, steps=3, epochs=5)
    x = np.random.default_rng(0).normal(size=(128, 6)).astype(np.float32)
    error = np.mean((runtimes.load(sparse, 1).run({"x": x})["y"] - x[:, :3] * 2) ** 2)
    assert error < 0.1
    assert details(sparse)["sparsity"] == pytest.approx(0.7, abs=1e-3)
    assert details(sparse)["fine_tuned_epochs"] == 15
    shares = [Options(sparsity=0.7, steps=3).at_step(step) for step in (1, 2, 3)]
    assert shares[0] > 0.4
    assert shares[2] == pytest.approx(0.7)


def test_two_of_four_along_the_input_channels(tmp_path: Path) -> None:
    sparse = sparsify(project(tmp_path, "image_network", "image_rows"), pattern="2:4")
    found = weights(sparse)
    assert details(sparse)["left_dense"] == ["0.weight"]  # one input channel
    conv = np.moveaxis(found["2.weight"], 1, -1).reshape(-1, 4)
    assert ((conv == 0).sum(axis=1) == 2).all()
    assert ((found["4.weight"].reshape(-1, 4) == 0).sum(axis=1) == 2).all()
    assert "TensorRT" in details(sparse)["speed_gain"]


def test_exported_program_is_taken_too(tmp_path: Path) -> None:
    recipe = project(tmp_path, train="train")
    source = prepare(recipe, tmp_path / "source", tmp_path / "evaluation").source
    pruned = run_pass(PassTask("prune", {"ratio": 0.25, "epochs": 1}, source, tmp_path / "pruned", recipe))
    sparse = sparsify(recipe, pruned, sparsity=0.5)
    assert sparse.entry.suffix == ".pt2"
    assert details(sparse)["sparsity"] == pytest.approx(0.5, abs=1e-2)
    program = torch.export.load(sparse.entry)
    zeros = [float((value == 0).float().mean()) for value in program.state_dict.values() if value.dim() > 1]
    assert np.mean(zeros) > 0.3


@pytest.mark.parametrize(
    ("project_options", "options", "words"),
    [
        ({"loader": "no_layer"}, {}, "no layer of BatchNorm1d is linear or convolutional"),
        ({"train": "other"}, {}, "net:other must train the model it gets"),
    ],
)
def test_what_cannot_be_pruned_is_named(
    tmp_path: Path, project_options: dict[str, str], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(PassError, match=words):
        sparsify(project(tmp_path, **project_options), **options)


@pytest.mark.parametrize(
    ("options", "words"), [({"sparsity": 0.7}, "is a sparsity of 0.5"), ({"scope": "global"}, "groups of four")]
)
def test_pattern_has_a_share_of_its_own(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Options.model_validate({"pattern": "2:4", **options})


def test_threshold_zeroes_what_is_smaller(tmp_path: Path) -> None:
    recipe = project(tmp_path)
    found = weights(sparsify(recipe, threshold=0.1))
    dense = weights(Artifact.open(next((tmp_path / "source").iterdir())))
    for name, array in found.items():
        np.testing.assert_array_equal(array, np.where(np.abs(dense[name]) < 0.1, 0, dense[name]))
    with pytest.raises(PassError, match="no weight is below the threshold 1e-09; raise it"):
        sparsify(recipe, next((tmp_path / "source").iterdir()), "none", threshold=1e-9)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"sparsity": 0.7}, "give it or sparsity, not both"), ({"pattern": "2:4"}, "neither pattern 2:4 nor a scope")],
)
def test_threshold_stands_for_the_share(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Options.model_validate({"threshold": 0.1, **options})
    whole = Options(threshold=0.1)
    assert Options.model_validate(whole.model_dump()) == whole
