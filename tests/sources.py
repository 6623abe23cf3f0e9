"""Ingest and export as the pipeline does, in one process and without its cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hone import runtimes
from hone.artifact import Artifact, Manifest, seal
from hone.converters import sources
from hone.converters.context import PassContext
from hone.converters.run.pass_task import check_runs
from hone.converters.run.prepare import find_outputs
from hone.recipe import LoadedRecipe, load_recipe


@dataclass(frozen=True)
class Work:
    """A recipe and its source artifact."""

    loaded: LoadedRecipe
    artifact: Artifact

    @property
    def context(self) -> PassContext:
        return PassContext(self.loaded, self.artifact.signature, lambda _: None)


def write_recipe(folder: Path, source: dict[str, Any], rows: dict[str, np.ndarray], **fields: Any) -> LoadedRecipe:
    """Write a recipe whose evaluation set is `rows`, kept in `rows.npz`."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(
        folder / "rows.npz",
        allow_pickle=False,
        **{name: array.astype(str) if array.dtype == object else array for name, array in rows.items()},
    )
    content = {"name": "model", "source": source, "evaluation": "rows.npz", "variants": ["onnx-fp32"], **fields}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_recipe(folder / "recipe.yaml")


def ingest(loaded: LoadedRecipe, out: Path) -> Work:
    """Write and seal the source artifact, with the outputs that its runtime gives."""
    source = sources.for_recipe(loaded)
    out.mkdir(parents=True)
    built = source.ingest(loaded, out)
    assert built.signature is not None
    manifest = Manifest(
        name="model",
        runtime=source.name,
        precision=built.precision or "fp32",
        entry=built.entry,
        signature=built.signature,
        runtime_options=built.runtime_options or {},
    )
    context = PassContext(loaded, built.signature, lambda _: None)
    names = loaded.recipe.signature.outputs if loaded.recipe.signature else ()
    outputs = find_outputs(seal(out, manifest), context, names)
    signature = built.signature.model_copy(update={"outputs": outputs})
    return Work(loaded, seal(out, manifest.model_copy(update={"signature": signature})))


def export(work: Work, out: Path, opset: int = 20) -> Artifact:
    """Export to ONNX, seal, and check it as the pipeline does."""
    out.mkdir(parents=True)
    built = sources.get(work.artifact.runtime).export(work.artifact, opset, out, work.context)
    artifact = seal(
        out,
        work.artifact.manifest.model_copy(
            update={"runtime": "onnx", "entry": built.entry, "runtime_options": built.runtime_options or {}}
        ),
    )
    check_runs(artifact, work.context)
    return artifact


def run(artifact: Artifact, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return runtimes.load(Artifact.open(artifact.path)).run(inputs)


def assert_agree(work: Work, graph: Artifact, inputs: dict[str, np.ndarray], tolerance: float = 1e-5) -> None:
    """The baseline and the exported graph give the same outputs: labels exactly, numbers within the tolerance."""
    baseline, exported = run(work.artifact, inputs), run(graph, inputs)
    assert list(baseline) == list(exported) == work.artifact.signature.output_names
    for name, wanted in baseline.items():
        got = exported[name]
        assert got.shape == wanted.shape, name
        assert got.dtype == wanted.dtype, name
        if wanted.dtype.kind == "f":
            np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance, err_msg=name)
        else:
            assert got.tolist() == wanted.tolist(), name
