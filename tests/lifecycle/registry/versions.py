"""Stored versions of the dense model, proven as `hone optimize` leaves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hone import store
from hone.artifact import Selection
from hone.golden.record import Golden, Tolerance
from hone.golden.rows import GoldenRows
from hone.recipe import Recipe
from hone.store.registry import Registry, change
from hone.store.rows import keep_rows
from tests.models.dense import FEATURES, dense_answer, dense_artifact

ROWS = np.random.default_rng(1).normal(size=(400, FEATURES)).astype(np.float32)
LABELS = dense_answer(ROWS).argmax(1)
"""What the model of seed 0 answers."""


def proven(folder: Path, version: str, *, seed: int = 0, answers: int | None = None, **selected: object) -> store.Entry:
    """Store a version of `dense` that met its budget, with golden rows.

    Args:
        version: its run is the version's name, so that later names are newer runs.
        answers: seed of the model whose answers the golden rows hold; None: its own.
        selected: fields of its selection that differ.
    """
    verdict = {"rank": 0, "eligible": True, "verdict": "met", "loss_upper": 0.004, "confidence": 0.95, **selected}
    golden = GoldenRows(
        {"features": ROWS[:16]}, {"scores": dense_answer(ROWS[:16], seed if answers is None else answers)}
    )
    near = {"scores": Tolerance(largest=1e-3, mean=1e-3)}
    record = Golden(file="golden.npz", rows=16, source="evaluation", repeats=1, outputs=near, joined=near)
    artifact = dense_artifact(folder / version, seed=seed).with_manifest(
        selection=Selection.model_validate({"run": version, "batch": 1, "threads": 1, **verdict}), golden=record
    )
    return store.put(artifact, "dense", version, golden)


def with_terms(entry: store.Entry, **promotion: object) -> store.Entry:
    """Keep evaluation rows beside a version, and a recipe that asks for accuracy."""
    recipe = Recipe.model_validate(
        {
            "name": "dense",
            "source": {"file": "model.onnx"},
            "evaluation": "rows.npz",
            "quality": {"metric": "accuracy"},
            "budget": {"quality_drop": 0.02, "at": {"batch": 1, "threads": 1}},
            "measure": {"batches": [1], "threads": [1], "rounds": 3},
            "variants": ["onnx-fp32"],
            "promotion": {"latency": None, **promotion},
        }
    )
    keep_rows(entry.path, {"features": ROWS}, LABELS)
    terms = recipe.model_dump(mode="json", by_alias=True)

    def changed(before: Registry) -> Registry:
        return before.model_copy(update={"terms": {**before.terms, entry.version: terms}})

    change(entry.name, changed)
    return entry
