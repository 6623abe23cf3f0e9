"""Who may talk to whom, and which paths leave the cluster: every peer and path of every overlay, asserted exactly."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hone.k8s.tools.cluster import manifests
from hone.services.routes.paths import PATHS

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")

CALLERS = {
    "ingress to server: pods hone.dev/caller=true on http/TCP",
    "ingress to server: namespaces hone.dev/caller=true on http/TCP",
    "ingress to server: namespaces hone.dev/monitoring=true on http/TCP",
}
CACHE = {
    "egress of server: pods app.kubernetes.io/component=cache,app.kubernetes.io/name=hone on 6379/TCP",
    "egress of server: namespaces kubernetes.io/metadata.name=kube-system pods k8s-app=kube-dns on 53/UDP,53/TCP",
    "ingress to cache: pods app.kubernetes.io/component=server,app.kubernetes.io/name=hone on redis/TCP",
}
ALLOWED = {"dev": CALLERS, "cpu": CALLERS | CACHE, "cuda": CALLERS}


def labels(selector: dict[str, Any]) -> str:
    assert not selector.get("matchExpressions")
    return ",".join(f"{name}={value}" for name, value in sorted(selector.get("matchLabels", {}).items())) or "all"


def peer(item: dict[str, Any]) -> str:
    known = {"namespaceSelector": "namespaces", "podSelector": "pods"}
    assert item.keys() <= known.keys(), item  # an address block would be a hole that this page doesn't show
    return " ".join(f"{known[kind]} {labels(item[kind])}" for kind in known if kind in item)


def allowed(objects: list[dict[str, Any]]) -> set[str]:
    """Return a line for every peer that the policies let in or out; an empty list of peers or ports is all of them."""
    found = set()
    for item in objects:
        if item["kind"] != "NetworkPolicy":
            continue
        spec = item["spec"]
        pods = spec["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component", "all pods")
        for direction, key, word in (("ingress", "from", "to"), ("egress", "to", "of")):
            for rule in spec.get(direction) or []:
                ports = ",".join(f"{port['port']}/{port['protocol']}" for port in rule.get("ports", [])) or "all ports"
                for one in rule.get(key) or [None]:
                    found.add(f"{direction} {word} {pods}: {peer(one) if one else 'everybody'} on {ports}")
    return found


def denied_by_default(objects: list[dict[str, Any]]) -> bool:
    """Return whether a policy that selects every pod of the namespace shuts both directions."""
    return any(
        item["kind"] == "NetworkPolicy"
        and item["spec"]["podSelector"] == {}
        and set(item["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        and not item["spec"].get("ingress")
        and not item["spec"].get("egress")
        for item in objects
    )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_is_shut_but_the_peers_that_are_listed(overlay: str) -> None:
    objects = manifests(K8S / "overlays" / overlay)
    assert denied_by_default(objects)
    assert allowed(objects) == ALLOWED[overlay]
    for item in objects:
        if item["kind"] == "NetworkPolicy":
            assert set(item["spec"]["policyTypes"]) == {"Ingress", "Egress"}


def test_a_wider_policy_shows() -> None:
    objects = manifests(K8S / "overlays" / "cuda")
    (server,) = [o for o in objects if o["kind"] == "NetworkPolicy" and o["metadata"]["name"] == "hone"]
    without = [item for item in objects if item["metadata"]["name"] != "hone-deny"]
    assert not denied_by_default(without)
    for direction, rule in (("egress", {}), ("ingress", {}), ("egress", {"to": [{"namespaceSelector": {}}]})):
        wider = copy.deepcopy(server)
        wider["spec"][direction].append(rule)
        assert allowed([wider]) - ALLOWED["cuda"]


def test_grpc_is_open_to_those_who_may_call_over_http(tmp_path: Path) -> None:
    shutil.copytree(K8S / "base", tmp_path / "base")
    shutil.copytree(K8S / "components" / "grpc", tmp_path / "grpc")
    (tmp_path / "kustomization.yaml").write_text("resources: [base]\ncomponents: [grpc]\n")
    objects = manifests(tmp_path)
    assert allowed(objects) == {line.replace("http/TCP", "http/TCP,grpc/TCP") for line in CALLERS}
    (service,) = [item for item in objects if item["kind"] == "Service"]
    (pod,) = [item["spec"]["template"]["spec"] for item in objects if item["kind"] == "Deployment"]
    offered = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} == set(offered)
    (settings,) = [item["data"] for item in objects if item["kind"] == "ConfigMap"]
    assert settings["HONE_GRPC_PORT"] == str(offered["grpc"])


def rules(component: str) -> list[tuple[str, str]]:
    """Return (type, path) of every rule of the component's Ingress or HTTPRoute; each leads to the service."""
    objects = manifests(K8S / "overlays" / {"ingress": "cpu", "gateway": "cuda"}[component])
    if component == "ingress":
        (item,) = [item for item in objects if item["kind"] == "Ingress"]
        assert "defaultBackend" not in item["spec"]
        paths = [path for rule in item["spec"]["rules"] for path in rule["http"]["paths"]]
        assert {json.dumps(path["backend"]) for path in paths} == {
            '{"service": {"name": "hone", "port": {"name": "http"}}}'
        }
        return [(path["pathType"], path["path"]) for path in paths]
    (item,) = [item for item in objects if item["kind"] == "HTTPRoute"]
    return [
        (match["path"]["type"].removeprefix("Path"), match["path"]["value"])
        for rule in item["spec"]["rules"]
        for match in rule["matches"]
    ]


def reaches(known: list[tuple[str, str]], path: str) -> bool:
    """Return whether a path matches, as the Ingress and Gateway APIs define it: a prefix is whole parts of a path."""
    return any(
        path == rule or (kind == "Prefix" and path.startswith(rule.rstrip("/") + "/")) for kind, rule in known
    )  # fmt: skip


@pytest.mark.parametrize("component", ["ingress", "gateway"])
def test_public_paths_leave_the_cluster_and_no_others(component: str) -> None:
    known = rules(component)
    wrong = [
        path.template
        for path in PATHS
        if reaches(known, path.of("digits", "onnx-fp32-20260101-000000-0000")) != path.outside
    ]
    assert wrong == []
    # No rule is left over from a path that the service doesn't have.
    for kind, rule in known:
        assert any(reaches([(kind, rule)], path.of("digits", "1")) for path in PATHS if path.outside), rule
