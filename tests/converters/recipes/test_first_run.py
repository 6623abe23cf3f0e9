"""A model and a file of rows are enough: `hone optimize MODEL --data FILE` and `hone init MODEL --data FILE`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from hone.cli.main import cli
from hone.converters.recipes.first_recipe import Asked
from hone.converters.recipes.init import Given, Written, write_recipe
from hone.data import load_dataset
from hone.errors import RecipeError
from hone.recipe import load_recipe
from tests.models.dense import dense_answer, dense_onnx


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return dense_onnx(tmp_path / "dense.onnx")


def rows(count: int = 200) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 4)).astype(np.float32)


def data(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "rows.npz", **{"features": rows(), **arrays})
    return folder / "rows.npz"


def table(folder: Path, columns: dict[str, np.ndarray]) -> Path:
    lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
    (folder / "rows.csv").write_text("\n".join(lines) + "\n")
    return folder / "rows.csv"


def written(model: Path, file: Path, labels: str | None = None, **asked: Any) -> Written:
    return write_recipe(model, None, overwrite=True, given=Given(data=file, labels=labels, asked=Asked(**asked)))


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def test_recipe_of_a_model_and_its_rows_needs_nothing_filled_in(model: Path, tmp_path: Path) -> None:
    found = written(model, data(tmp_path))
    text = found.recipe.read_text()
    assert "TODO" not in text and found.data is None and not (tmp_path / "data.py").exists()
    assert all(len(line) <= 130 for line in text.splitlines())
    recipe = load_recipe(found.recipe).recipe
    assert recipe.is_auto and recipe.quality.metric == "likeness" and recipe.budget.quality_drop == 0.01
    assert found.notes[0] == "of 200 rows of rows.npz 40 calibrate, the other 160 judge"
    assert "against the source's own answers; a loss of 0.01 is allowed" in found.notes[1]


def test_no_row_calibrates_and_judges(model: Path, tmp_path: Path) -> None:
    file = data(tmp_path, features=np.arange(1000, dtype=np.float32)[:, None] + np.zeros(4, np.float32))
    loaded = load_recipe(written(model, file).recipe)
    parts = []
    for field in ("calibration", "evaluation"):
        spec = getattr(loaded.recipe, field)
        parts.append(set(load_dataset(loaded, field, spec, None).inputs["features"][:, 0]))
    assert len(parts[0]) == 200 and len(parts[1]) == 800
    assert not parts[0] & parts[1]
    assert max(parts[0]) > 900, "they are drawn from all over the file"


def test_labels_switch_to_a_metric_of_their_kind(model: Path, tmp_path: Path) -> None:
    classes = dense_answer(rows()).argmax(1)
    for labels, metric in ((classes, "accuracy"), (classes.astype(str), "accuracy"), (rows()[:, 0], "rmse")):
        found = written(model, data(tmp_path, y=labels), "y")
        recipe = load_recipe(found.recipe).recipe
        assert (recipe.quality.metric, recipe.evaluation.labels) == (metric, "y")
    assert "against the labels 'y'" in found.notes[1]


def test_too_few_rows_are_said_with_the_number_that_would_do(model: Path, tmp_path: Path) -> None:
    file = data(tmp_path, y=dense_answer(rows()).argmax(1))
    usual = written(model, file, "y")
    assert load_recipe(usual.recipe).recipe.budget.quality_drop == 0.03, "what so few rows can prove"
    asked = written(model, file, "y", loss=0.01)
    assert load_recipe(asked.recipe).recipe.budget.quality_drop == 0.01
    (note,) = [note for note in asked.notes if "can't prove" in note]
    assert "160 evaluation rows can't prove a loss under 0.01" in note and "485 would" in note


def test_limits_go_into_the_budget(model: Path, tmp_path: Path) -> None:
    budget = load_recipe(written(model, data(tmp_path), loss="2%", p95_ms=3.5, size_mb=1).recipe).recipe.budget
    assert (budget.quality_drop, budget.p95_ms, budget.size_mb) == ("2%", 3.5, 1)


def test_columns_of_a_table_make_up_the_one_input(model: Path, tmp_path: Path) -> None:
    columns = {name: rows()[:, place] for place, name in enumerate(("a", "b", "c d", "e"))}
    columns["a"] = np.arange(200)
    loaded = load_recipe(written(model, table(tmp_path, {**columns, "y": columns["a"] % 3}), "y").recipe)
    assert loaded.recipe.evaluation.columns == {"features": ["a", "b", "c d", "e"]}
    spec = loaded.recipe.signature
    assert spec is not None
    found = load_dataset(loaded, "evaluation", loaded.recipe.evaluation, spec.to_signature())
    assert found.inputs["features"].shape == (160, 4) and found.inputs["features"].dtype == np.float32
    assert found.labels is not None and (found.labels == found.inputs["features"][:, 0] % 3).all()


def test_a_few_rows_all_judge(model: Path, tmp_path: Path) -> None:
    found = written(model, data(tmp_path, features=rows(30)))
    recipe = load_recipe(found.recipe).recipe
    assert recipe.calibration is None and recipe.evaluation.share is None
    assert found.notes[0] == "all 30 rows of rows.npz judge variants"


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"features": None, "x": rows()}, r"has x float32\[200, 4\]; the model takes features float32\[batch, 4\]"),
        ({"features": rows()[:, :3]}, r"features.*\[200, 3\].*4"),
        ({"features": np.full((200, 4), np.nan, np.float32)}, "NaN or infinity in 200 rows"),
        ({"features": rows().astype(str)}, "has dtype <U.*expected float32"),
        ({"features": rows(0)}, "is empty: axis 'batch' has size 0"),
        ({"features": rows(7)}, r"7 row\(s\) are too few to tell anything; give 8 or more"),
        ({"features": None}, r"holds no arrays; the model takes features float32\[batch, 4\]"),
        ({"label": np.zeros(3)}, "rows differ: features 200, label 3"),
    ],
)
def test_rows_that_do_not_fit_are_told_in_a_line(
    model: Path, tmp_path: Path, arrays: dict[str, Any], words: str
) -> None:
    kept = {name: array for name, array in {"features": rows(), **arrays}.items() if array is not None}
    np.savez(tmp_path / "rows.npz", **kept)
    with pytest.raises(RecipeError, match=words) as error:
        written(model, tmp_path / "rows.npz")
    assert str(error.value).startswith("--data: ") and "\n" not in str(error.value)
    assert not (tmp_path / "recipe.yaml").exists()


def test_a_table_of_other_columns_is_told(model: Path, tmp_path: Path) -> None:
    file = table(tmp_path, {"a": rows()[:, 0], "b": rows()[:, 1], "name": np.array(["x"] * 200)})
    with pytest.raises(RecipeError, match=r"has 2 columns of numbers beside labels \(a, b\); the model takes features"):
        written(model, file)


def test_files_that_hold_no_rows_are_told(model: Path, tmp_path: Path) -> None:
    for name, words in (
        ("rows.npz", r"can't be read as \.npz"),
        ("rows.csv", "holds no"),
        ("rows.txt", "give an .npz"),
    ):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(RecipeError, match=words):
            written(model, tmp_path / name)
    with pytest.raises(RecipeError, match="no such file"):
        written(model, tmp_path / "none.npz")
    with pytest.raises(RecipeError, match=r"--labels: .* has no 'lable'; did you mean 'label'"):
        written(model, data(tmp_path, label=np.zeros(200)), "lable")


def test_commands_say_what_is_missing(model: Path, tmp_path: Path) -> None:
    told = run("optimize", model)
    assert told.exit_code == 2 and "is a model; give typical rows with --data FILE" in told.output
    told = run("optimize", model, "--loss", "0.1")
    assert told.exit_code == 2 and "--data is required" in told.output
    told = run("optimize", tmp_path / "recipe.yaml", "--data", data(tmp_path))
    assert told.exit_code == 2 and "go with a MODEL file" in told.output
    told = run("optimize", model, "--data", data(tmp_path), "--loss", "much")
    assert told.exit_code == 2 and "no number (0.01) and no share" in told.output
    told = run("init", model, "--labels", "y")
    assert told.exit_code == 2 and "--labels: names an array of --data" in told.output
    told = run("init", model, "--data", data(tmp_path), "--evaluation", data(tmp_path))
    assert told.exit_code == 2 and "give one of them" in told.output


def test_init_writes_what_runs(model: Path, tmp_path: Path) -> None:
    told = run("init", model, "--data", data(tmp_path), "--p95-ms", "5")
    assert told.exit_code == 0, told.output
    assert f"wrote {tmp_path}/recipe.yaml; run it: hone optimize {tmp_path}/recipe.yaml" in told.output
    assert "note: of 200 rows of rows.npz 40 calibrate" in told.output


@pytest.mark.slow
def test_a_model_and_its_rows_are_optimized_and_the_recipe_gives_the_same_plan(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = run("optimize", model, "--data", data(tmp_path), "--no-store", "--save-recipe", "mine.yaml")
    assert told.exit_code == 0, told.output
    assert "variants: auto" in told.output and "hone optimize mine.yaml runs it again" in told.output
    report = json.loads((tmp_path / "out" / "dense" / "report.json").read_text())
    assert report["winner"] and report["chosen_by"][0].startswith("graph: 1 matrix product")
    chosen = {one["name"] for one in report["candidates"] if one["chosen"]}
    assert chosen == {variant["name"] for variant in report["variants"] if not variant["baseline"]}
    assert all(one["reason"] for one in report["candidates"])
    plans = [
        run("optimize", *arguments, "--dry-run").output.partition("dense (onnx)")[2]
        for arguments in ((model, "--data", "rows.npz"), ("mine.yaml",))
    ]
    assert plans[0] and plans[0].split("note:")[0] == plans[1].split("note:")[0]
    assert "candidate onnx-fp32" in plans[1] and "left out  onnx-fused-fp32: the graph has no attention" in plans[1]
