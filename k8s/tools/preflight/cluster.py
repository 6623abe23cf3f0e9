"""What a cluster lacks for a deployment: `hone deploy preflight`. It asks through kubectl and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hone.errors import HoneError
from hone.records import Finding

from ..cluster import Cluster, containers, manifests
from .keys import secrets
from .scraped import monitoring

OLDEST, NEWEST = (1, 32), (1, 37)
"""Versions of Kubernetes that the manifests are checked against."""

BUILT_IN = ("apps", "autoscaling", "batch", "policy", "networking.k8s.io", "scheduling.k8s.io", "")
CRD_OWNERS = {
    "keda.sh": "KEDA: keda.sh/docs/latest/deploy",
    "gateway.networking.k8s.io": "the Gateway API's CRDs and a controller: gateway-api.sigs.k8s.io",
    "gateway.envoyproxy.io": "Envoy Gateway: gateway.envoyproxy.io",
    "monitoring.coreos.com": "the Prometheus operator: prometheus-operator.dev",
}


def preflight(overlay: Path, cluster: Cluster) -> list[Finding]:
    """Check a cluster for what the manifests of an overlay need.

    Raises:
        HoneError: the overlay doesn't render, or the cluster doesn't answer.
    """
    objects = manifests(overlay)
    namespace = next((item["metadata"]["name"] for item in objects if item["kind"] == "Namespace"), "default")
    findings = [_version(cluster)]
    for check in (_namespace, _apis, _metrics, _gpu, _quota, secrets, _classes, monitoring):
        findings += _asked(check, cluster, objects, namespace)
    return findings


def _asked(check: Callable[..., list[Finding]], *arguments: Any) -> list[Finding]:
    try:
        return check(*arguments)
    except PermissionError as error:
        name = check.__name__.strip("_")
        return [Finding(name, "unknown", f"this user may not read {error}", "run it as a user who may read it")]


def _version(cluster: Cluster) -> Finding:
    answer = cluster.get("/version")
    found = tuple(int(re.sub(r"\D", "", str(answer[part])) or 0) for part in ("major", "minor"))
    detail = f"{answer.get('gitVersion')}; the manifests are checked for {_text(OLDEST)} to {_text(NEWEST)}"
    if found < OLDEST:
        return Finding("Kubernetes", "missing", detail, f"upgrade to {_text(OLDEST)} or later")
    return Finding("Kubernetes", "ok", detail)


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _namespace(cluster: Cluster, objects: list[dict[str, Any]], namespace: str) -> list[Finding]:
    try:
        found = cluster.get(f"/api/v1/namespaces/{namespace}")
    except LookupError:
        return [Finding("namespace", "ok", f"'{namespace}' will be made by the apply")]
    level = found["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce", "none")
    return [Finding("namespace", "ok", f"'{namespace}' is there, Pod Security: {level}")]


def _apis(cluster: Cluster, objects: list[dict[str, Any]], namespace: str) -> list[Finding]:
    """Every kind in the manifests must be one that the cluster knows."""
    findings = []
    wanted: dict[str, set[str]] = {}
    for item in objects:
        wanted.setdefault(item["apiVersion"], set()).add(item["kind"])
    for version, kinds in sorted(wanted.items()):
        group = version.rpartition("/")[0]
        path = f"/apis/{version}" if group else f"/api/{version}"
        try:
            known = {resource["kind"] for resource in cluster.get(path).get("resources", [])}
        except LookupError:
            known = set()
        lacking = sorted(kinds - known)
        if lacking:
            remedy = f"install {CRD_OWNERS.get(group, f'what defines {version}')}, or leave the component out"
            findings.append(Finding(version, "missing", f"no {', '.join(lacking)}", remedy))
        elif group not in BUILT_IN:
            findings.append(Finding(version, "ok", ", ".join(sorted(kinds))))
    return findings or [Finding("APIs", "ok", "all kinds are known")]


def _metrics(cluster: Cluster, objects: list[dict[str, Any]], namespace: str) -> list[Finding]:
    """The autoscaler's metrics must be served."""
    kinds = {
        metric["type"]
        for item in objects
        if item["kind"] == "HorizontalPodAutoscaler"
        for metric in item["spec"]["metrics"]
    }
    findings = []
    for kind, path, owner in (
        ("Resource", "/apis/metrics.k8s.io/v1beta1", "metrics-server"),
        (
            "Pods",
            "/apis/custom.metrics.k8s.io/v1beta1",
            "prometheus-adapter with k8s/monitoring/prometheus-adapter.yaml",
        ),
    ):
        if kind not in kinds:
            continue
        group = path.split("/")[2]
        try:
            cluster.get(path)
            findings.append(Finding(group, "ok", "the autoscaler can ask"))
        except (LookupError, HoneError):
            findings.append(Finding(group, "missing", "the autoscaler has nothing to go by", f"install {owner}"))
    return findings


