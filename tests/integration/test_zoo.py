"""Ordinary models of many kinds and frameworks: a winner that answers as its source does, or one reason why not.

The models are made in code and have random weights: what is compared is what they compute, not how good they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner

from hone.cli import cli

ROOT = Path(__file__).parents[2]
FP32 = 1e-4
"""Largest difference of a float32 variant, as a share of the largest answer."""


@dataclass(frozen=True)
class Case:
    """One model of the zoo.

    Attributes:
        module: in tests/zoo.
        inputs: {name: (dtype, shape)}; None leaves the signature to the file.
        outputs: names for the recipe; empty leaves them to the model.
        variants: of the recipe.
        changes: other fields of the recipe.
        file: writes a model file from the module, in place of a loader.
        refused: part of the one line that says why there is no winner.
    """

    name: str
    module: str
    inputs: dict[str, tuple[str, list[Any]]] | None
    outputs: tuple[str, ...] = ()
    variants: tuple[Any, ...] = ("onnx-fp32", "onnx-int8-dynamic")
    changes: dict[str, Any] = field(default_factory=dict)
    file: Callable[[Any, Path], Path] | None = None
    refused: str = ""


def write_recipe(case: Case, folder: Path, module: Any) -> Path:
    """Write a project with the case's module and recipe."""
    folder.mkdir(parents=True)
    shutil.copyfile(ROOT / "tests" / "zoo" / f"{case.module}.py", folder / f"{case.module}.py")
    source = {"file": case.file(module, folder).name} if case.file else {"loader": f"{case.module}:{case.name}"}
    content: dict[str, Any] = {
        "name": case.name,
        "source": source,
        "calibration": f"{case.module}:{case.name}_rows",
        "evaluation": f"{case.module}:{case.name}_rows",
        "budget": {"quality_drop": 0.05},
        "variants": list(case.variants),
        "measure": {"batches": [1], "threads": ["all"], "rounds": 2, "round_ms": 5},
        **case.changes,
    }
    if case.inputs is not None:
        inputs = {name: {"dtype": dtype, "shape": shape} for name, (dtype, shape) in case.inputs.items()}
        content["signature"] = {"inputs": inputs, **({"outputs": list(case.outputs)} if case.outputs else {})}
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content, sort_keys=False))
    return recipe


def optimize(recipe: Path, out: Path) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["optimize", str(recipe), "--out", str(out)])
    error = "" if result.exception is None or isinstance(result.exception, SystemExit) else str(result.exception)
    return result.exit_code, result.output + error
