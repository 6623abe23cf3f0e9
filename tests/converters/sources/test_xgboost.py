"""XGBoost models: ingest, run, export, and every mistake that a recipe can make with them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hone.artifact import Artifact
from hone.converters import sources
from hone.errors import ArtifactError, RecipeError
from tests.later import later
from tests.models.categories import categories, odd_categories
from tests.sources import assert_agree, export, ingest, run, write_recipe

xgboost = later("xgboost")

FEATURES = 5


def table(rows: int = 80, missing: bool = False) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(rows, FEATURES)).astype(np.float32)
    target = matrix[:, 0] - 2 * matrix[:, 1] + matrix[:, 2] * matrix[:, 3]
    if missing:
        matrix[generator.random(matrix.shape) < 0.2] = np.nan
    return matrix, target


def trained(objective: str, *, missing: bool = False, rounds: int = 6, **parameters: Any) -> Any:
    matrix, target = table(missing=missing)
    if objective.startswith("multi:"):
        target, parameters["num_class"] = np.digitize(target, [-1.0, 1.0]), 3
    elif objective in ("binary:logistic", "binary:hinge", "binary:logitraw"):
        target = (target > 0).astype(int)
    elif objective == "reg:logistic":
        target = 1 / (1 + np.exp(-target))
    elif objective != "reg:squarederror":
        target = np.abs(target) + 0.1
    settings = {"objective": objective, "max_depth": 3, "nthread": 1, **parameters}
    return xgboost.train(settings, xgboost.DMatrix(matrix, target), rounds)


OBJECTIVES = (
    "binary:logistic", "multi:softprob", "multi:softmax", "reg:squarederror", "reg:logistic", "binary:logitraw",
    "binary:hinge", "count:poisson", "reg:gamma", "reg:tweedie", "reg:absoluteerror", "survival:cox",
)  # fmt: skip


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_export_gives_what_the_booster_gives(tmp_path: Path, objective: str) -> None:
    booster = trained(objective)
    booster.save_model(tmp_path / "model.ubj")
    features = table()[0]
    work = ingest(write_recipe(tmp_path, {"file": "model.ubj"}, {"features": features}), tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": features}, 1e-4 if "reg" in objective else 1e-5)


@pytest.mark.parametrize(
    ("objective", "parameters"),
    [
        ("binary:logistic", {"booster": "dart", "rate_drop": 0.5}),
        ("multi:softprob", {"num_parallel_tree": 3, "subsample": 0.5, "seed": 1}),
        ("binary:logistic", {"base_score": 0.1}),
    ],
)
def test_forests_dart_and_base_scores_agree(tmp_path: Path, objective: str, parameters: dict[str, Any]) -> None:
    trained(objective, **parameters).save_model(tmp_path / "model.json")
    features = table()[0]
    work = ingest(write_recipe(tmp_path, {"file": "model.json"}, {"features": features}), tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": features})


def test_baseline_gives_what_xgboost_itself_gives(tmp_path: Path) -> None:
    booster = trained("multi:softprob")
    booster.save_model(tmp_path / "model.ubj")
    features = table()[0]
    work = ingest(write_recipe(tmp_path, {"file": "model.ubj"}, {"features": features}), tmp_path / "source")
    outputs = run(work.artifact, {"features": features})
    wanted = booster.predict(xgboost.DMatrix(features))
    assert outputs["label"].tolist() == wanted.argmax(axis=1).tolist()
    np.testing.assert_array_equal(outputs["probabilities"], wanted)


def test_missing_values_go_where_the_trees_send_them(tmp_path: Path) -> None:
    trained("binary:logistic", missing=True).save_model(tmp_path / "model.ubj")
    features = table(missing=True)[0]
    spec = {"inputs": {"features": {"shape": ["batch", FEATURES], "allow_nan": True}}}
    loaded = write_recipe(tmp_path, {"file": "model.ubj"}, {"features": features}, signature=spec)
    work = ingest(loaded, tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": features})


LOADER = """
import numpy as np, xgboost
def table():
    generator = np.random.default_rng(3)
    matrix = generator.normal(size=(80, 5)).astype(np.float32)
    return matrix, matrix[:, 0] - 2 * matrix[:, 1]
