"""A real Kubernetes control plane for tests: etcd, API server, controllers and scheduler, without a kubelet.

`HONE_TEST_CONTROL_PLANE` names the program that starts one (`up.sh DIR PORT`, with `down.sh` beside it),
`HONE_TEST_CRDS` a folder with the definitions of other projects' kinds; `.ci/run` sets both where they are. The server
is of Kubernetes 1.20: what came later is rewritten by `for_server`, and nothing else.
"""

from __future__ import annotations

import copy
import functools
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.aside import Aside

Object = dict[str, Any]
Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane; `kubeconfig` reaches it as an administrator."""

    kubeconfig: Path

    def kubectl(
        self, *arguments: str, stdin: str | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; its discovery cache is this cluster's own."""
        cache = self.kubeconfig.with_name("kubectl-cache")
        command = ["kubectl", "--kubeconfig", str(self.kubeconfig), "--cache-dir", str(cache), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120)
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: {done.stderr or done.stdout}"
        return done

    def get(self, *arguments: str) -> Any:
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def apply(self, objects: list[Object], *options: str, check: bool = True) -> Done:
        """Apply objects server-side, as they are."""
        command = ("apply", "--server-side", "--force-conflicts", *options, "-f", "-")
        return self.kubectl(*command, stdin=yaml.safe_dump_all(objects), check=check)

    def forget(self, namespace: str) -> None:
        """Delete a namespace; its pods go at once, since no kubelet lets them go."""
        self.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--wait=false")

        def gone() -> bool:
            self.kubectl("-n", namespace, "delete", "pods", "--all", "--grace-period=0", "--force", check=False)
            return self.kubectl("get", "namespace", namespace, check=False).returncode != 0

        self.wait(f"the end of namespace {namespace}", gone, 90)

    def wait(self, what: str, done: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
            time.sleep(0.3)


def missing() -> str:
    """Return why no control plane can be started here, or an empty string."""
    program = os.environ.get("HONE_TEST_CONTROL_PLANE", "")
    if not program or not os.environ.get("HONE_TEST_CRDS"):
        return "no control plane: HONE_TEST_CONTROL_PLANE and HONE_TEST_CRDS are not set"
    for tool in ("etcd", "kubectl", "openssl", "xz", "curl"):
        if shutil.which(tool) is None:
            return f"no control plane: {tool} is not installed"
    return "" if Path(program).is_file() else f"no control plane: {program} does not exist"


@contextmanager
def control_plane(folder: Path, flags: str = "") -> Iterator[ControlPlane]:
    """Start one with the kinds of the other projects; it ends with the block.

    Args:
        folder: of its state.
        flags: of the controller manager.
    """
    program = Path(os.environ["HONE_TEST_CONTROL_PLANE"]).resolve()
    try:
        command = [str(program), str(folder), str(_free_ports(5))]
        environment = {**os.environ, "HPA_FLAGS": flags} if flags else None
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, env=environment)
        assert done.returncode == 0, done.stderr
        cluster = ControlPlane(folder / "kubeconfig")
        _define(cluster, Path(os.environ["HONE_TEST_CRDS"]))
        yield cluster
    finally:
        subprocess.run([str(program.with_name("down.sh")), str(folder)], check=False)


def _free_ports(count: int) -> int:
    """Return the first of several ports in a row that are free."""
    for first in range(17_000 + os.getpid() % 1000 * 10, 60_000, 7):
        probes = [socket.socket() for _ in range(count)]
        try:
            for offset, probe in enumerate(probes):
                probe.bind(("127.0.0.1", first + offset))
            return first
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
    raise AssertionError("no free ports")


@functools.cache
def definitions() -> dict[tuple[str, str], Object]:
    """Return the definitions of the kinds that our manifests use, by group and kind."""
    folder = Path(os.environ["HONE_TEST_CRDS"])
    files = (
        *("prometheus-podmonitors", "prometheus-prometheusrules", "keda-scaledobjects"),
        *("gateway-gatewayclasses", "gateway-gateways", "gateway-httproutes", "gateway-grpcroutes"),
        *("envoy-backendtrafficpolicies", "argo-rollout", "argo-analysis-template", "flagger"),
        *("kserve-inferenceservices", "kserve-servingruntimes"),
    )
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    found = [item for name in files for item in yaml.load_all((folder / f"{name}.yaml").read_text(), loader) if item]
    return {(item["spec"]["group"], item["spec"]["names"]["kind"]): item for item in found}


LARGE = "serving.kserve.io"
"""Group of definitions that the server takes seconds for: a test that needs them has them made."""


def _define(cluster: ControlPlane, folder: Path) -> None:
    assert folder.is_dir(), folder
    define(cluster, [item for (group, _), item in definitions().items() if group != LARGE])


def define(cluster: ControlPlane, items: list[Object]) -> None:
    """Have the server know kinds."""
    cluster.apply([_old_definition(item) for item in items])
    names = [f"crd/{item['metadata']['name']}" for item in items]
    ready = ("wait", "--for=condition=established", "--timeout=60s", *names)
    cluster.wait("definitions", lambda: cluster.kubectl(*ready, check=False).returncode == 0)


def _old_definition(item: Object) -> Object:
    """Return a definition without what the server of 1.20 does not know: rules in CEL and new formats."""
    item = copy.deepcopy(item)
    item.pop("status", None)
    for version in item["spec"]["versions"]:
        version.pop("selectableFields", None)
        _strip(version["schema"]["openAPIV3Schema"])
    return item


