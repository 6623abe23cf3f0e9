"""Ordinary models of many kinds and frameworks: a winner that answers as its source does, or one reason why not.

The models are made in code and have random weights: what is compared is what they compute, not how good they are.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from hone import runtimes, store
from hone.cli.main import cli

ROOT = Path(__file__).parents[2]
CLOSE = 1e-4
"""Largest difference of a float32 variant from its source, as a share of the largest answer."""

Rows = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One model of the zoo.

    Attributes:
        model: its loader in `module`.
        module: in tests/models/zoo.
        inputs: {name: (dtype, shape)}; None leaves the signature to the model.
        outputs: names for the recipe; empty leaves them to the model.
        variants: of the recipe.
        changes: other fields of the recipe.
        file: writes a model file, in place of the loader.
        answer: of the source, by hand: (model, rows) to the first output.
        refused: part of the one line that says why there is no winner.
    """

    model: str
    module: str
    inputs: dict[str, tuple[str, list[Any]]] | None = None
    outputs: tuple[str, ...] = ()
    variants: tuple[Any, ...] = ("onnx-fp32",)
    changes: dict[str, Any] = field(default_factory=dict)
    file: Callable[[Any, Path], Path] | None = None
    answer: Callable[[Any, Rows], np.ndarray] | None = None
    refused: str = ""


def torch_answer(model: Any, rows: Rows) -> np.ndarray:
    import torch

    from hone.runtimes.torch.calls import named_tensors

    with torch.no_grad():
        result = model(*(torch.from_numpy(array) for array in rows.values()))
    return next(iter(named_tensors(result).values())).numpy()


def by_keyword(model: Any, rows: Rows) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(rows["x"]), context=torch.from_numpy(rows["context"])).numpy()


def by_dict(model: Any, rows: Rows) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model({name: torch.from_numpy(array) for name, array in rows.items()})[0].numpy()


def scores_of(model: Any, rows: Rows) -> np.ndarray:
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(rows["x"]))["scores"].numpy()


def predicted(model: Any, rows: Rows) -> np.ndarray:
    answer = np.asarray(model.predict(rows["features"]))
    return answer.astype(np.int64) if answer.dtype == bool else answer  # as every converter writes them


def keras_answer(model: Any, rows: Rows) -> np.ndarray:
    result = model(next(iter(rows.values())))
    return np.asarray(result[0] if isinstance(result, list | tuple) else result)


def program(
    *shapes: tuple[int, ...], keywords: tuple[str, ...] = (), dynamic: bool = True
) -> Callable[[Any, Path], Path]:
    """Export as people do: inputs by position, the last ones by keyword; with a dynamic batch or a fixed one."""

    def write(model: Any, folder: Path) -> Path:
        import torch

        tensors = [torch.randn(shape) for shape in shapes]
        place = len(tensors) - len(keywords)
        named = dict(zip(keywords, tensors[place:], strict=True))
        batch = torch.export.Dim("batch")
        axes = ([{0: batch}] * place, {name: {0: batch} for name in keywords})
        spec = None if not dynamic else (*axes[0],) if not keywords else {"x": {0: batch}, **axes[1]}
        exported = torch.export.export(model, tuple(tensors[:place]), named, dynamic_shapes=spec)
        torch.export.save(exported, folder / "model.pt2")
        return folder / "model.pt2"

    return write


def graph(*shape: int, name: str) -> Callable[[Any, Path], Path]:
    """Export to ONNX as people do who name no dynamic axes."""

    def write(model: Any, folder: Path) -> Path:
        import torch

        file = folder / "model.onnx"
        torch.onnx.export(
            model, (torch.randn(shape),), str(file), input_names=[name], output_names=["scores"], dynamo=True,
            external_data=False, verbose=False,
        )  # fmt: skip
        return file

    return write


def torch_case(model: str, inputs: dict[str, tuple[str, list[Any]]] | None, **options: Any) -> Case:
    return Case(model, "torch_models", inputs, **{"answer": torch_answer, **options})


def tabular(model: str, **options: Any) -> Case:
    inputs = {"features": ("float32", ["batch", 6])}
    return Case(model, "tabular_models", inputs, **{"answer": predicted, **options})


IMAGE = {"image": ("float32", ["batch", 1, 16, 16])}
MATRIX = {"x": ("float32", ["batch", 6])}
PAIR = {**MATRIX, "context": ("float32", ["batch", 4])}
INT8 = ("onnx-fp32", "onnx-int8-static")
PRUNED = ("onnx-fp32", {"preset": "pruned50-onnx-fp32", "options": {"prune": {"round_to": 4}}})

