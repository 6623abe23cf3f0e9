"""Run one pass on a small real graph, with a recipe of its own around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml

from hone import runtimes
from hone.artifact import Artifact, Manifest, seal
from hone.converters.run.pass_task import PassTask, run_pass
from hone.signature import Signature


class Bench:
    """A folder with a recipe and calibration rows, in which passes are run as the pipeline runs them.

    Args:
        folder: for everything that is written.
        signature: of the model.
        rows: calibration and evaluation rows by input name.
        recipe: fields beside the required ones.
    """

    def __init__(self, folder: Path, signature: Signature, rows: Mapping[str, np.ndarray], **recipe: Any) -> None:
        self.folder = folder
        self.signature = signature
        self.rows = dict(rows)
        np.savez(folder / "rows.npz", **self.rows)
        inputs = {spec.name: {"dtype": spec.dtype, "shape": list(spec.shape)} for spec in signature.inputs}
        content = {
            "name": "small",
            "source": {"file": "model.onnx"},
            "signature": {"inputs": inputs, "outputs": signature.output_names},
            "calibration": "rows.npz",
            "evaluation": "rows.npz",
            "variants": ["onnx-fp32"],
            **recipe,
        }
        self.recipe = folder / "recipe.yaml"
        self.recipe.write_text(yaml.safe_dump(content))
        self._count = 0

    def artifact(self, model: onnx.ModelProto) -> Artifact:
        """Return a graph as an artifact."""
        onnx.checker.check_model(model)
        path = self._next()
        path.mkdir()
        onnx.save(model, path / "model.onnx")
        manifest = Manifest(
            name="small", variant="v", runtime="onnx", precision="fp32", entry="model.onnx", signature=self.signature
        )
        return seal(path, manifest)

    def run(self, name: str, artifact: Artifact, **options: Any) -> Artifact:
        """Return what a pass makes of an artifact; it has been loaded and run on sample rows."""
        return Artifact.open(run_pass(PassTask(name, options, artifact.path, self._next(), self.recipe)))

    def outputs(self, artifact: Artifact) -> dict[str, np.ndarray]:
        """Return an artifact's answers to the rows."""
        return runtimes.load(artifact, 1).run(self.rows)

    def _next(self) -> Path:
        self._count += 1
        return self.folder / f"artifact-{self._count}"


def details(artifact: Artifact) -> dict[str, Any]:
    """Return what the last pass reports."""
    return artifact.manifest.lineage[-1].details


def operators(artifact: Artifact) -> list[str]:
    return [node.op_type for node in onnx.load(artifact.entry).graph.node]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    products = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(products.mean())
