"""A small model in Python for tests: what it does with a batch is told by the first value of its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hone.artifact import Artifact
from hone.converters.run.pass_task import PassTask, run_pass
from hone.converters.run.prepare import prepare
from hone.recipe import LoadedRecipe, load_recipe

EXIT, SIGNAL, RAISE, REFUSE, NO_DICT, NO_NAME, OBJECTS, LARGE = range(1, 9)
HANG, SYS_EXIT, GREEDY, PRINT, SAYS, RAGGED, KEEP = range(9, 16)

CODE = """
import os, subprocess, sys, time
import numpy as np

def predict(rows):
    x = rows["x"]
    what = int(x.flat[0]) if x.size else 0
    if what == 1: os._exit(3)
    if what == 2: os.kill(os.getpid(), 9)
    if what == 3: raise KeyError("no such key")
    if what == 4: raise ValueError("x is out of range")
    if what == 5: return [1, 2]
    if what == 6: return {"z": x}
    if what == 7: return {"y": np.array([{}] * len(x), dtype=object)}
    if what == 8: return {"y": np.zeros((len(x), 3_000_000))}
    if what == 9: time.sleep(1000)
    if what == 10: sys.exit(4)
    if what == 11:
        held = np.ones(25_000_000)
        time.sleep(1000)
    if what == 12:
        print("a line for the log")
        os.write(1, bytes(range(128, 140)) + b"\\n")
    if what == 13: return {"y": np.array([str(sorted(k for k in os.environ if k.startswith("HONE_")))] * len(x))}
    if what == 15: globals()["kept"] = np.ones(25_000_000)
    if what == 14: return {"y": [[1], [1, 2]]}
    return {"y": x.sum(axis=1), "name": np.array([f"row of {v:g}" for v in x[:, 0]])}
"""

ROWS = {"x": np.array([[0, 1], [0, 2], [0, 3], [0, 4]], np.float32)}


def rows_of(what: int) -> dict[str, np.ndarray]:
    """Return a batch of two rows that makes the model do something."""
    return {"x": np.full((2, 2), what, np.float32)}


def python_recipe(folder: Path, code: str = CODE, python: Any = "model:predict", **fields: Any) -> LoadedRecipe:
    """Write a recipe whose source is Python, and its module `model.py`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(code)
    np.savez(folder / "rows.npz", **ROWS)
    content = {
        "name": "code",
        "source": {"python": python},
        "signature": {"inputs": {"x": {"shape": ["batch", 2]}}},
        "evaluation": "rows.npz",
        **fields,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(content))
    return load_recipe(folder / "recipe.yaml")


def python_artifact(folder: Path, loaded: LoadedRecipe, **options: Any) -> Artifact:
    """Make the variant `python-process` of a recipe, in this process."""
    prepared = prepare(loaded.path, folder / "sources", folder / "evaluation.npz")
    task = PassTask("python_process", options, prepared.source, folder / "variant", loaded.path, prepared.rows)
    return Artifact.open(run_pass(task))
