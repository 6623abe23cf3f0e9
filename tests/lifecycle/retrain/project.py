"""A model that is trained by a script: what it learns, and how well, is said by a file."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.lifecycle.registry.versions import LABELS, ROWS
from tests.models.dense import dense_onnx

TRAIN = """
import os, shutil, sys, time
from pathlib import Path

what = Path("teach").read_text().strip()
print("learning", what, flush=True)
if what == "fails":
    sys.exit("Traceback: the data base is away")
if what == "sleeps":
    time.sleep(600)
if what != "nothing":
    shutil.copy(f"{what}.onnx", Path(os.environ["HONE_RETRAIN_OUT"]) / "model.onnx")
"""


def write_project(folder: Path, **retrain: Any) -> Path:
    """Write a recipe whose model answers all evaluation rows rightly, and what its training may give in its place.

    `good` answers as the first, `other` is another model: wrong, though it is proven like its own source.
    """
    folder.mkdir(parents=True)
    np.savez(folder / "rows.npz", features=ROWS, label=LABELS)
    dense_onnx(folder / "good.onnx")
    dense_onnx(folder / "other.onnx", seed=1)
    shutil.copy(folder / "good.onnx", folder / "model.onnx")
    (folder / "train.py").write_text(TRAIN)
    teach(folder, "good")
    content = {
        "name": "dense",
        "source": {"file": "model.onnx"},
        "evaluation": "rows.npz",
        "quality": {"metric": "accuracy", "skip_checks": "a test"},
        "budget": {"quality_drop": 0.02, "at": {"batch": 1, "threads": 1}},
        "measure": {"batches": [1], "threads": [1], "rounds": 3, "round_ms": 5},
        "variants": ["onnx-fp32"],
        "promotion": {"latency": None, "size": None},
        "retrain": {"command": "python train.py", **retrain},
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def teach(folder: Path, what: str) -> None:
    (folder / "teach").write_text(what)
