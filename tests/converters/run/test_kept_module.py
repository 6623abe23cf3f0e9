"""What a loader gave is handed to the other processes of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from hone.artifact import Artifact
from hone.cache import run_folder, run_in
from hone.converters.run.prepare import prepare
from tests.models.sums import MODEL, write_project

torch = pytest.importorskip("torch")

from hone.runtimes.torch.runtime import keep_module, kept_module, load_module  # noqa: E402

COUNTING = MODEL.replace("def load():", "calls = []\n\n\ndef load():\n    calls.append(1)").replace(
    "return train(Network(), 30)", "return Network().eval()"
)


def calls() -> int:
    import network  # type: ignore[import-not-found]

    return len(network.calls)


def test_a_module_is_loaded_without_its_loader(tmp_path: Path) -> None:
    recipe = write_project(tmp_path / "project", code=COUNTING)
    with run_in(tmp_path):
        prepared = prepare(recipe, tmp_path / "sources", tmp_path / "evaluation.npz")
        artifact = Artifact.open(prepared.source)
        first, second = load_module(artifact), load_module(artifact)
        assert calls() == 1
    assert first is not second and not first.training
    rows = torch.zeros(2, 4)
    assert torch.equal(first(rows), second(rows))
    assert run_folder() is None
    assert torch.equal(load_module(artifact)(rows), first(rows)) and calls() == 2


def test_a_module_with_other_weights_gets_those(tmp_path: Path) -> None:
    """As a pass leaves them that keeps the class: weights of its own, the source's loader."""
    from safetensors.torch import load_file, save_file

    from hone.artifact import seal

    recipe = write_project(tmp_path / "project", code=COUNTING)
    with run_in(tmp_path):
        artifact = Artifact.open(prepare(recipe, tmp_path / "sources", tmp_path / "evaluation.npz").source)
        other = tmp_path / "other"
        other.mkdir()
        save_file({name: tensor * 0 for name, tensor in load_file(artifact.entry).items()}, other / artifact.entry.name)
        changed = load_module(seal(other, artifact.manifest))
        assert calls() == 1
    assert all(not tensor.any() for tensor in changed.state_dict().values())


def test_a_module_of_functions_and_local_classes_is_kept(tmp_path: Path) -> None:
    class Local(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.nn.Linear(2, 2)
            self.act = lambda value: value.relu()

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            return self.act(self.inner(value))  # type: ignore[no-any-return]

    module = Local()
    with run_in(tmp_path):
        assert keep_module(module, "m:f", tmp_path, "sha") == ""
        found = kept_module("m:f", tmp_path)
    assert found is not None and found[1] == "sha"
    rows = torch.ones(3, 2)
    assert torch.equal(found[0](rows), module(rows))


def test_a_module_that_cannot_be_pickled_is_said_to_be(tmp_path: Path) -> None:
    module = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2))
    with run_in(tmp_path):
        assert "can't be pickled" in keep_module(module, "m:f", tmp_path, "sha")
        assert kept_module("m:f", tmp_path) is None
    assert not list(tmp_path.glob("module-*"))
