"""The registry in MLflow: a real one, in SQLite and a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hone import store
from hone.cli.main import cli
from hone.store.registry import registered
from tests.lifecycle.registry.versions import proven
from tests.servers import use_store

pytestmark = pytest.mark.slow  # importing MLflow takes seconds


def hone(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments])


@pytest.fixture
def mlflow_uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def pushed(tmp_path: Path, uri: str) -> None:
    """Promote two versions in turn, and push them."""
    for version in ("a", "b"):
        proven(tmp_path, version)
        waived = ("--waive", "champion", "--waive", "latency", "--reason", "a test")
        assert hone("registry", "promote", f"dense:{version}", *waived).exit_code == 0
    assert hone("registry", "annotate", "dense:b", "ticket=AB-1").exit_code == 0
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("{}")
    report = ("--report", str(tmp_path / "out"))
    done = hone("registry", "sync", "dense", "--mlflow", uri, "--artifacts", str(tmp_path / "artifacts"), *report)
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "version dense:b",
        "version dense:a",
        f"report {tmp_path / 'out'}",
        "dense@champion is dense:b",
        "dense@previous is dense:a",
        "5 change(s)",
    ]


def test_runs_versions_aliases_and_notes_are_there_and_come_back_elsewhere(tmp_path: Path, mlflow_uri: str) -> None:
    from mlflow import MlflowClient

    pushed(tmp_path, mlflow_uri)
    again = hone("registry", "sync", "dense", "--mlflow", mlflow_uri)
    assert again.stdout == "0 change(s)\n"
    client = MlflowClient(mlflow_uri, mlflow_uri)
    champion = client.get_model_version_by_alias("dense", "champion")
    assert (champion.tags["hone.version"], champion.tags["note.ticket"]) == ("b", "AB-1")
    run = client.get_run(champion.run_id)
    assert (run.info.status, run.data.params["batch"], run.data.metrics["onnx-fp32.loss_upper"]) == (
        "FINISHED", "1", 0.004
    )  # fmt: skip
    assert [file.path for file in client.list_artifacts(champion.run_id, "report")] == ["report/report.json"]

    digests = {entry.tag: entry.opened().digest for entry in store.entries()}
    use_store(tmp_path / "another-host")
    pulled = hone("registry", "sync", "dense", "--mlflow", mlflow_uri, "--pull")
    assert pulled.exit_code == 0, pulled.output
    assert {entry.tag: entry.opened().digest for entry in store.entries()} == digests
    assert store.resolve("dense@champion").version == "b"
    assert hone("registry", "rollback", "dense").stdout == "dense@champion is dense:a, was dense:b\n"
    assert hone("registry", "sync", "dense", "--mlflow", mlflow_uri).stdout.splitlines()[:1] == [
        "dense@champion is dense:a"
    ]
    assert client.get_model_version_by_alias("dense", "champion").tags["hone.version"] == "a"


def test_what_was_changed_in_mlflow_is_not_taken_over(tmp_path: Path, mlflow_uri: str) -> None:
    pushed(tmp_path, mlflow_uri)
    (model,) = (tmp_path / "artifacts").rglob("versions/b/model.onnx")
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    use_store(tmp_path / "another-host")
    refused = hone("registry", "sync", "dense", "--mlflow", mlflow_uri, "--pull")
    assert refused.exit_code == 1
    assert "model.onnx: corrupt" in refused.stderr
    assert registered("dense").aliases == {}

    (manifest,) = (tmp_path / "artifacts").rglob("versions/b/artifact.json")
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "variant": "another"}))
    refused = hone("registry", "sync", "dense", "--mlflow", mlflow_uri, "--pull")
    assert refused.stderr == "error: dense:b: MLflow's artifact.json is not the one that was registered\n"


def test_place_that_is_none_is_one_line(tmp_path: Path) -> None:
    proven(tmp_path, "a")
    (tmp_path / "file").touch()
    failed = hone("registry", "sync", "dense", "--mlflow", f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    assert failed.exit_code == 1
    assert failed.stderr.startswith("error: MLflow: ")
    assert len(failed.stderr.splitlines()) == 1
