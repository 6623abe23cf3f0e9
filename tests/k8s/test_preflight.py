"""The check of a cluster, by the real kubectl, against an HTTP server that answers as an API server does."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from hone.cli.main import cli
from hone.errors import HoneError
from hone.k8s.tools.cluster import Cluster, manifests
from hone.k8s.tools.preflight import Finding, images, preflight, quantity
from hone.k8s.tools.preflight.images import ImagePlace
from hone.k8s.tools.preflight.scraped import selects
from hone.services.access.api_keys import new_key
from hone.services.status.host import backup_age
from tests.containers import registry
from tests.k8s.registry.signing import put_image
from tests.servers import caller

K8S = Path(__file__).parents[2] / "k8s"
FORBIDDEN = object()
TEAM = {"matchExpressions": [{"key": "team", "operator": "In", "values": ["other"]}]}

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


def secret(*keys: dict[str, Any], name: str = "keys.yaml") -> dict[str, Any]:
    """Return the secret that `kubectl create secret generic --from-file` makes of a key file."""
    content = base64.b64encode(yaml.safe_dump({"keys": list(keys)}).encode()).decode()
    return {**named("hone-api-keys"), "data": {name: content}}


def guessed(word: str) -> dict[str, Any]:
    return {"id": "ci", "sha256": hashlib.sha256(word.encode()).hexdigest()}


def prometheus(**changes: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"podMonitorSelector": {}, "podMonitorNamespaceSelector": {}, **changes}
    return {**named("main", namespace="monitoring"), "spec": spec}


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
        "/api/v1/namespaces/hone/secrets/hone-api-keys": secret(new_key("ci", ("predict",))[1]),
        "/api/v1/namespaces/monitoring": named("monitoring", labels={"hone.dev/monitoring": "true"}),
        "/apis/monitoring.coreos.com/v1/prometheuses": items(prometheus()),
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


class Asked(Cluster):
    """Asks the server itself what `kubectl get --raw` asks it. A tenth of a second each, and fifteen times a check, is
    for a few tests."""

    def get(self, path: str) -> dict[str, Any]:
        answer = CLIENT.get(f"{self._command[2]}{path}")
        if answer.status_code != 200:
            raise {403: PermissionError, 404: LookupError}[answer.status_code](path)
        return dict(answer.json())


CLIENT = caller()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render each overlay once, and leave kubectl out of what the cluster is asked."""
    monkeypatch.setattr("hone.k8s.tools.preflight.cluster.manifests", rendered)
    monkeypatch.setattr(sys.modules[__name__], "Cluster", Asked)


@functools.cache
def rendered(overlay: Path) -> list[dict[str, Any]]:
    return manifests(overlay)


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
        ("cpu", {"secrets__hone-api-keys": secret()}, "secret", "hone keys new NAME"),
        ("cpu", {"secrets__hone-api-keys": secret(name="keys.yml")}, "secret", "hone keys new NAME"),
        ("cpu", {"secrets__hone-api-keys": secret(guessed("changeme"))}, "secret", "delete secret hone-api-keys"),
        ("cpu", {"secrets__hone-api-keys": FORBIDDEN}, "secrets", "as a user who may read it"),
        ("cpu", {"prometheuses": items()}, "monitoring", "podMonitorSelector"),
        ("cpu", {"prometheuses": items(prometheus(podMonitorSelector=TEAM))}, "monitoring", "podMonitorSelector"),
        ("cpu", {"prometheuses": items(prometheus(podMonitorNamespaceSelector=None))}, "monitoring", "labels"),
        ("cpu", {"prometheuses": None}, "monitoring", "prometheus-operator.dev"),
        ("cpu", {"namespaces__monitoring": named("monitoring")}, "monitoring", "hone.dev/monitoring=true"),
        ("dev", {}, "monitoring", "components/metrics"),
        ("cpu", {"ingressclasses": {"items": [{"metadata": {"name": "traefik"}}]}}, "ingress class", "patch"),
        ("cuda", {"nodes": {"items": [node()]}}, "nvidia.com/gpu", "GPU operator or device plugin"),
        ("cuda", {"storageclasses": {"items": []}}, "storage class", "install one"),
        ("cuda", {"nodes": FORBIDDEN}, "gpu", "as a user who may read it"),
    ],
)
@pytest.mark.usefixtures("quick")
def test_what_is_missing_is_named_with_a_remedy(overlay: str, changes: dict[str, Any], name: str, words: str) -> None:
    (finding,) = lacking(overlay, cluster(**changes))
    assert finding.name == name
    assert words in finding.remedy


@pytest.mark.usefixtures("quick")
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


@pytest.mark.parametrize(("path", "error"), [("/none", LookupError), ("/api/v1/nodes", PermissionError)])
def test_what_kubectl_says_of_an_object_is_understood(path: str, error: type[Exception]) -> None:
    with api_server(cluster(nodes=FORBIDDEN)) as found:
        assert found.get("/version")["minor"] == "34"
        with pytest.raises(error):
            found.get(path)