def _strip(schema: Any) -> None:
    if isinstance(schema, list):
        for part in schema:
            _strip(part)
    if not isinstance(schema, dict):
        return
    schema.pop("x-kubernetes-validations", None)
    if isinstance(schema.get("format"), str):
        schema.pop("format")
    if "default" in schema and "type" in schema:
        schema.pop("default")
    if schema.get("x-kubernetes-list-type") == "set" and schema.get("items", {}).get("type") == "object":
        schema.pop("x-kubernetes-list-type")
    # A key of a list's items must be there; without its default it may be missing.
    if not {*schema.get("x-kubernetes-list-map-keys", ())} <= {*schema.get("items", {}).get("required", ())}:
        schema.pop("x-kubernetes-list-map-keys")
        schema.pop("x-kubernetes-list-type")
    for part in schema.values():
        _strip(part)


def for_server(objects: list[Object], namespace: str = "") -> list[Object]:
    """Return objects as the server of 1.20 takes them: older versions of the same kinds, later fields left out, and
    a hook that sleeps written as the command.

    Args:
        objects: rendered manifests.
        namespace: to put them into, in place of their own.
    """
    result = []
    for item in copy.deepcopy(objects):
        old = {"autoscaling/v2": "autoscaling/v2beta2", "policy/v1": "policy/v1beta1"}
        item["apiVersion"] = old.get(item["apiVersion"], item["apiVersion"])
        if item["kind"] == "CronJob":
            item["apiVersion"] = "batch/v1beta1"
        if item["kind"] == "PodDisruptionBudget":
            item["spec"].pop("unhealthyPodEvictionPolicy", None)
        pod = item.get("spec", {}).get("template", {}).get("spec", {}) if item["kind"] == "Deployment" else {}
        for constraint in pod.get("topologySpreadConstraints", []):
            constraint.pop("matchLabelKeys", None)
        for container in pod.get("containers", []):
            hook = container.get("lifecycle", {}).get("preStop", {})
            if "sleep" in hook:
                hook["exec"] = {"command": ["sleep", str(hook.pop("sleep")["seconds"])]}
        if namespace and item["kind"] == "Namespace":
            item["metadata"]["name"] = namespace
        if namespace and "namespace" in item["metadata"]:
            item["metadata"]["namespace"] = namespace
        result.append(item)
    return result


class Nodes(Aside):
    """Stands for the kubelets: pods that the scheduler bound turn ready, pods that were told to go are gone.

    Attributes:
        seen: (ready, all) pods of the watched label at each look; pods that are going are not counted.
    """

    look_s = 0.2

    def __init__(self, cluster: ControlPlane, namespace: str, label: str) -> None:
        config = yaml.safe_load(cluster.kubeconfig.read_text())
        token, server = config["users"][0]["user"]["token"], config["clusters"][0]["cluster"]["server"]
        self._http = httpx.Client(base_url=server, verify=False, headers={"authorization": f"Bearer {token}"})
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._label = label
        super().__init__(self._run)
        self.seen: list[tuple[int, int]] = []
        self.problems: list[str] = []

    def add(self, name: str, **allocatable: str) -> None:
        """Make a node that is ready and offers these resources."""
        labels = {"kubernetes.io/hostname": name, "nvidia.com/gpu.present": "true"}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
        self._call("POST", "/api/v1/nodes", node)
        offers = {"cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "100Gi", **allocatable}
        ready = [{"type": "Ready", "status": "True", "reason": "KubeletReady"}]
        self._patch(f"/api/v1/nodes/{name}/status", {"status": {**_twice(offers), "conditions": ready}})
        self._patch(f"/api/v1/nodes/{name}", {"spec": {"taints": []}})

    def __exit__(self, *problem: object) -> None:
        super().__exit__(*problem)
        self._http.close()
        assert not self.problems, self.problems

    def _run(self) -> None:
        while not self._stop.wait(self.look_s):
            try:
                self._look()
            except (httpx.HTTPError, AssertionError) as error:
                self.problems.append(str(error))

    def _look(self) -> None:
        ready = there = 0
        for pod in self._call("GET", self._pods)["items"]:
            name, labels = pod["metadata"]["name"], pod["metadata"].get("labels", {})
            if "deletionTimestamp" in pod["metadata"]:
                self._call("DELETE", f"{self._pods}/{name}", {"gracePeriodSeconds": 0})
                continue
            is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))
            if labels.get("app.kubernetes.io/component") == self._label:
                ready, there = ready + is_ready, there + 1
            if pod["spec"].get("nodeName") and not is_ready:
                self._patch(f"{self._pods}/{name}/status", {"status": _running(pod)})
        self.seen.append((ready, there))

    def _call(self, method: str, path: str, body: Object | None = None) -> Object:
        answer = self._http.request(method, path, json=body)
        # A pod may have gone since it was listed, a node may be there from another test.
        assert answer.status_code < 300 or answer.status_code in (404, 409), answer.text
        return dict(answer.json())

    def _patch(self, path: str, body: Object) -> None:
        headers = {"content-type": "application/merge-patch+json"}
        answer = self._http.patch(path, content=json.dumps(body), headers=headers)
        assert answer.status_code in (200, 404), answer.text


def _twice(offers: dict[str, str]) -> Object:
    return {"capacity": offers, "allocatable": offers}


def _running(pod: Object) -> Object:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds],
    }
