"""A small metrics API in place of metrics-server and prometheus-adapter: discovery, and what a test says of pods."""

from __future__ import annotations

import json
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from hone.k8s.autoscaler.hpa.calculator import Sample
from tests.cluster import ControlPlane

RESOURCE, CUSTOM = "metrics.k8s.io", "custom.metrics.k8s.io"
VERSIONS = {RESOURCE: "v1beta1", CUSTOM: "v1beta2"}
Object = dict[str, Any]
Answer = Callable[[Mapping[str, str], str, float], Mapping[str, Sample]]
"""From the labels of pods, a metric's name and the time: samples by the pods' names; times are time.time()'s."""


@contextmanager
def metrics_api(cluster: ControlPlane, folder: Path, answer: Answer) -> Iterator[None]:
    """Serve metrics to a control plane until the end of the block."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(answer))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        # The server of 1.20 fails at applying an APIService, and takes it when it is created.
        objects = yaml.safe_dump_all(_services(server.server_address[1]))
        cluster.kubectl("create", "--validate=false", "-f", "-", stdin=objects)
        names = [f"apiservice/{version}.{group}" for group, version in VERSIONS.items()]
        cluster.kubectl("wait", "--for=condition=Available", "--timeout=60s", *names)
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _services(port: int) -> list[Object]:
    """Return what makes the API server ask us: a Service without pods, and an APIService for each group."""
    name = {"name": "metrics-api", "namespace": "default"}
    spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port, "protocol": "TCP"}]}
    objects: list[Object] = [{"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": spec}]
    for group, version in VERSIONS.items():
        objects.append(
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"{version}.{group}"},
                "spec": {
                    "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
                    "insecureSkipTLSVerify": True, "service": {**name, "port": port},
                },
            }
        )  # fmt: skip
    return objects


def _handler(answer: Answer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            address = urlsplit(self.path)
            query = parse_qs(address.query)
            body = _answered(unquote(address.path), query, answer)
            data = json.dumps(body or {}).encode()
            self.send_response(200 if body else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler


def _answered(path: str, query: dict[str, list[str]], answer: Answer) -> Object | None:
    parts = path.strip("/").split("/")
    group = parts[1] if len(parts) > 1 else ""
    if path in ("/apis", "/apis/"):
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in VERSIONS]}
    if group not in VERSIONS:
        return None
    if len(parts) == 2:
        return {**_group(group), "kind": "APIGroup", "apiVersion": "v1"}
    version = f"{group}/{VERSIONS[group]}"
    if len(parts) == 3:
        name, kind = ("pods", "PodMetrics") if group == RESOURCE else ("pods/hone_in_flight_rows", "MetricValueList")
        known = {"name": name, "singularName": "", "namespaced": True, "kind": kind, "verbs": ["get", "list"]}
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": [known]}
    namespace, now = parts[4], time.time()
    labels = dict(pair.split("=", 1) for pair in query.get("labelSelector", [""])[0].split(",") if "=" in pair)
    if group == RESOURCE:
        samples = answer(labels, "cpu", now)
        items = [_pod_metrics(namespace, name, sample, labels) for name, sample in samples.items()]
        return {"kind": "PodMetricsList", "apiVersion": version, "metadata": {}, "items": items}
    samples = answer(labels, parts[-1], now)
    items = [_metric_value(namespace, name, parts[-1], sample) for name, sample in samples.items()]
    return {"kind": "MetricValueList", "apiVersion": version, "metadata": {}, "items": items}


def _group(name: str) -> Object:
    version = {"groupVersion": f"{name}/{VERSIONS[name]}", "version": VERSIONS[name]}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _pod_metrics(namespace: str, name: str, sample: Sample, labels: dict[str, str]) -> Object:
    usage = {"name": "model", "usage": {"cpu": f"{sample.value}m", "memory": "100Mi"}}
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "timestamp": _time(sample.at),
        "window": f"{sample.window_s:g}s",
        "containers": [usage],
    }


def _metric_value(namespace: str, name: str, metric: str, sample: Sample) -> Object:
    return {
        "describedObject": {"kind": "Pod", "namespace": namespace, "name": name, "apiVersion": "/v1"},
        "metric": {"name": metric},
        "timestamp": _time(sample.at),
        "value": f"{sample.value}m",
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
