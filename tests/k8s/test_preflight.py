"""The check of a cluster, by the real kubectl, against an HTTP server that answers as an API server does."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hone.cli.main import cli
from hone.errors import HoneError
from hone.k8s.tools.cluster import Cluster
from hone.k8s.tools.preflight import Finding, preflight, quantity

K8S = Path(__file__).parents[2] / "k8s"
FORBIDDEN = object()

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")


def resources(*kinds: str) -> dict[str, Any]:
    return {"kind": "APIResourceList", "resources": [{"kind": kind, "name": kind.lower()} for kind in kinds]}


def items(*content: dict[str, Any]) -> dict[str, Any]:
    return {"items": list(content)}


def named(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}}


def node(**allocatable: str) -> dict[str, Any]:
    content = named("n", labels={"nvidia.com/gpu.present": "true"})
    return {
        **content,
        "status": {"allocatable": {key.replace("gpu", "nvidia.com/gpu"): v for key, v in allocatable.items()}},
    }


def cluster(**changes: Any) -> dict[str, Any]:
    """Return answers by path of a cluster that has everything; changes by part of a path, None leaves it out."""
    answers: dict[str, Any] = {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.2"},
        "/api/v1": resources("Namespace", "Service", "ServiceAccount", "ConfigMap", "PersistentVolumeClaim"),
        "/apis/apps/v1": resources("Deployment"),
        "/apis/autoscaling/v2": resources("HorizontalPodAutoscaler"),
        "/apis/policy/v1": resources("PodDisruptionBudget"),
        "/apis/networking.k8s.io/v1": resources("NetworkPolicy", "Ingress"),
        "/apis/scheduling.k8s.io/v1": resources("PriorityClass"),
        "/apis/monitoring.coreos.com/v1": resources("PodMonitor", "PrometheusRule"),
        "/apis/gateway.networking.k8s.io/v1": resources("Gateway", "HTTPRoute"),
        "/apis/gateway.envoyproxy.io/v1alpha1": resources("BackendTrafficPolicy"),
        "/apis/metrics.k8s.io/v1beta1": resources("PodMetrics"),
        "/apis/custom.metrics.k8s.io/v1beta1": resources("MetricValueList"),
        "/api/v1/namespaces/hone": named("hone", labels={"pod-security.kubernetes.io/enforce": "restricted"}),
        "/api/v1/namespaces/hone/resourcequotas": items(),
        "/api/v1/namespaces/hone/secrets/hone-api-keys": named("hone-api-keys"),
        "/api/v1/nodes": items(node(gpu="1")),
        "/apis/networking.k8s.io/v1/ingressclasses": items(named("nginx")),
        "/apis/gateway.networking.k8s.io/v1/gatewayclasses": items(named("envoy")),
        "/apis/storage.k8s.io/v1/storageclasses": items(
            named("standard", annotations={"storageclass.kubernetes.io/is-default-class": "true"})
        ),
    }
    for part, value in changes.items():
        (path,) = [path for path in answers if path.endswith(part.replace("__", "/"))]
        answers[path] = value
    return answers


@contextmanager
def api_server(answers: dict[str, Any]) -> Iterator[Cluster]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = answers.get(self.path.partition("?")[0])
            status = 403 if answer is FORBIDDEN else 404 if answer is None else 200
            if status != 200:
                reason = "Forbidden" if status == 403 else "NotFound"
                answer = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": status,
                          "message": reason}  # fmt: skip
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Cluster(("--server", f"http://127.0.0.1:{server.server_port}"))
    finally:
        server.shutdown()
        server.server_close()


def lacking(overlay: str, answers: dict[str, Any]) -> list[Finding]:
    with api_server(answers) as found:
        return [finding for finding in preflight(K8S / "overlays" / overlay, found) if finding.state != "ok"]


@pytest.mark.parametrize("overlay", ["cpu", "cuda"])
def test_complete_cluster_lacks_nothing(overlay: str) -> None:
    assert lacking(overlay, cluster()) == []


@pytest.mark.parametrize(
    ("overlay", "changes", "name", "words"),
    [
        ("cpu", {"version": {"major": "1", "minor": "27+", "gitVersion": "v1.27"}}, "Kubernetes", "upgrade to 1.32"),
        ("cpu", {"monitoring.coreos.com__v1": None}, "monitoring.coreos.com/v1", "Prometheus operator"),
        ("cuda", {"gateway.networking.k8s.io__v1": None}, "gateway.networking.k8s.io/v1", "Gateway API's CRDs"),
        ("cpu", {"custom.metrics.k8s.io__v1beta1": None}, "custom.metrics.k8s.io", "install prometheus-adapter"),
        ("cpu", {"apis__metrics.k8s.io__v1beta1": None}, "metrics.k8s.io", "install metrics-server"),
        ("cpu", {"secrets__hone-api-keys": None}, "secret", "hone keys new NAME"),
        ("cpu", {"ingressclasses": {"items": [{"metadata": {"name": "traefik"}}]}}, "ingress class", "patch"),
        ("cuda", {"nodes": {"items": [node()]}}, "nvidia.com/gpu", "GPU operator or device plugin"),
        ("cuda", {"storageclasses": {"items": []}}, "storage class", "install one"),
        ("cuda", {"nodes": FORBIDDEN}, "gpu", "as a user who may read it"),
    ],
)
def test_what_is_missing_is_named_with_a_remedy(overlay: str, changes: dict[str, Any], name: str, words: str) -> None:
    (finding,) = lacking(overlay, cluster(**changes))
    assert finding.name == name
    assert words in finding.remedy


def test_quota_that_is_too_small() -> None:
    quota = {**named("team"), "status": {"hard": {"requests.cpu": "4", "pods": "10"}, "used": {"requests.cpu": "500m"}}}
    (finding,) = lacking("cpu", cluster(resourcequotas={"items": [quota]}))
    # Two replicas of two cores and a quarter for Redis.
    assert finding.detail == "requests.cpu in quota 'team': 3.5 free, 4.25 needed"


def test_namespace_that_is_not_there_yet_is_no_problem() -> None:
    answers = cluster(namespaces__hone=None, resourcequotas=None)
    assert lacking("cpu", answers) == []


def test_silent_cluster_is_one_error() -> None:
    with pytest.raises(HoneError, match="the cluster doesn't answer"):
        preflight(K8S / "overlays" / "cpu", Cluster(("--server", "http://127.0.0.1:9")))


def test_command_lists_and_exits_with_1_when_something_is_missing() -> None:
    with api_server(cluster(**{"secrets__hone-api-keys": None})) as found:
        server = found._command[2]
        result = CliRunner().invoke(cli, ["deploy", "preflight", str(K8S / "overlays" / "cpu"), "--server", server])
    assert result.exit_code == 1
    assert "missing  secret: no 'hone-api-keys' in 'hone'" in result.output
    assert result.output.strip().endswith("1 missing")


@pytest.mark.parametrize(("text", "value"), [("2", 2), ("500m", 0.5), ("1Gi", 2**30), ("1.5G", 1.5e9), (3, 3)])
def test_quantities(text: object, value: float) -> None:
    assert quantity(text) == value


def test_unknown_quantity_is_named() -> None:
    with pytest.raises(HoneError, match="'1 GB' is no Kubernetes quantity"):
        quantity("1 GB")
