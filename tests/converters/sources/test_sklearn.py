"""scikit-learn models: ingest, run, export, and every mistake that a recipe can make with them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hone.converters import sources
from hone.errors import ArtifactError, PassError, RecipeError
from tests.later import later
from tests.sources import Work, assert_agree, export, ingest, run, write_recipe

sklearn, skops = later("sklearn"), later("skops.io")
cluster, compose, ensemble = later("sklearn.cluster"), later("sklearn.compose"), later("sklearn.ensemble")
linear_model, neighbors = later("sklearn.linear_model"), later("sklearn.neighbors")
neural_network, pipeline = later("sklearn.neural_network"), later("sklearn.pipeline")
preprocessing, svm, tree = later("sklearn.preprocessing"), later("sklearn.svm"), later("sklearn.tree")

FEATURES = 4


def table() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(5)
    matrix = generator.normal(size=(90, FEATURES)).astype(np.float32)
    return matrix, np.digitize(matrix[:, 0] + matrix[:, 1] ** 2, [0.0, 1.5])


def saved(folder: Path, model: Any, matrix: np.ndarray | None = None, **fields: Any) -> Work:
    """Save a fitted model as skops and ingest it through a recipe."""
    folder.mkdir(exist_ok=True)
    skops.dump(model, folder / "model.skops")
    rows = {"features": table()[0] if matrix is None else matrix}
    return ingest(write_recipe(folder, {"file": "model.skops"}, rows, **fields), folder / "source")


MODELS = {
    "logistic": lambda: pipeline.make_pipeline(preprocessing.StandardScaler(), linear_model.LogisticRegression()),
    "forest": lambda: ensemble.RandomForestClassifier(5, random_state=0),
    "boosting": lambda: ensemble.GradientBoostingClassifier(n_estimators=5),
    "histogram": lambda: ensemble.HistGradientBoostingClassifier(max_iter=5),
    "neighbors": lambda: neighbors.KNeighborsClassifier(3),
    "network": lambda: neural_network.MLPClassifier((4,), max_iter=30),
    "no probabilities": lambda: svm.SVC(),
    "linear regression": lambda: linear_model.LinearRegression(),
    "tree regression": lambda: tree.DecisionTreeRegressor(max_depth=4),
    "histogram regression": lambda: ensemble.HistGradientBoostingRegressor(max_iter=5),
    "isolation forest": lambda: ensemble.IsolationForest(n_estimators=5, random_state=0),
    "clusters": lambda: cluster.KMeans(3, n_init=1, random_state=0),
    "scaler": lambda: preprocessing.StandardScaler(),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MODELS)
def test_export_gives_what_the_estimator_gives(tmp_path: Path, name: str) -> None:
    matrix, target = table()
    work = saved(tmp_path / "model", MODELS[name]().fit(matrix, target))
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": matrix})


@pytest.mark.parametrize(
    "given", [{}, {"max_features": 0.5, "contamination": 0.2}, {"max_samples": 2}, {"max_samples": 1}]
)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_isolation_forest_is_one_ensemble_of_trees(tmp_path: Path, given: dict[str, Any], dtype: str) -> None:
    matrix = table()[0].astype(dtype)
    matrix[::7, 1] = np.nan
    forest = ensemble.IsolationForest(n_estimators=9, random_state=1, **given).fit(matrix)
    features = {"dtype": dtype, "shape": ["batch", FEATURES], "allow_nan": True}
    signature = {"inputs": {"features": features}, "outputs": ["label", "scores"]}
    work = saved(tmp_path / "model", forest, matrix, signature=signature)
    exported = export(work, tmp_path / "onnx")
    answers = run(exported, {"features": matrix})
    np.testing.assert_allclose(answers["scores"].reshape(-1), forest.decision_function(matrix), atol=1e-6)
    certain = np.abs(forest.decision_function(matrix)) > 1e-6
    assert (answers["label"].reshape(-1) == forest.predict(matrix))[certain].all()
    kinds = [node.op_type for node in onnx.load(exported.entry).graph.node]
    assert kinds.count("TreeEnsembleRegressor") == 1 and len(kinds) < 15


def test_baseline_gives_what_scikit_learn_itself_gives(tmp_path: Path) -> None:
    matrix, target = table()
    model = MODELS["forest"]().fit(matrix, target)
    outputs = run(saved(tmp_path, model).artifact, {"features": matrix})
    assert outputs["label"].tolist() == model.predict(matrix).tolist()
    np.testing.assert_allclose(outputs["probabilities"], model.predict_proba(matrix), atol=1e-7)


def test_string_labels_and_binary_classes(tmp_path: Path) -> None:
    matrix, target = table()
    model = linear_model.LogisticRegression().fit(matrix, np.array(["no", "yes"])[(target > 0).astype(int)])
    work = saved(tmp_path, model)
    assert [spec.describe() for spec in work.artifact.signature.outputs] == ["string[batch]", "float32[batch, 2]"]
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": matrix})


def test_double_inputs_keep_double_thresholds(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    matrix = generator.normal(size=(90, FEATURES))
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), tree.DecisionTreeRegressor())
    signature = {"inputs": {"features": {"dtype": "float64", "shape": ["batch", FEATURES]}}}
    work = saved(tmp_path, model.fit(matrix, matrix[:, 0]), matrix, signature=signature)
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": matrix})


def test_several_targets_keep_their_axis(tmp_path: Path) -> None:
    matrix, target = table()
    model = linear_model.LinearRegression().fit(matrix, np.stack([target, -target], axis=1))
    work = saved(tmp_path, model)
    assert work.artifact.signature.outputs[0].describe() == "float32[batch, 2]"
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": matrix})


def columns() -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(2)
    age, income = (generator.normal(size=(60, 1)).astype(np.float32) for _ in range(2))
    city = generator.choice(["Bonn", "Oslo", "Rome"], size=(60, 1)).astype(object)
    return {"age": age, "income": income, "city": city}, ((age > 0) ^ (city == "Oslo"))[:, 0].astype(int)


def mixed(numbers: list[Any], text: list[Any]) -> Any:
    split = compose.ColumnTransformer(
        [("numbers", preprocessing.StandardScaler(), numbers), ("text", preprocessing.OneHotEncoder(), text)]
    )
    return pipeline.Pipeline([("split", split), ("model", linear_model.LogisticRegression())])


COLUMN_INPUTS = {
    "inputs": {
        "age": {"shape": ["batch", 1]},
        "income": {"shape": ["batch", 1]},
        "city": {"dtype": "string", "shape": ["batch", 1]},
    }
}


def test_columns_of_numbers_and_strings_by_index(tmp_path: Path) -> None:
    rows, target = columns()
    model = mixed([0, 1], [2]).fit(np.hstack([array.astype(object) for array in rows.values()]), target)
    skops.dump(model, tmp_path / "model.skops")
    loaded = write_recipe(tmp_path, {"file": "model.skops"}, rows, signature=COLUMN_INPUTS)
    work = ingest(loaded, tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), rows)


def test_columns_by_name_of_a_data_frame(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    rows, target = columns()
    frame = pyarrow.table({name: array[:, 0] for name, array in rows.items()})
    skops.dump(mixed(["age", "income"], ["city"]).fit(frame, target), tmp_path / "model.skops")
    loaded = write_recipe(tmp_path, {"file": "model.skops"}, rows, signature=COLUMN_INPUTS)
    work = ingest(loaded, tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), rows)
    swapped = {"inputs": dict(reversed(COLUMN_INPUTS["inputs"].items()))}
    with pytest.raises(RecipeError, match="in order: age, income, city"):
        ingest(write_recipe(tmp_path, {"file": "model.skops"}, rows, signature=swapped), tmp_path / "swapped")


def test_number_columns_of_a_plain_model_are_joined(tmp_path: Path) -> None:
    matrix, target = table()
    skops.dump(tree.DecisionTreeClassifier(max_depth=3).fit(matrix, target), tmp_path / "model.skops")
    rows = {f"x{index}": matrix[:, [index]] for index in range(FEATURES)}
    signature = {"inputs": {name: {"shape": ["batch", 1]} for name in rows}, "outputs": ["probabilities"]}
    work = ingest(write_recipe(tmp_path, {"file": "model.skops"}, rows, signature=signature), tmp_path / "source")
    assert_agree(work, export(work, tmp_path / "onnx"), rows)


LOADER = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
class Halve(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self
    def transform(self, X):
        return X / 2
def model():
    X = np.random.default_rng(0).normal(size=(40, 4))
    return make_pipeline(Halve(), LogisticRegression()).fit(X, X[:, 0] > 0)
def unfitted():
    return LogisticRegression()
def several():
    from sklearn.ensemble import RandomForestClassifier
    X = np.random.default_rng(0).normal(size=(40, 4))
    return RandomForestClassifier(2).fit(X, (X[:, :2] > 0).astype(int))
"""


