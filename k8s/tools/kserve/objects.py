"""The service as KServe runs it: a ServingRuntime with the image, and an InferenceService without a storageUri.

The model is in the image, where it was proven and measured, so KServe has nothing to fetch. It makes the Deployment
(`hone-predictor`), the Service and the route; in its mode `Standard` (until 0.15 `RawDeployment`), because the pods are
scaled by the measured autoscaler of the base. That one is `external` to KServe, whose own takes neither bounds on how
fast it scales nor rows in flight. https://kserve.github.io/website/docs/reference/crd-api
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from hone.capacity import Capacity
from hone.errors import HoneError

from ...numbers import Numbers, Object
from ..rollouts.parts import documents, labels

RUNTIME, SERVICE, CONTAINER = "hone", "hone", "kserve-container"
GOES_WITH = ("in-flight-hpa", "memory-hpa", "metrics")
"""Components that change nothing of the Deployment and the Service, which are KServe's here."""

POD = (
    "serviceAccountName",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "priorityClassName",
    "terminationGracePeriodSeconds",
    "securityContext",
    "topologySpreadConstraints",
    "volumes",
)
"""What the base says of its pods, and an InferenceService says of them, too."""

FILE, NAMES = "kserve.yaml", "kserve-names.yaml"


def check_components(chosen: tuple[str, ...], mode: str) -> None:
    """Raise HoneError for a component that has no place beside KServe, or for a mode that there isn't."""
    for name in chosen:
        if name not in GOES_WITH:
            raise HoneError(f"--kserve: the Deployment and the Service are KServe's; leave {name} out")
    if mode not in MODES:
        raise HoneError(f"--kserve: no mode '{mode}'; there are {', '.join(MODES)}")


MODES = ("Standard", "RawDeployment")
"""One thing by two names: from KServe 0.16 on, and before."""


def written(folder: Path, capacity: Capacity, numbers: Numbers, mode: str) -> tuple[list[str], list[str]]:
    """Write the objects into a kustomize folder; return lines that name them, and lines of patches.

    Args:
        capacity: whose model and limit are said in annotations.
        numbers: measured.
        mode: of `MODES`.
    """
    (deployment,) = documents("base/deployment.yaml")
    objects = [_runtime(deployment, numbers), _service(deployment, capacity, numbers, mode)]
    text = yaml.dump_all(objects, Dumper=_Plain, sort_keys=False, width=1000)
    (folder / FILE).write_text(f"# KServe: see k8s/README.md.\n{text}")
    (folder / NAMES).write_text(yaml.safe_dump(_NAMES, sort_keys=False))
    return [f"  - {FILE}"], list(_patches())


class _Plain(yaml.SafeDumper):
    """Writes what is there twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_NAMES = {
    "nameReference": [
        {
            "kind": "ConfigMap",
            "version": "v1",
            "fieldSpecs": [{"kind": "ServingRuntime", "path": "spec/containers/envFrom/configMapRef/name"}],
        },
        {
            "kind": "ServiceAccount",
            "version": "v1",
            "fieldSpecs": [{"kind": "InferenceService", "path": "spec/predictor/serviceAccountName"}],
        },
    ]
}
"""Kustomize gives a changed ConfigMap a new name; that is how it finds the objects of others that use it."""


def _runtime(deployment: Object, numbers: Numbers) -> Object:
    container = copy.deepcopy(deployment["spec"]["template"]["spec"]["containers"][0])
    size = {"cpu": str(numbers.cpu), "memory": f"{numbers.memory_mib}Mi", "ephemeral-storage": "256Mi"}
    container |= {"name": CONTAINER, "resources": {"requests": size, "limits": size}}
    container["startupProbe"]["failureThreshold"] = numbers.startup_failures
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": RUNTIME, "labels": labels("server")},
        "spec": {
            "supportedModelFormats": [{"name": "hone", "version": "1", "autoSelect": False}],
            "protocolVersions": ["v2", "v1"],
            "multiModel": False,
            "containers": [container],
        },
    }


def _service(deployment: Object, capacity: Capacity, numbers: Numbers, mode: str) -> Object:
    pod = deployment["spec"]["template"]["spec"]
    limit = f"{capacity.slo.percentile.removesuffix('_ms')} <= {capacity.slo.limit_ms:g} ms"
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": SERVICE,
            "labels": labels("server"),
            "annotations": {
                "serving.kserve.io/deploymentMode": mode,
                "serving.kserve.io/autoscalerClass": "external",
                "hone.dev/model": capacity.model,
                "hone.dev/measured": f"{capacity.rate:g} requests/s a pod at {limit}",
            },
        },
        "spec": {
            "predictor": {
                # Pods carry them, and the base's network policy, disruption budget and PodMonitor choose by them.
                "labels": labels("server"),
                "minReplicas": numbers.minimum,
                "maxReplicas": numbers.maximum,
                "deploymentStrategy": deployment["spec"]["strategy"],
                **{name: pod[name] for name in POD},
                "model": {"modelFormat": {"name": "hone", "version": "1"}, "protocolVersion": "v2", "runtime": RUNTIME},
            }
        },
    }


def _patches() -> tuple[str, ...]:
    gone = tuple(
        line
        for version, kind in (("apps/v1", "Deployment"), ("v1", "Service"))
        for line in (
            "  - patch: |-",
            f"      apiVersion: {version}",
            f"      kind: {kind}",
            "      metadata: {name: hone}",
            "      $patch: delete",
        )
    )
    return (
        *gone,
        "  - target: {kind: HorizontalPodAutoscaler, name: hone}",
        "    patch: |-",
        "      - op: replace",
        "        path: /spec/scaleTargetRef/name",
        f"        value: {SERVICE}-predictor",
    )
