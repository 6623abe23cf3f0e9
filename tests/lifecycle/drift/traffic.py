"""A stored model with a reference, and hours of sketched traffic beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hone import store
from hone.files import hash_file
from hone.signature import Signature, Tensors
from hone.sketches import folder as sketches
from hone.sketches.reference import FILE, References, make_references, with_calibration
from hone.sketches.window import About, Window
from tests.models.dense import dense_answer, dense_artifact, dense_signature
from tests.servers import use_store

NOW = 500_000
"""An hour since 1970."""
NOW_S = NOW * 3600.0 + 1800


@dataclass(frozen=True)
class Stored:
    """A model of a store, and the folder of its traffic."""

    folder: Path
    references: References
    digest: str
    version: str

    def hour(self, hour: int, rows: np.ndarray, worker: str = "a", answers: np.ndarray | None = None) -> None:
        """Write an hour of requests of one row each."""
        outputs = dense_answer(rows) if answers is None else answers
        window = Window.empty(About("dense", self.version, hour, self.digest), self.references.names)
        pairs = zip(np.split(rows, len(rows)), np.split(outputs, len(rows)), strict=True)
        window.add(self.references, [({"features": one}, {"scores": other}) for one, other in pairs])
        sketches.write(self.folder, window, worker)

    def hours(self, hours: Iterable[int], count: int, shift: float = 0.0, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        for hour in hours:
            self.hour(hour, normal(generator, count, shift))


def normal(generator: np.random.Generator, count: int, shift: float = 0.0) -> np.ndarray:
    """Return rows whose second feature is moved."""
    rows = generator.normal(size=(count, 4)).astype(np.float32)
    rows[:, 1] += shift
    return rows


def stored(
    home: Path,
    rows: np.ndarray | None = None,
    version: str = "v1",
    signature: Signature | None = None,
    calibration: np.ndarray | None = None,
) -> Stored:
    """Store a model whose proof had such rows; by default 3000 of a normal distribution."""
    use_store(home)
    rows = normal(np.random.default_rng(99), 3000) if rows is None else rows
    inputs: Tensors = {"features": rows}
    references = make_references(signature or dense_signature(), inputs, {"scores": dense_answer(rows)}, private=False)
    assert references is not None
    if calibration is not None:
        references = with_calibration(references, {"features": calibration})
    artifact = dense_artifact(home / f"artifact-{version}", name="dense").with_manifest(drift=FILE)
    entry = store.put(artifact, "dense", version, None, {FILE: references.model_dump_json().encode()})
    folder = home / "sketches"
    folder.mkdir(exist_ok=True)
    return Stored(folder, references, hash_file(entry.path / FILE), version)