CASES = {
    "U-Net of any even size": torch_case(
        "unet", {"image": ("float32", ["batch", 1, "height", "width"])}, variants=(*PRUNED, "onnx-int8-static")
    ),
    "sounds of any length": torch_case("audio", {"samples": ("float32", ["batch", "time"])}, variants=PRUNED),
    "spectrogram of any length": torch_case("stft", {"samples": ("float32", ["batch", "time"])}),
    "depthwise blocks": torch_case("blocks", IMAGE, variants=INT8),
    "vision transformer": torch_case("vit", IMAGE),
    "GRU with attention": torch_case("gru", {"ids": ("int64", ["batch", "n"]), "mask": ("int64", ["batch", "n"])}),
    "dict in, nest out": torch_case(
        "branches", {"image": ("float32", ["batch", 1, 8, 8]), "columns": ("float32", ["batch", 5])}, answer=by_dict
    ),
    "second input by keyword": torch_case("pair", PAIR, answer=by_keyword),
    "dict out, one of two": torch_case("loss", MATRIX, outputs=("scores",), answer=scores_of),
    "one number for all rows": torch_case(
        "loss", MATRIX, refused="'energy' is one number for all rows; name the others"
    ),
    "packed sequences": torch_case(
        "packed",
        {"steps": ("float32", ["batch", "n", 3]), "lengths": ("int64", ["batch"])},
        refused="in layer 'steps' (torch_models.py:",
    ),
    "a branch on values": torch_case("branch", MATRIX, refused="(torch_models.py:"),
    "program by position": torch_case("mlp", MATRIX, file=program((4, 6))),
    "program that tells its inputs": torch_case("mlp", None, file=program((4, 6))),
    "program of fixed rows": torch_case("mlp", MATRIX, file=program((4, 6), dynamic=False)),
    "program by position and keyword": torch_case(
        "pair", PAIR, file=program((4, 6), (4, 4), keywords=("context",)), answer=by_keyword
    ),
    "ONNX of one row": torch_case("blocks", None, file=graph(1, 1, 16, 16, name="image"), variants=INT8),
    "ONNX transformer of one row": torch_case("vit", IMAGE, file=graph(1, 1, 16, 16, name="image")),
    "forest with text classes": tabular("forest"),
    "scaled regression on bool": tabular("scaled"),
    "neighbors": tabular("neighbors"),
    "gradient boosting": tabular("boosted"),
    "perceptron": tabular("perceptron"),
    "isolation forest": tabular("anomalies"),
    "XGBoost classes": tabular("xgb_classes"),
    "XGBoost ranker": tabular("xgb_ranker"),
    "LightGBM values": tabular("lgb_values"),
    "LightGBM classes": tabular("lgb_classes"),
    "Keras 3 normalization and GELU": Case("normalized", "keras_models", answer=keras_answer),
    "Keras 3 pictures, two outputs": Case("pictures", "keras_models", answer=keras_answer, variants=INT8),
    "Keras 3 LSTM": Case("recurrent", "keras_models", answer=keras_answer),
    "Keras 2": Case("older", "keras_models", answer=keras_answer),
}


def rows_of(case: Case, module: Any) -> str:
    return f"{case.model}_rows" if hasattr(module, f"{case.model}_rows") else "rows"


def write_recipe(case: Case, folder: Path, module: Any) -> Path:
    """Write a project with the case's module and recipe."""
    folder.mkdir(parents=True)
    shutil.copyfile(ROOT / "tests" / "models" / "zoo" / f"{case.module}.py", folder / f"{case.module}.py")
    model = getattr(module, case.model)
    source = {"file": case.file(model(), folder).name} if case.file else {"loader": f"{case.module}:{case.model}"}
    data = f"{case.module}:{rows_of(case, module)}"
    content: dict[str, Any] = {
        "name": case.model,
        "source": source,
        "calibration": data,
        "evaluation": data,
        "budget": {"quality_drop": 0.1},
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


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_winner_answers_as_its_source_or_one_line_says_why_not(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    pytest.importorskip({"torch_models": "torch", "keras_models": "tensorflow"}.get(case.module, "sklearn"))
    module = importlib.import_module(f"tests.models.zoo.{case.module}")
    recipe, out = write_recipe(case, tmp_path / "project", module), tmp_path / "out"
    result = CliRunner().invoke(cli, ["optimize", str(recipe), "--out", str(out)])
    if case.refused:
        assert result.exit_code in (2, 3), result.output
        (line, *_) = [line for line in result.output.replace("\n  ", " ").splitlines() if case.refused in line]
        assert "Traceback" not in result.output and "\x1b" not in line
        return
    assert result.exit_code == 0, result.output
    report = json.loads((out / "report.json").read_text())
    failed = {variant["name"]: variant["reason"] for variant in report["variants"] if variant["status"] != "built"}
    assert not failed
    assert report["winner"]
    entry = store.resolve(f"{case.model}:onnx-fp32")
    rows = getattr(module, rows_of(case, module))()
    answers = runtimes.load(entry.opened()).run(rows)
    assert case.answer is not None
    wanted = case.answer(getattr(module, case.model)(), rows)
    got = next(iter(answers.values()))
    if wanted.dtype.kind not in "f":
        assert (got.reshape(-1).astype(str) == wanted.reshape(-1).astype(str)).all()
        return
    scale = float(np.abs(wanted).max())
    np.testing.assert_allclose(got.reshape(wanted.shape), wanted, rtol=0, atol=CLOSE * scale)