def from_loader(folder: Path, name: str) -> Any:
    (folder / "sk_models.py").write_text(LOADER)
    return write_recipe(folder, {"loader": f"sk_models:{name}"}, {"features": table()[0]})


def test_own_transformer_runs_as_baseline_and_is_named_by_export(tmp_path: Path) -> None:
    work = ingest(from_loader(tmp_path, "model"), tmp_path / "source")
    assert work.artifact.manifest.runtime_options["trusted"] == ["sk_models.Halve"]
    assert run(work.artifact, {"features": table()[0]})["label"].dtype == np.int64
    with pytest.raises(PassError, match=r"step 'halve' \(Halve\)"):
        export(work, tmp_path / "onnx")


@pytest.mark.parametrize(("name", "message"), [("unfitted", "not fitted"), ("several", "several targets")])
def test_loader_mistakes_are_named(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        ingest(from_loader(tmp_path, name), tmp_path / "source")


def test_untrusted_types_of_a_skops_file_are_listed(tmp_path: Path) -> None:
    work = ingest(from_loader(tmp_path, "model"), tmp_path / "source")
    (tmp_path / "model.skops").write_bytes(work.artifact.entry.read_bytes())
    rows = {"features": table()[0]}
    with pytest.raises(RecipeError, match=r"sk_models\.Halve; set 'trust_pickle: true'"):
        ingest(write_recipe(tmp_path, {"file": "model.skops"}, rows), tmp_path / "refused")
    trusting = write_recipe(tmp_path, {"file": "model.skops", "trust_pickle": True}, rows)
    assert ingest(trusting, tmp_path / "trusted").artifact.manifest.runtime_options["trusted"] == ["sk_models.Halve"]


def test_runtime_refuses_types_that_the_artifact_does_not_trust(tmp_path: Path) -> None:
    work = ingest(from_loader(tmp_path, "model"), tmp_path / "source")
    stripped = work.artifact.with_manifest(runtime_options={})
    from hone import runtimes

    with pytest.raises(ArtifactError, match=r"not trusted: sk_models\.Halve"):
        runtimes.load(stripped)


class Bomb:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_pickle_is_not_loaded_without_trust(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(RecipeError, match="trust_pickle"):
        write_recipe(tmp_path, {"file": "model.pkl"}, {"features": table()[0]})
    assert sources.get("sklearn").inspect(tmp_path / "model.pkl") is None
    assert not (tmp_path / "exploded").exists()


def test_trusted_pickle_is_saved_as_skops(tmp_path: Path) -> None:
    matrix, target = table()
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(MODELS["forest"]().fit(matrix, target)))
    loaded = write_recipe(tmp_path, {"file": "model.pkl", "trust_pickle": True}, {"features": matrix})
    work = ingest(loaded, tmp_path / "source")
    assert work.artifact.manifest.entry == "model.skops"
    assert_agree(work, export(work, tmp_path / "onnx"), {"features": matrix})


def test_pickle_of_another_framework_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps({"weights": [1, 2]}))
    loaded = write_recipe(tmp_path, {"file": "model.pkl", "trust_pickle": True}, {"features": table()[0]})
    with pytest.raises(RecipeError, match="dict, not a scikit-learn estimator"):
        ingest(loaded, tmp_path / "source")


