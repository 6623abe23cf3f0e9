"""Will Prometheus find the pods: without it there is no alert, and no autoscaling on rows in flight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hone.records import Finding

from ..cluster import Cluster, containers

PROMETHEUSES = "/apis/monitoring.coreos.com/v1/prometheuses"
MONITORING = "hone.dev/monitoring"
"""Label of the namespace whose pods may read the metrics: base/networkpolicy.yaml."""


def monitoring(cluster: Cluster, objects: list[dict[str, Any]], namespace: str) -> list[Finding]:
    """The pods must be meant by a PodMonitor that a Prometheus of the cluster takes up, and be reached from there."""
    deployment = next((item for item in objects if item["kind"] == "Deployment" and _serves(item)), None)
    if deployment is None:
        return []
    template = deployment["spec"]["template"]
    if template["metadata"].get("annotations", {}).get("prometheus.io/scrape") == "true":
        return [Finding("monitoring", "ok", "the pods say that they want to be scraped (prometheus.io/scrape)")]
    monitors = [item for item in objects if item["kind"] == "PodMonitor" and _fits(item, template)]
    if not monitors:
        detail = "nothing in these manifests has the pods scraped"
        return [Finding("monitoring", "unknown", detail, "add components/metrics, or scrape /metrics in your own way")]
    try:
        found = cluster.get(PROMETHEUSES)["items"]
    except LookupError:
        detail = "the cluster knows no Prometheus of the operator"
        return [Finding("monitoring", "unknown", detail, "make one: prometheus-operator.dev, 'Getting Started'")]
    labels = {**_labels(cluster, namespace), "kubernetes.io/metadata.name": namespace}
    taking = [one for one in found if _takes(one, monitors[0], labels, namespace)]
    if not taking:
        names = ", ".join(one["metadata"]["name"] for one in found) or "none"
        detail = f"no Prometheus takes up the PodMonitor '{monitors[0]['metadata']['name']}'; there are: {names}"
        remedy = "give it the labels of its podMonitorSelector, and the namespace those of podMonitorNamespaceSelector"
        return [Finding("monitoring", "missing", detail, remedy)]
    return [_reached(cluster, taking[0], objects)]


def _reached(cluster: Cluster, prometheus: Mapping[str, Any], objects: list[dict[str, Any]]) -> Finding:
    name, home = prometheus["metadata"]["name"], prometheus["metadata"]["namespace"]
    guarded = any(item["kind"] == "NetworkPolicy" for item in objects)
    if guarded and _labels(cluster, home).get(MONITORING) != "true":
        detail = f"the network policy keeps the Prometheus '{name}' in '{home}' out"
        return Finding("monitoring", "missing", detail, f"kubectl label namespace {home} {MONITORING}=true")
    return Finding("monitoring", "ok", f"the Prometheus '{name}' in '{home}' will scrape the pods")


def _serves(item: Mapping[str, Any]) -> bool:
    return any(port.get("name") == "http" for each in containers(item) for port in each.get("ports", []))


def _fits(monitor: Mapping[str, Any], template: Mapping[str, Any]) -> bool:
    """Return whether a PodMonitor means pods of a template, at a port that they have."""
    ports = {port.get("name") for each in template["spec"]["containers"] for port in each.get("ports", [])}
    ends = {end.get("port") for end in monitor["spec"].get("podMetricsEndpoints", [])}
    return selects(monitor["spec"]["selector"], template["metadata"].get("labels", {})) and bool(ports & ends)


def _takes(
    prometheus: Mapping[str, Any], monitor: Mapping[str, Any], labels: Mapping[str, str], namespace: str
) -> bool:
    """Return whether a Prometheus takes a PodMonitor up.

    A selector that isn't there takes none of the PodMonitors, and of the namespaces its own.
    """
    spec = prometheus["spec"]
    wanted, places = spec.get("podMonitorSelector"), spec.get("podMonitorNamespaceSelector")
    if wanted is None or not selects(wanted, monitor["metadata"].get("labels", {})):
        return False
    return prometheus["metadata"]["namespace"] == namespace if places is None else selects(places, labels)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Return whether a Kubernetes label selector means these labels; an empty one means all."""
    if not (selector.get("matchLabels") or {}).items() <= labels.items():
        return False
    for rule in selector.get("matchExpressions") or []:
        value, wanted = labels.get(rule["key"]), rule.get("values") or []
        held = {
            "In": value in wanted,
            "NotIn": value not in wanted,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not held[rule["operator"]]:
            return False
    return True


def _labels(cluster: Cluster, namespace: str) -> dict[str, str]:
    try:
        return dict(cluster.get(f"/api/v1/namespaces/{namespace}")["metadata"].get("labels", {}))
    except LookupError:
        return {}