def test_command_lists_and_exits_with_1_when_something_is_missing() -> None:
    with api_server(cluster(**{"secrets__hone-api-keys": None})) as found:
        server = found._command[2]
        result = CliRunner().invoke(cli, ["deploy", "preflight", str(K8S / "overlays" / "cpu"), "--server", server])
    assert result.exit_code == 1
    assert "missing  secret: no 'hone-api-keys' in 'hone'" in result.output
    assert "missing  image: registry.example.com/hone/digits:cpu is at an example's address" in result.output
    assert "unknown  backup: where backups lie isn't known" in result.output
    assert result.output.strip().endswith("2 missing")


@pytest.mark.parametrize(("text", "value"), [("2", 2), ("500m", 0.5), ("1Gi", 2**30), ("1.5G", 1.5e9), (3, 3)])
def test_quantities(text: object, value: float) -> None:
    assert quantity(text) == value


def test_unknown_quantity_is_named() -> None:
    with pytest.raises(HoneError, match="'1 GB' is no Kubernetes quantity"):
        quantity("1 GB")


def deployment(*names: str) -> list[dict[str, Any]]:
    pods = {"spec": {"containers": [{"name": "c", "image": name} for name in names]}}
    return [{"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": pods}}]


@pytest.mark.skipif(shutil.which("docker-registry") is None, reason="docker-registry is not installed")
def test_images_are_asked_of_their_registry(tmp_path: Path) -> None:
    with registry(tmp_path) as host:
        digest = put_image(host, "hone/digits", "1")
        names = (f"{host}/hone/digits:1", f"{host}/hone/digits@{digest}", f"{host}/hone/digits:2", f"{host}/other:1")
        states = {finding.detail.split()[0]: finding.state for finding in images(deployment(*names[:2]))}
        assert states == {names[0]: "ok", names[1]: "ok"}
        for finding in images(deployment(*names[2:])):
            assert finding.state == "missing" and "--push" in finding.remedy
    (silent,) = images(deployment(names[0]))
    assert (silent.state, silent.detail.startswith(f"{host} can't be asked from here")) == ("unknown", True)


def test_registry_that_asks_for_a_login_gets_the_one_of_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry with a service for tokens, as hosted ones are."""
    login = base64.b64encode(b"ann:secret").decode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            token = {"token": "t0k3n"} if self.headers.get("authorization") == f"Basic {login}" else {}
            self.answer(200, json.dumps(token).encode())

        def do_HEAD(self) -> None:
            if self.headers.get("authorization") == "Bearer t0k3n":
                self.answer(200)
            else:
                realm = f'Bearer realm="http://127.0.0.1:{self.server.server_port}/token",service="r",scope="pull"'
                self.answer(401, **{"www-authenticate": realm})

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setenv("HOME", str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    try:
        (stranger,) = images(deployment(f"{host}/digits:1"))
        assert (stranger.state, f"docker login {host}" in stranger.remedy) == ("unknown", True)
        (tmp_path / ".docker").mkdir()
        (tmp_path / ".docker" / "config.json").write_text(json.dumps({"auths": {host: {"auth": login}}}))
        (known,) = images(deployment(f"{host}/digits:1"))
        assert known.state == "ok"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("redis", "https://registry-1.docker.io/v2/library/redis/manifests/latest"),
        ("team/app:1", "https://registry-1.docker.io/v2/team/app/manifests/1"),
        ("docker.io/library/redis:8.2", "https://registry-1.docker.io/v2/library/redis/manifests/8.2"),
        ("r.net:5000/a/b", "https://r.net:5000/v2/a/b/manifests/latest"),
        ("localhost:5000/a:1@sha256:ff", "http://localhost:5000/v2/a/manifests/sha256:ff"),
    ],
)
def test_names_of_images_are_read_as_engines_do(image: str, url: str) -> None:
    assert ImagePlace.of(image).url == url


@pytest.mark.parametrize(
    ("operator", "values", "labels", "selected"),
    [
        ("In", ["a"], {"k": "a"}, True), ("In", ["a"], {}, False),
        ("NotIn", ["a"], {"k": "b"}, True), ("NotIn", ["a"], {"k": "a"}, False), ("NotIn", ["a"], {}, True),
        ("Exists", None, {"k": ""}, True), ("Exists", None, {}, False),
        ("DoesNotExist", None, {}, True), ("DoesNotExist", None, {"k": "a"}, False),
    ],
)  # fmt: skip
def test_selectors_select_as_kubernetes_does(
    operator: str, values: list[str] | None, labels: dict[str, str], selected: bool
) -> None:
    assert selects({"matchExpressions": [{"key": "k", "operator": operator, "values": values}]}, labels) is selected


@pytest.mark.parametrize(("age_days", "state"), [(None, "missing"), (0.5, "ok"), (1.5, "missing")])
def test_age_of_the_newest_backup_counts(tmp_path: Path, age_days: float | None, state: str) -> None:
    if age_days is not None:
        for days in (9.0, age_days):
            file = tmp_path / f"hone-2026010{days:.0f}T000000Z.tar.gz"
            file.touch()
            os.utime(file, (time.time() - days * 86_400,) * 2)
    assert backup_age(tmp_path, 1.0).state == state
