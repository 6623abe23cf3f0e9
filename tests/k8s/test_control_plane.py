"""The manifests on a real API server with real controllers; only what Kubernetes 1.20 does not know is rewritten."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hone.errors import HoneError
from hone.k8s.tools.cluster import Cluster, manifests
from hone.k8s.tools.preflight import preflight
from hone.k8s.tools.render import render
from hone.services.access.api_keys import new_key
from tests.capacities import capacity
from tests.cluster import ControlPlane, Nodes, definitions, for_server

K8S = Path(__file__).parents[2] / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
TOO_OLD = {"Kubernetes", "autoscaling/v2", "policy/v1"}
"""What preflight misses in a control plane of 1.20, whatever else is there."""


def with_component(folder: Path, component: str) -> list[dict[str, Any]]:
    shutil.copytree(K8S / "base", folder / "base")
    shutil.copytree(K8S / "components", folder / "components")
    lines = f"namespace: hone\nresources: [base]\ncomponents: [components/{component}]\n"
    (folder / "kustomization.yaml").write_text(lines)
    return manifests(folder)


def accepted(cluster: ControlPlane, objects: list[dict[str, Any]], namespace: str) -> None:
    """Apply objects: the server takes each and keeps it under its name."""
    wanted = for_server(objects, namespace)
    said = cluster.apply(wanted).stdout.splitlines()
    assert len(said) == len(objects)
    assert all(line.endswith("serverside-applied") for line in said)
    for item in wanted:
        cluster.get("-n", namespace, kind_of(item), item["metadata"]["name"])


def kind_of(item: dict[str, Any]) -> str:
    """Return a kind as kubectl takes it without a doubt: KIND.VERSION.GROUP."""
    group, _, version = item["apiVersion"].rpartition("/")
    return f"{item['kind']}.{version}.{group}" if group else str(item["kind"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlay_is_accepted_by_the_server(control_plane: ControlPlane, overlay: str) -> None:
    accepted(control_plane, manifests(K8S / "overlays" / overlay), f"overlay-{overlay}")


@pytest.mark.parametrize("component", COMPONENTS)
def test_component_is_accepted_by_the_server(control_plane: ControlPlane, tmp_path: Path, component: str) -> None:
    accepted(control_plane, with_component(tmp_path, component), f"component-{component}")


@pytest.mark.parametrize("autoscaling", ["in-flight-hpa", "keda"])
@pytest.mark.parametrize("entrance", ["ingress", "gateway", "loadbalancer"])
def test_everything_that_goes_together_is_accepted_by_the_server(
    control_plane: ControlPlane, tmp_path: Path, autoscaling: str, entrance: str
) -> None:
    """As `hone k8s render` writes it: one way in, one autoscaler, and all that may stand around them."""
    memory = ("memory-hpa",) if autoscaling == "in-flight-hpa" else ()
    chosen = (autoscaling, *memory, entrance, "checks", "drift", "feedback", "grpc", "metrics", "recording", "redis")
    # Peaks stand in for the component keda, and need a forecast.
    entrances = {"ingress", "gateway", "loadbalancer"}
    left_out = {"in-flight-hpa", "keda", *entrances, "memory-hpa", "scheduled-peaks"} - set(chosen)
    assert set(COMPONENTS) == {*chosen, *left_out}, "a new component: say what it goes together with"
    file, image, tag = tmp_path / "capacity.json", "registry.example.com/hone/digits:1", "digits:onnx-fp32-1"
    file.write_text(capacity(model=tag).model_dump_json())
    render("digits", tag, image, file, tmp_path / "deploy", peak=3000, components=chosen)
    accepted(control_plane, manifests(tmp_path / "deploy"), f"all-{autoscaling}-{entrance}")


def test_second_apply_leaves_the_autoscalers_number_alone(control_plane: ControlPlane) -> None:
    objects = for_server(manifests(K8S / "overlays" / "cpu"), "again")
    control_plane.apply(objects)
    control_plane.kubectl("-n", "again", "scale", "deployment/hone", "--replicas=5")
    control_plane.apply(objects)
    assert control_plane.get("-n", "again", "deployment/hone")["spec"]["replicas"] == 5


def test_server_refuses_a_wrong_field(control_plane: ControlPlane) -> None:
    objects = for_server(manifests(K8S / "overlays" / "cpu"), "refused")
    control_plane.apply([item for item in objects if item["kind"] == "Namespace"])
    (deployment,) = [item for item in objects if item["kind"] == "Deployment" and item["metadata"]["name"] == "hone"]
    (monitor,) = [item for item in objects if item["kind"] == "PodMonitor"]
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    monitor["spec"]["podMetricsEndpoints"][0]["interval"] = "soon"
    for item, word in ((deployment, "readinesProbe"), (monitor, "interval")):
        assert word in control_plane.apply([item], check=False).stderr


def closed(schema: Any) -> Any:
    """Return a definition's schema under which a field that it doesn't name is an error; a server only drops it."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(part) for key, part in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and not open_ended:
        result["additionalProperties"] = False
    if str(schema.get("pattern", "")).startswith("^(?i)"):
        del result["pattern"]  # Go's spelling of a pattern
    return result


