"""`hone init`: the recipe it writes is valid as written, and says what is left to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.converters.recipes.init import Given, write_recipe
from hone.converters.run.plan import make_plan
from hone.converters.sources import for_recipe
from hone.data import load_dataset
from hone.errors import RecipeError
from hone.evidence.pairs import Pairs
from hone.recipe import LoadedRecipe, load_recipe
from tests.models.dense import FEATURES, dense_onnx
from tests.sources import assert_agree, export, ingest
from tests.sources import write_recipe as recipe_of_rows


def checked(model: Path, **options: Any) -> LoadedRecipe:
    """Write a recipe, and read and plan it as `hone optimize` would."""
    loaded = load_recipe(write_recipe(model, None, **options).recipe)
    make_plan(loaded, for_recipe(loaded).name)
    return loaded


def test_onnx_recipe_has_the_graphs_signature(tmp_path: Path) -> None:
    loaded = checked(dense_onnx(tmp_path / "Dense Model (v2).onnx"))
    recipe = loaded.recipe
    assert recipe.name == "dense-model-v2"
    assert recipe.signature is not None
    assert recipe.signature.inputs["features"].shape == ("batch", FEATURES)
    assert recipe.is_auto
    text = loaded.path.read_text()
    assert "# outputs: [scores]" in text
    assert all(len(line) <= 130 for line in text.splitlines())


def test_every_field_has_a_comment(tmp_path: Path) -> None:
    lines = checked(dense_onnx(tmp_path / "dense.onnx")).path.read_text().splitlines()
    fields = [number for number, line in enumerate(lines) if ": " in line and not line.lstrip().startswith("#")]
    assert len(fields) > 8
    bare = [lines[number] for number in fields if "# " not in lines[number] and "# " not in lines[number - 1]]
    assert bare == []


def test_data_stub_fails_with_what_to_do(tmp_path: Path) -> None:
    loaded = checked(dense_onnx(tmp_path / "dense.onnx"))
    assert '"features": float32[batch, 4]' in (tmp_path / "data.py").read_text()
    for field in ("evaluation", "calibration"):
        spec = getattr(loaded.recipe, field)
        with pytest.raises(RecipeError, match=rf"{field}: data:{field} failed \(data\.py:\d+\).*TODO"):
            load_dataset(loaded, field, spec, None)


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    model = dense_onnx(tmp_path / "dense.onnx")
    (tmp_path / "data.py").write_text("MINE = True\n")
    recipe = write_recipe(model, None).recipe
    recipe.write_text("mine: true\n")
    with pytest.raises(RecipeError, match="exists already"):
        write_recipe(model, None)
    assert recipe.read_text() == "mine: true\n"
    write_recipe(model, None, overwrite=True)
    assert recipe.read_text() != "mine: true\n"
    assert (tmp_path / "data.py").read_text() == "MINE = True\n"


def test_second_model_of_a_folder_has_data_of_its_own(tmp_path: Path) -> None:
    first = write_recipe(dense_onnx(tmp_path / "dense.onnx"), None)
    assert (first.data.name, first.kept_data) == ("data.py", False)
    other = dense_onnx(tmp_path / "other-model.onnx")
    second = write_recipe(other, tmp_path / "other.yaml")
    assert (second.data.name, second.kept_data) == ("data_other_model.py", False)
    recipe = load_recipe(second.recipe).recipe
    assert recipe.calibration is not None
    sources = recipe.evaluation.source, recipe.calibration.source
    assert sources == ("data_other_model:evaluation", "data_other_model:calibration")
    assert "TODO in data_other_model.py" in second.recipe.read_text()
    third = write_recipe(other, tmp_path / "third.yaml")
    assert third.data.name == "data_other_model_2.py"
    second.recipe.unlink()
    second.data.write_text(second.data.read_text() + "# filled in\n")
    again = write_recipe(other, tmp_path / "other.yaml")
    assert (again.data, again.kept_data) == (second.data, True)
    assert "# filled in" in again.data.read_text()


def test_command_names_both_files(tmp_path: Path) -> None:
    model = dense_onnx(tmp_path / "dense.onnx")
    for words in ("wrote", "kept"):
        told = CliRunner().invoke(cli, ["init", str(model)])
        assert told.exit_code == 0, told.output
        assert f"wrote {tmp_path}/recipe.yaml, {words} {tmp_path}/data.py" in told.output
        (tmp_path / "recipe.yaml").unlink()


def test_target_elsewhere_names_the_file_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "work").mkdir()
    model = dense_onnx(tmp_path / "models" / "dense.onnx")
    for target in (tmp_path / "work", tmp_path / "work" / "other.yaml"):
        loaded = load_recipe(write_recipe(model, target).recipe)
        assert loaded.recipe.source.file == "../models/dense.onnx"
        assert loaded.file("../models/dense.onnx", "source.file") == model


@pytest.mark.parametrize("stem", ["123", "true", "1e3", "Ünïcode", "a: b", "model"])
def test_awkward_file_names_give_valid_recipes(tmp_path: Path, stem: str) -> None:
    loaded = checked(dense_onnx(tmp_path / f"{stem}.onnx"))
    assert loaded.recipe.source.file == f"{stem}.onnx"


def test_name_is_checked(tmp_path: Path) -> None:
    model = dense_onnx(tmp_path / "dense.onnx")
    assert checked(model, name="my-model").recipe.name == "my-model"
    with pytest.raises(RecipeError, match="--name: 'My Model'"):
        write_recipe(model, tmp_path / "other.yaml", name="My Model")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A classifier whose rows are right or wrong."""
    xgboost = pytest.importorskip("xgboost")
    matrix = np.random.default_rng(0).normal(size=(20, 3))
    data = xgboost.DMatrix(matrix, (matrix[:, 0] > 0).astype(int))
    xgboost.train({"objective": "binary:logistic"}, data, 1).save_model(tmp_path / "tree.ubj")
    return tmp_path / "tree.ubj"


