"""The registry in MLflow: a real one, in a folder and SQLite or PostgreSQL."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hone import store
from hone.cli.main import cli
from hone.services.launch import free_port
from hone.store.registry import registered
from tests.buckets import s3_bucket, until_it_listens
from tests.house import ROOT
from tests.lifecycle.registry.versions import proven
from tests.servers import use_store

pytestmark = pytest.mark.slow  # importing MLflow takes seconds


def hone(*arguments: str) -> Result:
    return CliRunner().invoke(cli, [*arguments])


@pytest.fixture
def mlflow_uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def postgres_uri() -> Iterator[str]:
    """A PostgreSQL of this test alone; it refuses to run as root, so it runs as Debian's user for it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("PostgreSQL is not installed: apt install postgresql")
    as_user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
    port, root = free_port(), Path(tempfile.mkdtemp(prefix="hone-postgres-"))
    root.chmod(0o777)
    data = root / "data"
    subprocess.run([*as_user, programs[-1] / "initdb", "-D", data, "-A", "trust", "-U", "hone"], check=True, cwd=root)
    options = ["-D", data, "-p", str(port), "-k", root, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
    server = subprocess.Popen([*as_user, programs[-1] / "postgres", *options], cwd=root)
    try:
        until_it_listens(port)
        yield f"postgresql://hone@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(root)


def test_postgresql_holds_the_same(tmp_path: Path, postgres_uri: str) -> None:
    pushed(tmp_path, postgres_uri)
    use_store(tmp_path / "another-host")
    assert hone("registry", "sync", "dense", "--mlflow", postgres_uri, "--pull").exit_code == 0
    assert (store.resolve("dense@champion").version, store.resolve("dense@previous").version) == ("b", "a")


def pushed(tmp_path: Path, uri: str, artifacts: str = "") -> None:
    """Promote two versions in turn, and push them."""
    for version in ("a", "b"):
        proven(tmp_path, version)
        waived = ("--waive", "champion", "--waive", "latency", "--reason", "a test")
        assert hone("registry", "promote", f"dense:{version}", *waived).exit_code == 0
    assert hone("registry", "annotate", "dense:b", "ticket=AB-1").exit_code == 0
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("{}")
    report = ("--report", str(tmp_path / "out"))
    done = hone(
        "registry", "sync", "dense", "--mlflow", uri, "--artifacts", artifacts or str(tmp_path / "artifacts"), *report
    )
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


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_bucket(tmp_path, monkeypatch) as address:
        yield address


def test_versions_lie_in_s3_and_come_back_elsewhere(tmp_path: Path, mlflow_uri: str, bucket: str) -> None:
    pushed(tmp_path, mlflow_uri, bucket)
    digests = {entry.tag: entry.opened().digest for entry in store.entries()}
    use_store(tmp_path / "another-host")
    pulled = hone("registry", "sync", "dense", "--mlflow", mlflow_uri, "--pull")
    assert pulled.exit_code == 0, pulled.output
    assert {entry.tag: entry.opened().digest for entry in store.entries()} == digests


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


def test_run_is_stored_where_mlflow_is_down_and_goes_there_later(tmp_path: Path, mlflow_uri: str) -> None:
    """MLflow's client tries for some seconds; what took minutes to make is not lost."""
    recipe = ROOT / "examples" / "tabular" / "recipe.yaml"
    down = f"http://127.0.0.1:{free_port()}"
    failed = hone("optimize", str(recipe), "--out", str(tmp_path / "out"), "--mlflow", down)
    assert failed.exit_code == 1
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert line.endswith("the run is stored here: hone registry sync tabular --mlflow URI")
    assert (tmp_path / "out" / "report.json").is_file()
    synced = hone("registry", "sync", "tabular", "--mlflow", mlflow_uri, "--artifacts", str(tmp_path / "artifacts"))
    assert synced.exit_code == 0, synced.output
    assert f"version {store.resolve('tabular').tag}" in synced.stdout


def test_database_whose_driver_is_missing_is_one_line(tmp_path: Path) -> None:
    proven(tmp_path, "a")
    failed = hone("registry", "sync", "dense", "--mlflow", "mysql://user:secret@127.0.0.1:9/models")
    assert failed.exit_code == 1
    assert "mysql needs MySQLdb" in failed.stderr and "driver" in failed.stderr
    assert "secret" not in failed.stderr
