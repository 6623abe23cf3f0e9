"""Checkpoints beside a class: where their tensors were, and what is read of them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.sources import ingest, run, write_recipe

torch = pytest.importorskip("torch")

ROWS = {"x": np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)}
SIGNATURE = {"inputs": {"x": {"shape": ["batch", 4]}}, "outputs": ["y"]}


def of_a_gpu(file: Path) -> None:
    """Rewrite a checkpoint as if its tensors had been on a GPU when it was written."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    (pickled,) = (name for name in members if name.endswith("/data.pkl"))
    here, there = b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0"
    assert here in members[pickled]
    members[pickled] = members[pickled].replace(here, there)
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_weights_that_were_on_a_gpu_are_read_without_one(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\n\ndef build():\n    return torch.nn.Linear(4, 2)\n")
    module = torch.nn.Linear(4, 2)
    torch.save(module.state_dict(), tmp_path / "net.ckpt")
    of_a_gpu(tmp_path / "net.ckpt")
    source = {"file": "net.ckpt", "loader": "net:build"}
    work = ingest(write_recipe(tmp_path, source, ROWS, signature=SIGNATURE), tmp_path / "source")
    wanted = module(torch.from_numpy(ROWS["x"])).detach().numpy()
    np.testing.assert_allclose(run(work.artifact, ROWS)["y"], wanted, atol=1e-6)