def rows_file(folder: Path, rows: int) -> Path:
    np.savez(folder / "rows.npz", features=np.zeros((rows, 4), np.float32), label=np.zeros(rows, np.int64))
    return folder / "rows.npz"


@pytest.mark.parametrize(("rows", "drop"), [(300, 0.01), (298, 0.02), (100, 0.03), (40, 0.1), (8, 0.5)])
def test_budget_is_one_that_the_rows_can_prove(tree: Path, tmp_path: Path, rows: int, drop: float) -> None:
    loaded = checked(tree, given=Given(evaluation=rows_file(tmp_path, rows)))
    assert loaded.recipe.budget.quality_drop == drop
    assert Pairs(0, 0, rows).upper(0.95) <= drop
    text = loaded.path.read_text()
    assert f"# {rows} rows can prove losses under 0." in text and "under 0.01 takes 299 rows" in text
    assert loaded.recipe.evaluation.source == "rows.npz" and not (tmp_path / "data.py").exists()


def test_recipe_says_how_many_rows_its_budget_takes(tmp_path: Path) -> None:
    model = dense_onnx(tmp_path / "dense.onnx")
    assert "under 0.01 takes 485 rows (4 variants, a row right" in checked(model).path.read_text()
    (tmp_path / "recipe.yaml").unlink()
    told = CliRunner().invoke(cli, ["init", str(model), "--evaluation", str(rows_file(tmp_path, 200))])
    assert told.exit_code == 0, told.output
    text = (tmp_path / "recipe.yaml").read_text()
    assert "200 rows can prove losses under 0.0237 (4 variants" in text and "quality_drop: 0.01" in text
    assert all(len(line) <= 130 for line in text.splitlines())
    (tmp_path / "data.py").unlink()
    (tmp_path / "recipe.yaml").unlink()
    checked(model, given=Given(evaluation=tmp_path / "rows.npz"))
    assert "def evaluation" not in (tmp_path / "data.py").read_text()


