"""The same run begun by others: a CronJob of Kubernetes, a DAG of Airflow. Hone's own lock and cool-down stay."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from hone.errors import RecipeError
from hone.recipe import LoadedRecipe

from .journal import now
from .triggers import next_time, spec_of

STORE = "/var/lib/hone"
"""Where the volume lies that keeps the store, the registry and passes between runs."""
LABELS = {
    "app.kubernetes.io/name": "hone",
    "app.kubernetes.io/part-of": "hone",
    "app.kubernetes.io/component": "retraining",
}
LATE_S = 3600
"""A run that couldn't begin for so long waits for the next time."""


def _schedule(loaded: LoadedRecipe) -> str:
    schedule = spec_of(loaded).schedule
    if schedule is None:
        raise RecipeError(f"{loaded.path}: retrain.schedule is missing")
    next_time(loaded, schedule, now())
    return schedule


def _seconds(loaded: LoadedRecipe) -> int:
    """Return the time of a run and room for its end."""
    return int(spec_of(loaded).minutes * 60) + 120


def cronjob(
    loaded: LoadedRecipe, recipe: str, image: str, claim: str, namespace: str, cpu: str = "2", memory: str = "4Gi"
) -> str:
    """Return a CronJob of batch/v1 as YAML.

    Args:
        loaded: with a schedule.
        recipe: its path in the image.
        image: with Hone, what the training needs, and the recipe's folder.
        claim: a PersistentVolumeClaim for the store; services that follow the alias mount it, too.
        namespace: of both.
        cpu, memory: that a run gets.

    Raises:
        RecipeError: the recipe has no schedule.
    """
    job: dict[str, Any] = {
        # A pod that was killed goes on where the run was; one that failed would fail again.
        "backoffLimit": 1,
        "activeDeadlineSeconds": _seconds(loaded),
        "ttlSecondsAfterFinished": 7 * 24 * 3600,
        "template": {"metadata": {"labels": LABELS}, "spec": _pod(recipe, image, claim, cpu, memory)},
    }
    item = {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": f"hone-retrain-{loaded.recipe.name}", "namespace": namespace, "labels": LABELS},
        "spec": {
            "schedule": _schedule(loaded),
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": LATE_S,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {"spec": job},
        },
    }
    return yaml.safe_dump(item, sort_keys=False)


def _pod(recipe: str, image: str, claim: str, cpu: str, memory: str) -> dict[str, Any]:
    """Return the specification of a pod that may do little beside its work."""
    resources = {"cpu": cpu, "memory": memory, "ephemeral-storage": "2Gi"}
    container = {
        "name": "retrain",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["hone", "retrain", "run", recipe, "--scheduled", "--trigger", "CronJob"],
        "env": [
            {"name": "HOME", "value": STORE},
            {"name": "BENTOML_HOME", "value": f"{STORE}/bentoml"},
            {"name": "HONE_CACHE", "value": f"{STORE}/cache"},
            {"name": "HONE_AUDIT_LOG", "value": "-"},
        ],
        "resources": {"requests": resources, "limits": resources},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "store", "mountPath": STORE},
            {"name": "tmp", "mountPath": "/tmp"},  # the pod's own  # nosec B108
        ],
    }
    user = {"runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
        "volumes": [
            {"name": "store", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}},
        ],
    }


def dag(loaded: LoadedRecipe, recipe: str) -> str:
    """Return a file for Airflow's folder of DAGs.

    Args:
        loaded: with a schedule.
        recipe: its path where Airflow's workers run.

    Raises:
        RecipeError: the recipe has no schedule.
    """
    name = f"hone_retrain_{loaded.recipe.name.replace('-', '_').replace('.', '_')}"
    command = shlex.join(["hone", "retrain", "run", recipe, "--scheduled", "--trigger", "Airflow"])
    return f'''"""Retrains {loaded.recipe.name}; written by `hone retrain dag`."""

from datetime import datetime, timedelta, timezone

from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator

with DAG(
    dag_id={name!r},
    schedule={_schedule(loaded)!r},
    start_date=datetime({now():%Y, %-m, %-d}, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(seconds={_seconds(loaded)}),
    tags=["hone"],
):
    # 3: the champion stays. 4: the rows don't decide. Both are verdicts, so the task is skipped, not failed.
    BashOperator(task_id="retrain", bash_command={command!r}, skip_on_exit_code=[3, 4])
'''