def classifier():
    matrix, target = table()
    model = xgboost.XGBClassifier(n_estimators=60, max_depth=2, early_stopping_rounds=2, n_jobs=1)
    half = matrix[40:], (np.random.default_rng(0).random(40) > 0.5).astype(int)
    return model.fit(matrix[:40], (target[:40] > 0).astype(int), eval_set=[half], verbose=False)
def regressor():
    matrix, target = table()
    return xgboost.XGBRegressor(n_estimators=5, max_depth=2).fit(matrix, np.stack([target, -target], axis=1))
def untrained():
    return xgboost.XGBRegressor()
def wrong():
    return {"not": "a model"}
def zeros_are_missing():
    matrix, target = table()
    return xgboost.XGBRegressor(n_estimators=2, missing=0.0).fit(matrix, target)
"""


def from_loader(folder: Path, name: str, **fields: Any) -> Any:
    folder.mkdir(exist_ok=True)
    (folder / "xgb_models.py").write_text(LOADER)
    return write_recipe(folder, {"loader": f"xgb_models:{name}"}, {"features": table()[0]}, **fields)


def test_early_stopping_keeps_the_best_iterations_only(tmp_path: Path) -> None:
    loaded = from_loader(tmp_path, "classifier")
    work = ingest(loaded, tmp_path / "source")
    import xgb_models

    model = xgb_models.classifier()
    features = table()[0]
    np.testing.assert_allclose(
        run(work.artifact, {"features": features})["probabilities"], model.predict_proba(features), atol=1e-6
    )
    graph = export(work, tmp_path / "onnx")
    assert_agree(work, graph, {"features": features})
    assert model.best_iteration + 1 < model.get_booster().num_boosted_rounds()


def test_several_targets_keep_their_axis(tmp_path: Path) -> None:
    work = ingest(from_loader(tmp_path, "regressor"), tmp_path / "source")
    assert work.artifact.signature.outputs[0].describe() == "float32[batch, 2]"
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": table()[0]}, 1e-4)


def test_one_input_per_column_with_other_dtypes(tmp_path: Path) -> None:
    matrix = np.round(table()[0] * 4)
    booster = xgboost.train({"max_depth": 3}, xgboost.DMatrix(matrix, matrix.sum(axis=1)), 4)
    booster.save_model(tmp_path / "model.ubj")
    types = ["float32", "float64", "int64", "int32", "float32"]
    rows = {f"column_{i}": matrix[:, [i]].astype(types[i]) for i in range(FEATURES)}
    rows["column_4"] = rows["column_4"][:, 0]
    inputs = {name: {"dtype": str(a.dtype), "shape": ["batch", *a.shape[1:]]} for name, a in rows.items()}
    loaded = write_recipe(tmp_path, {"file": "model.ubj"}, rows, signature={"inputs": inputs})
    work = ingest(loaded, tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), rows, 1e-4)


def test_outputs_are_chosen_and_renamed_by_the_signature(tmp_path: Path) -> None:
    trained("binary:logistic").save_model(tmp_path / "model.ubj")
    features = table()[0]
    inputs = {"features": {"shape": ["batch", FEATURES]}}
    for number, outputs in enumerate((["probabilities"], ["probabilities", "label"], ["class", "chances"])):
        signature = {"inputs": inputs, "outputs": outputs}
        loaded = write_recipe(
            tmp_path / str(number), {"file": "../model.ubj"}, {"features": features}, signature=signature
        )
        work = ingest(loaded, tmp_path / f"source{number}")
        assert work.artifact.signature.output_names == outputs
        assert_agree(work, export(work, tmp_path / f"onnx{number}"), {"features": features})


def test_unknown_output_lists_what_the_model_has(tmp_path: Path) -> None:
    trained("binary:logistic").save_model(tmp_path / "model.ubj")
    signature = {"inputs": {"features": {"shape": ["batch", FEATURES]}}, "outputs": ["scores"]}
    loaded = write_recipe(tmp_path, {"file": "model.ubj"}, {"features": table()[0]}, signature=signature)
    with pytest.raises(RecipeError, match=r"signature.*scores.*'label', 'probabilities'"):
        ingest(loaded, tmp_path / "source")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("untrained", "not trained"),
        ("wrong", "no model of"),
        ("zeros_are_missing", "missing=0.0"),
    ],
)
def test_loader_mistakes_are_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ingest(from_loader(tmp_path, name), tmp_path / "source")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.json", b'{"layers": []}', "no XGBoost model"),
        ("model.json", b"not json", "not readable JSON"),
        ("model.ubj", b"\x00\x01nonsense", "not a readable XGBoost model"),
    ],
)
def test_files_that_are_no_model_are_refused(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (tmp_path / file).write_bytes(content)
    with pytest.raises(RecipeError, match=message) as caught:
        ingest(write_recipe(tmp_path, {"file": file}, {"features": table()[0]}), tmp_path / "source")
    assert "\n" not in str(caught.value)


def test_truncated_file_is_refused_on_load(tmp_path: Path) -> None:
    trained("binary:logistic").save_model(tmp_path / "model.ubj")
    loaded = write_recipe(tmp_path, {"file": "model.ubj"}, {"features": table()[0]})
    work = ingest(loaded, tmp_path / "source")
    work.artifact.entry.write_bytes(work.artifact.entry.read_bytes()[:100])
    with pytest.raises(ArtifactError, match="corrupt"):
        Artifact.open(work.artifact.path)


def test_pickle_needs_trust_and_the_framework(tmp_path: Path) -> None:
    model = xgboost.XGBRegressor(n_estimators=2).fit(*table())
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    features = {"features": table()[0]}
    with pytest.raises(RecipeError, match="trust_pickle"):
        write_recipe(tmp_path, {"file": "model.pkl"}, features)
    loaded = write_recipe(tmp_path, {"file": "model.pkl", "trust_pickle": True, "framework": "xgboost"}, features)
    work = ingest(loaded, tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), features)


def test_linear_boosters_are_refused(tmp_path: Path) -> None:
    trained("reg:squarederror", booster="gblinear").save_model(tmp_path / "model.ubj")
    with pytest.raises(RecipeError, match="gblinear"):
        ingest(write_recipe(tmp_path, {"file": "model.ubj"}, {"features": table()[0]}), tmp_path / "source")


@pytest.mark.parametrize("count", [4, 40, 3000])
@pytest.mark.parametrize("missing", [True, False])
def test_categorical_splits_are_exact(tmp_path: Path, count: int, missing: bool) -> None:
    features, target = categories(4 * count + 300, count, missing)
    data = xgboost.DMatrix(features, target, feature_types=["c", "q", "c"], enable_categorical=True)
    settings = {"objective": "binary:logistic", "max_depth": 4, "max_cat_to_onehot": 5, "nthread": 1}
    booster = xgboost.train(settings, data, 5)
    booster.save_model(tmp_path / "model.ubj")
    plain = {"features": categories(50, count, False)[0]}
    work = ingest(write_recipe(tmp_path, {"file": "model.ubj"}, plain), tmp_path / "source")
    rows = {"features": np.concatenate([features, odd_categories(count)])}
    made = export(work, tmp_path / "onnx")
    assert_agree(work, made, rows, 1e-6)
    wanted = booster.inplace_predict(rows["features"])
    np.testing.assert_allclose(run(made, rows)["probabilities"][:, 1], wanted, atol=1e-6)


def test_columns_that_do_not_fit_the_features_are_named(tmp_path: Path) -> None:
    trained("binary:logistic").save_model(tmp_path / "model.ubj")
    signature = {"inputs": {"features": {"shape": ["batch", 3]}}}
    loaded = write_recipe(tmp_path, {"file": "model.ubj"}, {"features": table()[0]}, signature=signature)
    with pytest.raises(RecipeError, match="3 columns, the model has 5"):
        ingest(loaded, tmp_path / "source")


def test_inspect_reads_the_number_of_features(tmp_path: Path) -> None:
    trained("binary:logistic").save_model(tmp_path / "model.ubj")
    signature = sources.get("xgboost").inspect(tmp_path / "model.ubj")
    assert signature is not None
    assert signature.inputs[0].describe() == "float32[batch, 5]"