def test_evaluation_that_is_no_file_of_rows_is_refused(tmp_path: Path) -> None:
    model = dense_onnx(tmp_path / "dense.onnx")
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    for file, words in (
        (tmp_path / "none.npz", "no such file"),
        (tmp_path / "rows.txt", r"give an \.npz, \.csv or \.parquet file"),
        (tmp_path / "broken.npz", r"can't be read as \.npz"),
        (rows_file(tmp_path, 7), r"7 row\(s\) are too few to tell anything; give 8 or more"),
    ):
        with pytest.raises(RecipeError, match=words):
            write_recipe(model, None, given=Given(evaluation=file))
    assert not (tmp_path / "recipe.yaml").exists()


def test_safetensors_recipe_asks_for_loader_and_signature(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"head.weight": np.zeros((3, 4), np.float32)}, tmp_path / "net.safetensors")
    loaded = checked(tmp_path / "net.safetensors")
    text = loaded.path.read_text()
    assert "# 1 tensors, 12 parameters: head.weight [3, 4]" in text
    assert loaded.recipe.source.loader == "model:build"
    assert "TODO: a function in model.py" in text
    assert "TODO: name, dtype and shape" in text
    assert "pruned50-onnx-int8" in text


def test_exported_program_recipe_has_its_signature(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Network(torch.nn.Module):
        def forward(self, x: object) -> object:
            return x + 1  # type: ignore[operator]

    program = torch.export.export(Network().eval(), (torch.ones(3, 4),))
    torch.export.save(program, tmp_path / "net.pt2")
    loaded = checked(tmp_path / "net.pt2")
    assert loaded.recipe.signature is not None
    assert loaded.recipe.signature.inputs["x"].shape == ("batch", 4)
    text = loaded.path.read_text()
    assert "read from the file; batch is dynamic" in text
    assert "loader" not in text


def test_exported_program_that_is_none_is_named(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "net.pt2").write_bytes(b"no program")
    with pytest.raises(RecipeError, match=r"net\.pt2: not a readable \.pt2"):
        checked(tmp_path / "net.pt2")


def test_xgboost_recipe_has_trees_variants_and_metric(tmp_path: Path) -> None:
    xgboost = pytest.importorskip("xgboost")
    matrix = np.random.default_rng(0).normal(size=(20, 3))
    for objective, metric in (("binary:logistic", "accuracy"), ("reg:squarederror", "rmse")):
        folder = tmp_path / metric
        folder.mkdir()
        data = xgboost.DMatrix(matrix, (matrix[:, 0] > 0).astype(int))
        xgboost.train({"objective": objective}, data, 2).save_model(folder / "model.ubj")
        recipe = checked(folder / "model.ubj").recipe
        assert recipe.quality.metric == metric
        assert recipe.calibration is None
        assert [variant.preset for variant in recipe.variants] == ["auto"]
        assert recipe.signature is not None
        assert recipe.signature.inputs["features"].shape == ("batch", 3)
        assert "calibration" not in (folder / "data.py").read_text()


def test_sklearn_recipe_tells_classifier_from_regressor(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LinearRegression, LogisticRegression

    matrix = np.random.default_rng(0).normal(size=(20, 3))
    for model, metric in ((LogisticRegression(), "accuracy"), (LinearRegression(), "rmse")):
        folder = tmp_path / metric
        folder.mkdir()
        skops.dump(model.fit(matrix, (matrix[:, 0] > 0).astype(int)), folder / "model.skops")
        assert checked(folder / "model.skops").recipe.quality.metric == metric


def pipeline_of_columns() -> tuple[Any, dict[str, np.ndarray]]:
    """Return an untrained pipeline over six columns of four kinds, and their rows."""
    from sklearn import compose, impute, linear_model, pipeline, preprocessing

    generator = np.random.default_rng(0)
    words = generator.choice(["Bonn", "Oslo", "Rome"], size=(40, 3)).astype(object)
    rows = {
        "age": generator.normal(size=40).astype(np.float32),
        "city of birth": words[:, 0],
        "rooms": generator.integers(1, 4, 40),
        "grade": words[:, 1],
        "income": generator.normal(size=40).astype(np.float32),
        "city_of_birth": words[:, 2],
    }
    imputer = impute.SimpleImputer(missing_values="", strategy="most_frequent")
    filled = pipeline.make_pipeline(imputer, preprocessing.OneHotEncoder())
    split = compose.ColumnTransformer(
        [
            ("scaled", preprocessing.StandardScaler(), ["income", "age"]),
            ("one hot", preprocessing.OneHotEncoder(), ["city of birth"]),
            ("counted", preprocessing.OneHotEncoder(), ["rooms"]),
            ("ordinal", preprocessing.OrdinalEncoder(), ["grade"]),
            ("filled", filled, ["city_of_birth"]),
        ]
    )
    return pipeline.make_pipeline(split, linear_model.LinearRegression()), rows


def test_sklearn_recipe_has_the_columns_and_their_dtypes(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    pyarrow = pytest.importorskip("pyarrow")
    model, rows = pipeline_of_columns()
    skops.dump(model.fit(pyarrow.table(rows), rows["age"]), tmp_path / "model.skops")
    loaded = checked(tmp_path / "model.skops")
    assert loaded.recipe.signature is not None
    assert {name: spec.dtype for name, spec in loaded.recipe.signature.inputs.items()} == {
        "age": "float32",
        "city of birth": "string",
        "rooms": "int64",
        "grade": "string",
        "income": "float32",
        "city_of_birth": "string",
    }
    assert {spec.shape for spec in loaded.recipe.signature.inputs.values()} == {("batch", 1)}
    assert "# outputs: [prediction] " in loaded.path.read_text()


def test_sklearn_columns_are_the_inputs_without_a_signature(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    pyarrow = pytest.importorskip("pyarrow")
    model, rows = pipeline_of_columns()
    skops.dump(model.fit(pyarrow.table(rows), rows["age"]), tmp_path / "model.skops")
    inputs = {name: column[:, None] for name, column in rows.items()}
    work = ingest(recipe_of_rows(tmp_path, {"file": "model.skops"}, inputs), tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), inputs)


def test_outputs_are_the_models_and_stand_apart_from_the_comment(tmp_path: Path) -> None:
    skops = pytest.importorskip("skops.io")
    from sklearn.linear_model import LogisticRegression

    matrix = np.random.default_rng(0).normal(size=(20, 3))
    skops.dump(LogisticRegression().fit(matrix, (matrix[:, 0] > 0).astype(int)), tmp_path / "model.skops")
    lines = checked(tmp_path / "model.skops").path.read_text().splitlines()
    place = lines.index("  # outputs: [label, probabilities]")
    assert lines[place - 1] == "  # other names, in the model's order; shapes are measured"


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("weights.hdf", r"'\.hdf' tells no framework; known: .*\.keras.*\.onnx"),
        ("weights.h5", r"weights\.h5: not an \.h5 file of Keras"),
        ("model.pkl", "loading a pickle runs code"),
        ("model.pt", "loading a pickle runs code"),
        ("config.json", "no XGBoost model"),
        ("broken.onnx", "not a readable ONNX model"),
        ("broken.safetensors", "not a safetensors file"),
    ],
)
def test_files_that_are_no_model_are_refused_and_leave_nothing(tmp_path: Path, file: str, message: str) -> None:
    from hone.errors import HoneError

    (tmp_path / file).write_text("{}")
    with pytest.raises(HoneError, match=message):
        write_recipe(tmp_path / file, None)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [file]


def test_torchscript_is_refused_with_what_to_write_instead(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.jit.save(torch.jit.script(torch.nn.Linear(3, 2)), tmp_path / "net.pt")
    words = r"net\.pt: is TorchScript .*torch\.export\.save"
    with pytest.raises(RecipeError, match=words):
        write_recipe(tmp_path / "net.pt", None)
    source = {"file": "net.pt", "trust_pickle": True}
    with pytest.raises(RecipeError, match=rf"source\.file: .*{words}") as error:
        recipe_of_rows(tmp_path, source, {"x": np.zeros((8, 3), np.float32)})
    assert "\n" not in str(error.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nothing\.onnx: no such file"):
        write_recipe(tmp_path / "nothing.onnx", None)
