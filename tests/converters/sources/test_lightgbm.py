"""LightGBM models: ingest, run, export, and the mistakes that a recipe can make with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.converters.sources.trees.boosted_trees import rounded_down
from hone.converters.sources.trees.category_sets import checked_set
from hone.errors import PassError, RecipeError
from tests.later import later
from tests.models.categories import categories, odd_categories
from tests.sources import assert_agree, export, ingest, run, write_recipe

lightgbm = later("lightgbm")

FEATURES = 5


def table(rows: int = 300, missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(rows, FEATURES)).astype(np.float32)
    matrix[:, 4] = generator.integers(-2, 3, rows)  # values that are thresholds, too
    target = matrix[:, 0] - 2 * matrix[:, 1] + matrix[:, 2] * matrix[:, 3] + matrix[:, 4]
    if missing:
        matrix[generator.random(matrix.shape) < 0.2] = np.nan
    return matrix, target


def trained(objective: str, *, missing: bool = False, rounds: int = 8, **parameters: Any) -> Any:
    matrix, target = table(missing=missing)
    if objective.startswith("multiclass"):
        target, parameters["num_class"] = np.digitize(target, [-1.0, 1.0]), 3
    elif objective == "binary":
        target = (target > 0).astype(int)
    elif objective == "cross_entropy":
        target = 1 / (1 + np.exp(-target))
    elif objective != "regression":
        target = np.abs(target) + 0.1
    settings = {"objective": objective, "num_leaves": 7, "num_threads": 1, "verbose": -1, **parameters}
    return lightgbm.train(settings, lightgbm.Dataset(matrix, target), rounds)


def saved(folder: Path, booster: Any, features: np.ndarray) -> Any:
    booster.save_model(folder / "model.txt")
    return ingest(write_recipe(folder, {"file": "model.txt"}, {"features": features}), folder / "source")


@pytest.mark.parametrize(
    "objective",
    ["binary", "multiclass", "regression", "regression_l1", "huber", "quantile", "poisson", "gamma", "cross_entropy"],
)
def test_export_gives_what_the_booster_gives(tmp_path: Path, objective: str) -> None:
    features = table()[0]
    work = saved(tmp_path, trained(objective), features)
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": features}, 1e-4)


@pytest.mark.parametrize("trained_with_missing", [True, False])
def test_missing_values_take_the_same_side(tmp_path: Path, trained_with_missing: bool) -> None:
    features = table(missing=True)[0]
    booster = trained("binary", missing=trained_with_missing)
    booster.save_model(tmp_path / "model.txt")
    recipe = write_recipe(tmp_path, {"file": "model.txt"}, {"features": table()[0]})
    work = ingest(recipe, tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": features}, 1e-4)


def test_random_forest_is_averaged_and_sigmoid_scaled(tmp_path: Path) -> None:
    features = table()[0]
    booster = trained("binary", boosting="rf", bagging_freq=1, bagging_fraction=0.6, sigmoid=0.7)
    work = saved(tmp_path, booster, features)
    made = export(work, tmp_path / "onnx")
    assert_agree(work, made, {"features": features}, 1e-4)
    np.testing.assert_allclose(
        run(made, {"features": features})["probabilities"][:, 1], booster.predict(features), atol=1e-5
    )


def test_estimator_by_loader_and_early_stopping(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "import lightgbm, numpy as np\n"
        "def model():\n"
        "    x = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)\n"
        "    y = (x[:, 0] > 0).astype(int)\n"
        "    stop = lightgbm.early_stopping(2, verbose=False)\n"
        "    found = lightgbm.LGBMClassifier(n_estimators=200, num_leaves=4, verbose=-1, n_jobs=1)\n"
        "    return found.fit(x[:150], y[:150], eval_set=[(x[150:], y[150:])], callbacks=[stop])\n"
    )
    features = table()[0]
    work = ingest(write_recipe(tmp_path, {"loader": "net:model"}, {"features": features}), tmp_path / "source")
    assert work.artifact.runtime == "lightgbm"
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": features}, 1e-4)


@pytest.mark.parametrize("count", [4, 40, 3000])
@pytest.mark.parametrize("missing", [True, False])
def test_categorical_splits_are_exact(tmp_path: Path, count: int, missing: bool) -> None:
    features, target = categories(4 * count + 300, count, missing)
    settings = {
        "objective": "binary", "num_leaves": 7, "num_threads": 1, "verbose": -1, "min_data_in_leaf": 2,
        "min_data_per_group": 2, "cat_smooth": 1, "cat_l2": 0, "max_cat_threshold": count,
    }  # fmt: skip
    data = lightgbm.Dataset(features, target, categorical_feature=[0, 2])
    booster = lightgbm.train(settings, data, 5)
    assert "==" in str(booster.dump_model())
    work = saved(tmp_path, booster, categories(50, count, False)[0])
    rows = {"features": np.concatenate([features, odd_categories(count)])}
    made = export(work, tmp_path / "onnx")
    assert_agree(work, made, rows, 1e-6)
    np.testing.assert_allclose(run(made, rows)["probabilities"][:, 1], booster.predict(rows["features"]), atol=1e-6)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"zero_as_missing": True}, "zero_as_missing=false"),
        ({"objective": "regression", "reg_sqrt": True}, "has no ONNX form"),
        ({"objective": "multiclassova"}, "has no ONNX form"),
        ({"objective": "regression", "linear_tree": True}, "linear_tree=false"),
    ],
)
def test_what_onnx_cant_express_is_refused(tmp_path: Path, parameters: dict[str, Any], words: str) -> None:
    features = np.abs(table()[0])
    matrix, target = features, table()[1]
    objective = parameters.pop("objective", "binary")
    settings = {
        "objective": objective,
        "num_leaves": 7,
        "verbose": -1,
        "num_threads": 1,
        "min_data_per_group": 5,
        **parameters,
    }
    target = (
        np.digitize(target, [-1.0, 1.0]) if "multi" in objective else target if objective != "binary" else target > 0
    )
    if "multi" in objective:
        settings["num_class"] = 3
    booster = lightgbm.train(settings, lightgbm.Dataset(matrix, target, params=settings), 5)
    work = saved(tmp_path, booster, features)
    with pytest.raises(PassError, match=words):
        export(work, tmp_path / "onnx")


@pytest.mark.parametrize(
    ("content", "words"),
    [("not a model", "not a LightGBM model"), ("tree\nnum_class=1\n", "not a readable LightGBM model")],
)
def test_broken_files_are_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "model.txt").write_text(content)
    with pytest.raises(RecipeError, match=words):
        ingest(write_recipe(tmp_path, {"file": "model.txt"}, {"features": table()[0]}), tmp_path / "source")


def test_columns_must_be_as_many_as_features(tmp_path: Path) -> None:
    trained("binary").save_model(tmp_path / "model.txt")
    recipe = write_recipe(
        tmp_path,
        {"file": "model.txt"},
        {"features": table()[0][:, :3]},
        signature={"inputs": {"features": {"dtype": "float32", "shape": ["batch", 3]}}},
    )
    with pytest.raises(RecipeError, match="have 3 columns, the model has 5 features"):
        ingest(recipe, tmp_path / "source")


def test_categories_that_float32_cant_tell_apart_are_refused() -> None:
    assert checked_set(["16777215", "3"], 4) == [3, 16777215]
    with pytest.raises(PassError, match="tree 4 splits on category 16777216"):
        checked_set(["3", "16777216"], 4)


def test_float32_values_stay_on_their_side_of_a_float64_threshold() -> None:
    generator = np.random.default_rng(0)
    for value in generator.normal(size=200).astype(np.float32):
        for threshold in (
            float(value),
            float(value) + 1e-12,
            float(value) - 1e-12,
            float(np.nextafter(value, np.float32(9))),
        ):
            assert (value <= np.float32(rounded_down(threshold))) == (float(value) <= threshold)