@pytest.mark.parametrize("component", COMPONENTS)
def test_kinds_of_other_projects_fit_their_schemas_strictly(
    control_plane: ControlPlane, tmp_path: Path, component: str
) -> None:
    checked = 0
    for item in with_component(tmp_path, component):
        group, _, version = item["apiVersion"].rpartition("/")
        definition = definitions().get((group, item["kind"]))
        if definition is None:
            continue
        (found,) = [known for known in definition["spec"]["versions"] if known["name"] == version]
        schema = closed(found["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        jsonschema.validate(item, schema)
        wrong = copy.deepcopy(item)
        wrong["spec"]["sepc"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
        checked += 1
    assert checked == {"gateway": 3, "keda": 1, "metrics": 2, "scheduled-peaks": 1}.get(component, 0)


def test_preflight_names_what_this_server_lacks(control_plane: ControlPlane) -> None:
    cluster = Cluster(("--kubeconfig", str(control_plane.kubeconfig)))
    overlay = K8S / "overlays" / "cpu"

    def lacking() -> set[str]:
        return {finding.name for finding in preflight(overlay, cluster) if finding.state != "ok"}

    metrics = {"metrics.k8s.io", "custom.metrics.k8s.io"}
    metrics.add("monitoring")  # nor does it know the Prometheus of an operator
    assert lacking() == TOO_OLD | metrics | {"secret", "ingress class"}
    control_plane.forget("hone")
    control_plane.kubectl("create", "namespace", "hone")
    keys = yaml.safe_dump({"keys": [new_key("ci", ("predict",))[1]]})
    secret = ("create", "secret", "generic", "hone-api-keys", f"--from-literal=keys.yaml={keys}")
    control_plane.kubectl("-n", "hone", *secret)
    controller = {"controller": "k8s.io/ingress-nginx"}
    named = {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "nginx"}}
    control_plane.apply([{**named, "spec": controller}])
    assert lacking() == TOO_OLD | metrics
    # The server's own quota controller fills in what is used; 4.25 cores are needed.
    control_plane.kubectl("-n", "hone", "create", "quota", "small", "--hard=requests.cpu=4")
    quota = ("-n", "hone", "quota", "small")
    control_plane.wait("the quota's status", lambda: "hard" in control_plane.get(*quota)["status"])
    assert lacking() == TOO_OLD | metrics | {"quota"}
    control_plane.kubectl("delete", "namespace", "hone", "--wait=false")


def test_preflight_says_what_its_user_may_not_read(control_plane: ControlPlane) -> None:
    """RBAC of the real server: a user without rights learns that the checks are open, not that things are missing."""
    nobody = Cluster(("--kubeconfig", str(control_plane.kubeconfig), "--as", "nobody"))
    found = {finding.name: finding for finding in preflight(K8S / "overlays" / "cuda", nobody)}
    for name in ("namespace", "gpu", "quota", "secrets", "classes"):
        assert found[name].state == "unknown"
        assert found[name].remedy == "run it as a user who may read it"


def test_silent_server_is_one_error(control_plane: ControlPlane) -> None:
    elsewhere = Cluster(("--kubeconfig", str(control_plane.kubeconfig), "--server", "https://127.0.0.1:9"))
    with pytest.raises(HoneError, match="the cluster doesn't answer"):
        preflight(K8S / "overlays" / "cpu", elsewhere)


def test_pods_identity_has_no_rights(control_plane: ControlPlane) -> None:
    """Asked of the authorizer of a real server: the account may not even read its own namespace."""
    control_plane.apply(for_server(manifests(K8S / "overlays" / "cpu"), "rights"))
    account = ("--as", "system:serviceaccount:rights:hone", "-n", "rights")
    for verb, kind in (("get", "secrets"), ("list", "pods"), ("create", "pods"), ("get", "configmaps")):
        answer = control_plane.kubectl("auth", "can-i", verb, kind, *account, check=False)
        assert answer.stdout.strip() == "no"


@pytest.mark.slow
@pytest.mark.parametrize(("overlay", "fewest", "most"), [("cpu", 2, 3), ("cuda", 1, 2)])
def test_rollout_keeps_its_promise(control_plane: ControlPlane, overlay: str, fewest: int, most: int) -> None:
    """The real Deployment controller replaces two ready pods: never fewer are ready, never more are there."""
    namespace = f"rollout-{overlay}"
    objects = for_server(manifests(K8S / "overlays" / overlay), namespace)
    kept = ("Namespace", "PriorityClass", "ServiceAccount", "ConfigMap", "Deployment", "PodDisruptionBudget")
    objects = [item for item in objects if item["kind"] in kept and item["metadata"]["name"] != "hone-redis"]
    (deployment,) = [item for item in objects if item["kind"] == "Deployment"]
    deployment["spec"]["replicas"] = 2
    # There is no storage class here; a claim would never be bound.
    pod = deployment["spec"]["template"]["spec"]
    pod["volumes"] = [{"name": volume["name"], "emptyDir": {}} for volume in pod["volumes"]]
    with Nodes(control_plane, namespace, "server") as nodes:
        control_plane.apply(objects)
        nodes.add(f"{overlay}-1", **{"nvidia.com/gpu": "2"})
        wait_rolled_out(control_plane, namespace)
        del nodes.seen[:]
        control_plane.kubectl("-n", namespace, "set", "env", "deployment/hone", "HONE_QUEUE_ROWS=1000")
        wait_rolled_out(control_plane, namespace)
        assert min(ready for ready, _ in nodes.seen) == fewest
        assert max(there for _, there in nodes.seen) == most
    # From here on no pod turns ready.
    check_disruptions(control_plane, namespace)
    control_plane.kubectl("delete", "namespace", namespace, "--wait=false")


def wait_rolled_out(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("-n", namespace, "rollout", "status", "deployment/hone", "--timeout=90s")


def check_disruptions(cluster: ControlPlane, namespace: str) -> None:
    """Of two pods one may be evicted; the other not before the first has its successor."""
    budget = ("-n", namespace, "pdb", "hone")
    cluster.wait("one disruption", lambda: cluster.get(*budget)["status"].get("disruptionsAllowed") == 1)
    answers = []
    pods = [pod["metadata"] for pod in cluster.get("-n", namespace, "pods")["items"]]
    for name in (pod["name"] for pod in pods if "deletionTimestamp" not in pod):
        eviction = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": name}}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        done = cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction), check=False)
        answers.append("disruption budget" in done.stdout + done.stderr)
    assert answers == [False, True]