def _gpu(cluster: Cluster, objects: list[dict[str, Any]], namespace: str) -> list[Finding]:
    wanted = [
        (item["metadata"]["name"], name)
        for item in objects
        for container in containers(item)
        for name in container.get("resources", {}).get("limits", {})
        if "/" in name
    ]
    if not wanted:
        return []
    nodes = cluster.get("/api/v1/nodes")["items"]
    findings = []
    for owner, resource in wanted:
        selector = next(item for item in objects if item["metadata"]["name"] == owner and containers(item))
        labels = selector["spec"]["template"]["spec"].get("nodeSelector", {})
        fitting = [
            node
            for node in nodes
            if int(node["status"].get("allocatable", {}).get(resource, 0)) > 0
            and labels.items() <= node["metadata"].get("labels", {}).items()
        ]
        if fitting:
            findings.append(Finding(resource, "ok", f"{len(fitting)} node(s) have it"))
        else:
            remedy = "install NVIDIA's GPU operator or device plugin with GPU feature discovery, and add GPU nodes"
            findings.append(Finding(resource, "missing", f"no node offers it with labels {labels}", remedy))
    return findings


def _quota(cluster: Cluster, objects: list[dict[str, Any]], namespace: str) -> list[Finding]:
    """The smallest number of replicas must fit into the namespace's quota."""
    try:
        quotas = cluster.get(f"/api/v1/namespaces/{namespace}/resourcequotas")["items"]
    except LookupError:
        quotas = []
    if not quotas:
        return [Finding("quota", "ok", f"none in '{namespace}'")]
    needed = _requests(objects)
    findings = []
    for quota in quotas:
        hard, used = quota["status"].get("hard", {}), quota["status"].get("used", {})
        for name, amount in needed.items():
            for key in (name, f"requests.{name}"):
                if key in hard:
                    free = quantity(hard[key]) - quantity(used.get(key, "0"))
                    where = f"{key} in quota '{quota['metadata']['name']}'"
                    if free < amount:
                        detail = f"{where}: {free:g} free, {amount:g} needed"
                        findings.append(Finding("quota", "missing", detail, "raise the quota or lower minReplicas"))
    return findings or [Finding("quota", "ok", f"{len(quotas)} in '{namespace}', with room for the smallest size")]


def _requests(objects: list[dict[str, Any]]) -> dict[str, float]:
    """Return what all pods together request at the smallest number of replicas."""
    minimum = {
        item["spec"]["scaleTargetRef"]["name"]: item["spec"].get("minReplicas", item["spec"].get("minReplicaCount", 1))
        for item in objects
        if item["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    }
    total: dict[str, float] = {}
    for item in objects:
        count = minimum.get(item["metadata"]["name"], item.get("spec", {}).get("replicas", 1))
        each = containers(item)
        if each:
            total["pods"] = total.get("pods", 0) + count
        for container in each:
            for name, amount in container.get("resources", {}).get("requests", {}).items():
                total[name] = total.get(name, 0) + count * quantity(amount)
    return total


def quantity(text: Any) -> float:
    """Return a Kubernetes quantity such as `500m`, `1Gi` or `2` as a number."""
    match = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text))
    factors = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
               "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}  # fmt: skip
    if match is None or match[2] not in factors:
        raise HoneError(f"'{text}' is no Kubernetes quantity")
    return float(match[1]) * factors[match[2]]


def _classes(cluster: Cluster, objects: list[dict[str, Any]], namespace: str) -> list[Finding]:
    """Classes that objects name, and a default one for volumes."""
    wanted: list[tuple[str, str, str]] = []
    for item in objects:
        spec: Mapping[str, Any] = item.get("spec", {})
        if item["kind"] == "Ingress":
            wanted.append(("ingress class", spec["ingressClassName"], "/apis/networking.k8s.io/v1/ingressclasses"))
        elif item["kind"] == "Gateway":
            path = "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
            wanted.append(("gateway class", spec["gatewayClassName"], path))
        elif item["kind"] == "PersistentVolumeClaim":
            wanted.append(("storage class", spec.get("storageClassName", ""), "/apis/storage.k8s.io/v1/storageclasses"))
    findings = []
    for kind, name, path in wanted:
        try:
            items = cluster.get(path)["items"]
        except LookupError:
            items = []
        names = [item["metadata"]["name"] for item in items]
        if name:
            there = name in names
        else:
            mark = "storageclass.kubernetes.io/is-default-class"
            default = [i for i in items if i["metadata"].get("annotations", {}).get(mark) == "true"]
            there, name = bool(default), "default"
        if there:
            findings.append(Finding(kind, "ok", f"'{name}' is there"))
        else:
            detail = f"no '{name}'; there are: {', '.join(names) or 'none'}"
            findings.append(Finding(kind, "missing", detail, f"install one, or patch the {kind} in your overlay"))
    return findings
