"""Rows of the dense model, and runs over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from hone.scoring import run as scoring
from hone.scoring.run import Request, Result, score
from tests.plans import plan
from tests.servers import put

NAMES = ("a", "b", "c", "d")


def stored(home: Path, folder: Path, **options: object) -> str:
    """Store the dense model; return its tag."""
    return put(home / "bentoml", folder / "artifact", "dense", "onnx-fp32-1", **options).tag


def quick(monkeypatch: pytest.MonkeyPatch, tag: str, digest: str, **changes: Any) -> None:
    """Run a model by a plan, which takes no time to find, in small blocks."""
    given = plan(model=tag, digest=digest, **{"max_batch_rows": 8, **changes})
    monkeypatch.setenv("HONE_PLAN", given.model_dump_json())
    monkeypatch.setattr(scoring, "BLOCK_ROWS", 64)


def features(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def table(rows: np.ndarray, first: int = 0) -> pa.Table:
    columns = {name: rows[:, place] for place, name in enumerate(NAMES)}
    return pa.table({"id": np.arange(first, first + len(rows)), **columns})


def run(model: str, source: Path, out: Path, **options: Any) -> Result:
    return score(Request(model, source, out, **options), lambda *_: None)


def answers(out: Path) -> np.ndarray:
    """Return the scores in a file of answers."""
    column = parquet.read_table(out).column("scores").combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)