def test_corrupt_skops_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.skops").write_bytes(b"PK\x03\x04 but no archive")
    with pytest.raises(RecipeError, match="not a readable skops file"):
        ingest(write_recipe(tmp_path, {"file": "model.skops"}, {"features": table()[0]}), tmp_path / "source")


def test_unknown_output_lists_what_the_model_has(tmp_path: Path) -> None:
    matrix, target = table()
    signature = {"inputs": {"features": {"shape": ["batch", FEATURES]}}, "outputs": ["scores"]}
    with pytest.raises(RecipeError, match="'label', 'probabilities'"):
        saved(tmp_path, MODELS["forest"]().fit(matrix, target), signature=signature)


def test_columns_that_do_not_fit_the_model_are_named(tmp_path: Path) -> None:
    matrix, target = table()
    signature = {"inputs": {"features": {"shape": ["batch", 3]}}}
    with pytest.raises(RecipeError, match="3 columns, the model was fitted on 4"):
        saved(tmp_path, MODELS["forest"]().fit(matrix, target), signature=signature)


def test_categorical_splits_are_refused_by_export(tmp_path: Path) -> None:
    matrix = np.tile(np.arange(6, dtype=np.float32), 20)[:, None]
    model = ensemble.HistGradientBoostingRegressor(max_iter=3, categorical_features=[0]).fit(matrix, matrix[:, 0] % 2)
    skops.dump(model, tmp_path / "model.skops")
    loaded = write_recipe(tmp_path, {"file": "model.skops", "trust_pickle": True}, {"features": matrix})
    work = ingest(loaded, tmp_path / "source")
    with pytest.raises(PassError, match="splits on categories"):
        export(work, tmp_path / "onnx")


def test_inspect_reads_the_number_of_columns(tmp_path: Path) -> None:
    skops.dump(MODELS["forest"]().fit(*table()), tmp_path / "model.skops")
    signature = sources.get("sklearn").inspect(tmp_path / "model.skops")
    assert signature is not None
    assert signature.inputs[0].describe() == "float32[batch, 4]"
