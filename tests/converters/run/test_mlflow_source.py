"""Models of MLflow's registry as sources: what other tools logged, and what Hone put there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from hone.converters.run.mlflow_source import local_source
from hone.converters.run.prepare import prepare
from hone.converters.sources import for_recipe
from hone.errors import ArtifactError, RecipeError
from hone.lifecycle.registry.mlflow_mirror import push
from hone.recipe import load_recipe
from hone.store.mlflow_client import Place
from tests.lifecycle.registry.versions import LABELS, ROWS, proven
from tests.models.dense import dense_onnx

pytestmark = pytest.mark.slow  # importing MLflow takes seconds


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return Place(uri, str(tmp_path / "artifacts"))


def recipe(folder: Path, file: str, **source: object) -> Path:
    np.savez(folder / "rows.npz", features=ROWS, label=LABELS)
    content = {
        "name": "dense",
        "source": {"file": file, **source},
        "evaluation": "rows.npz",
        "quality": {"metric": "likeness"},
        "variants": ["onnx-fp32"],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def logged(place: Place, saved: Path) -> None:
    """Register a folder that one of MLflow's flavors wrote, as `log_model` would."""
    from mlflow import MlflowClient

    client = MlflowClient(place.uri, place.uri)
    run = client.create_run(client.create_experiment("training", place.artifacts))
    client.log_artifacts(run.info.run_id, str(saved), "model")
    client.create_registered_model("trained")
    version = client.create_model_version("trained", f"{run.info.artifact_uri}/model", run_id=run.info.run_id)
    client.set_registered_model_alias("trained", "best", version.version)


def test_hone_s_own_version_is_optimized_further(tmp_path: Path, place: Place) -> None:
    proven(tmp_path, "a")
    push("dense", place)
    prepared = prepare(recipe(tmp_path, "models:/dense/1"), tmp_path / "sources", tmp_path / "evaluation.npz")
    assert prepared.framework == "onnx"
    assert "version 1 of MLflow's 'dense', Hone's dense:a" in prepared.note


def test_an_onnx_model_that_training_code_logged_is_read_by_its_alias(tmp_path: Path, place: Place) -> None:
    import mlflow.onnx
    import onnx

    mlflow.onnx.save_model(onnx.load(dense_onnx(tmp_path / "model.onnx")), tmp_path / "saved")
    logged(place, tmp_path / "saved")
    prepared = prepare(recipe(tmp_path, "models:/trained@best"), tmp_path / "sources", tmp_path / "evaluation.npz")
    assert (prepared.framework, prepared.note) == ("onnx", "the source is version 1 of MLflow's 'trained'")


def test_trees_keep_their_framework(tmp_path: Path, place: Place) -> None:
    import lightgbm
    import mlflow.lightgbm

    told = {"objective": "multiclass", "num_class": 3, "verbosity": -1}
    trained = lightgbm.train(told, lightgbm.Dataset(ROWS, LABELS), 2)
    mlflow.lightgbm.save_model(trained, tmp_path / "saved")
    logged(place, tmp_path / "saved")
    with local_source(load_recipe(recipe(tmp_path, "models:/trained/1"))) as (loaded, _):
        assert for_recipe(loaded).name == "lightgbm"
        assert Path(str(loaded.recipe.source.file)).is_file()


def test_a_pickle_needs_trust(tmp_path: Path, place: Place) -> None:
    import mlflow.sklearn
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression().fit(ROWS, LABELS)
    mlflow.sklearn.save_model(model, tmp_path / "saved", serialization_format="pickle")
    logged(place, tmp_path / "saved")
    with (
        pytest.raises(RecipeError, match=r"models:/trained@best is a pickle \(model.pkl\).*trust_pickle"),
        local_source(load_recipe(recipe(tmp_path, "models:/trained@best"))),
    ):
        pass
    with local_source(load_recipe(recipe(tmp_path, "models:/trained@best", trust_pickle=True))) as (loaded, _):
        assert for_recipe(loaded).name == "sklearn"


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("models:/nothing@champion", "MLflow has no models:/nothing@champion"),
        ("models:/dense", "'models:/dense' is not models:/NAME@ALIAS or models:/NAME/NUMBER"),
        ("models:/dense/7", "MLflow has no models:/dense/7"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path: Path, place: Place, file: str, words: str) -> None:
    with pytest.raises(RecipeError) as error:
        prepare(recipe(tmp_path, file), tmp_path / "sources", tmp_path / "evaluation.npz")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_graph_that_was_changed_in_mlflow_is_refused(tmp_path: Path, place: Place) -> None:
    proven(tmp_path, "a")
    push("dense", place)
    (model,) = (tmp_path / "artifacts").rglob("model.onnx")
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    with pytest.raises(ArtifactError, match=r"model\.onnx: corrupt"):
        prepare(recipe(tmp_path, "models:/dense/1"), tmp_path / "sources", tmp_path / "evaluation.npz")
