"""Runs that others begin: the CronJob on a real API server, the DAG in a real Airflow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hone.cli.main import cli
from tests.cluster import ControlPlane
from tests.lifecycle.retrain.project import write_project


def printed(*arguments: str) -> str:
    done = CliRunner().invoke(cli, ["retrain", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    return str(write_project(tmp_path / "p", schedule="0 3 * * 0", minutes=30))


@pytest.fixture
def job(recipe: str) -> dict[str, Any]:
    item: dict[str, Any] = yaml.safe_load(printed("cronjob", recipe, "--image", "registry.example.com/train:1"))
    return item


def test_cronjob_fits_the_schemas_and_is_restricted(job: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    for version in ("1.32", "1.37"):
        kubernetes_validate.validate(job, version, strict=True)
    spec = job["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("0 3 * * 0", "Forbid")
    assert spec["jobTemplate"]["spec"]["activeDeadlineSeconds"] > 30 * 60
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["requests"] == container["resources"]["limits"]


def test_a_recipe_without_a_schedule_is_refused(tmp_path: Path) -> None:
    file = write_project(tmp_path / "p")
    for command in (["cronjob", str(file), "--image", "x"], ["dag", str(file)]):
        done = CliRunner().invoke(cli, ["retrain", *command])
        assert (done.exit_code, "retrain.schedule is missing" in done.output) == (2, True)


def test_cluster_takes_the_cronjob_and_makes_the_jobs_pod(control_plane: ControlPlane, job: dict[str, Any]) -> None:
    # batch/v1 took CronJobs in later than the server at hand.
    control_plane.kubectl("create", "namespace", "hone-retrain")
    job["metadata"]["namespace"] = "hone-retrain"
    control_plane.apply([{**job, "apiVersion": "batch/v1beta1"}])
    made = {"apiVersion": "batch/v1", "kind": "Job", **job["spec"]["jobTemplate"]}
    control_plane.apply([{**made, "metadata": {"name": "now", "namespace": "hone-retrain"}}])

    def has_a_pod() -> bool:
        return bool(control_plane.get("-n", "hone-retrain", "pods")["items"])

    control_plane.wait("the job's pod", has_a_pod)
    (pod,) = control_plane.get("-n", "hone-retrain", "pods")["items"]
    assert pod["spec"]["containers"][0]["command"][:3] == ["hone", "retrain", "run"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_airflow_imports_the_dag(recipe: str, tmp_path: Path) -> None:
    python, dags = tmp_path / "airflow" / "bin" / "python", tmp_path / "dags"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "airflow"], check=True)
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, "apache-airflow==3.3.0"], check=True)
    dags.mkdir()
    (dags / "retrain.py").write_text(printed("dag", recipe))
    code = (
        "from airflow.dag_processing.dagbag import DagBag\n"
        f"bag = DagBag({str(dags)!r})\n"
        "assert not bag.import_errors, bag.import_errors\n"
        "dag = bag.dags['hone_retrain_dense']\n"
        "(task,) = dag.tasks\n"
        "print(dag.max_active_runs, task.bash_command)\n"
    )
    variables = {
        "AIRFLOW_HOME": str(tmp_path / "home"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "false",
        "PATH": str(python.parent),
        "HOME": str(tmp_path),
    }
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith(f"1 hone retrain run {recipe} --scheduled --trigger Airflow")
