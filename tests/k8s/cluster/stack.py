"""A service in a cluster, whole: control plane, kubelet, Prometheus, metrics API, ingress, rendered manifests."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hone.k8s.autoscaler.hpa.calculator import Sample
from hone.k8s.tools.cluster import manifests
from tests import cluster
from tests.cluster import ControlPlane, for_server
from tests.k8s.autoscaler.metrics_api import metrics_api
from tests.servers import HONE

from .balancer import Balancer
from .image import Image, images
from .kubelet import TARGETS, Kubelet
from .load import Load
from .prometheus import Prometheus, prometheus

NAMESPACE = "hone"
FASTER = 10
"""Every time of the autoscaling is a tenth: windows and periods of the autoscaler, its turns, scrapes and rates."""
PEAK = 28
"""Requests per second: more than twice what the fewest pods hold."""
PATIENCE_S = 240.0

HPA = "--horizontal-pod-autoscaler"
MANAGER = " ".join(
    (
        f"{HPA}-sync-period=1500ms", f"{HPA}-cpu-initialization-period=30s", f"{HPA}-initial-readiness-delay=3s",
        "--kube-api-qps=200", "--kube-api-burst=400",
    )
)  # fmt: skip
SCRAPE_S, RATE_S = 15 / FASTER, 60 / FASTER
COMPONENTS = ("in-flight-hpa", "metrics")


@dataclass
class Stack:
    """What tests work with.

    Attributes:
        images: by name.
        key: of the API.
    """

    plane: ControlPlane
    kubelet: Kubelet
    balancer: Balancer
    images: dict[str, Image]
    key: str
    folder: Path
    loads: int = field(default=0)

    def deploy(self, image: Image) -> None:
        """Render manifests with an image and its capacity, and apply them."""
        folder = self.folder / f"deploy-{time.monotonic_ns()}"
        capacity = folder.with_suffix(".json")
        capacity.write_text(image.capacity().model_dump_json())
        options = ["--capacity", str(capacity), "--image", image.name, "--peak", str(PEAK), "--out", str(folder)]
        components = [part for name in COMPONENTS for part in ("--component", name)]
        hone(image, "k8s", "render", image.model, *options, *components)
        self.plane.apply([hastened(item) for item in for_server(manifests(folder))])

    def served(self) -> set[str]:
        """Return the names of the images whose pods are there, also of those that are going."""
        pods = self.plane.get("-n", NAMESPACE, "pods")["items"]
        return {pod["spec"]["containers"][0]["image"] for pod in pods}

    def settle(self, pods: int) -> None:
        """Wait until so many pods are ready, no other is there, and the proxies know it."""

        def settled() -> bool:
            ready = [life.ready for life in list(self.kubelet.lives.values())]
            return ready == [True] * pods and self.balancer.known() == pods

        self.plane.wait(f"{pods} pods", settled, PATIENCE_S)

    def wait(self, what: str, done: Callable[[], bool]) -> None:
        self.plane.wait(what, done, PATIENCE_S)

    def load(self, url: str, rate: float) -> Load:
        self.loads += 1
        return Load(self.folder / f"load-{self.loads}", url, self.key, rate)


@contextmanager
def running_stack(folder: Path) -> Iterator[Stack]:
    """Start all of it, with the first image deployed and the fewest pods ready.

    The folder's rest goes with the block: the code of an image is a copy of this checkout.
    """
    found = images(folder / "images")
    first = next(iter(found.values()))
    with cluster.control_plane(folder / "plane", MANAGER) as plane:
        key = prepare(plane, first, folder)
        kubelet = Kubelet(plane, NAMESPACE, found, folder / "pods")
        with (
            kubelet,
            prometheus(folder / "pods" / TARGETS, folder / "prometheus", SCRAPE_S, RATE_S) as asked,
            metrics_api(plane, folder, answers(kubelet, asked)),
            Balancer(plane, NAMESPACE, kubelet.port_of) as balancer,
        ):
            stack = Stack(plane, kubelet, balancer, found, key, folder)
            stack.deploy(first)
            kubelet.add("node-1")
            stack.settle(2)
            yield stack
    shutil.rmtree(folder / "images")


def prepare(plane: ControlPlane, image: Image, folder: Path) -> str:
    """Make a key, and the namespace with its Secret; return the key."""
    file = folder / "keys.yaml"
    key = hone(image, "keys", "new", "tests", "--file", str(file)).splitlines()[0]
    plane.kubectl("create", "namespace", NAMESPACE)
    plane.kubectl("-n", NAMESPACE, "create", "secret", "generic", "hone-api-keys", f"--from-file=keys.yaml={file}")
    return key


def hone(image: Image, *arguments: str) -> str:
    """Run a command with an image's code, which knows its models."""
    environment = {**os.environ, **image.environment}
    done = subprocess.run([HONE, *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def answers(kubelet: Kubelet, asked: Prometheus) -> Callable[[Mapping[str, str], str, float], Mapping[str, Sample]]:
    """Return what the metrics API says: the processor's use from the processes, all else from Prometheus."""

    def answer(_: Mapping[str, str], metric: str, __: float) -> Mapping[str, Sample]:
        if metric != "cpu":
            return asked.samples(NAMESPACE, metric)
        used = {name: life.usage() for name, life in list(kubelet.lives.items())}
        return {name: sample for name, sample in used.items() if sample is not None}

    return answer


def hastened(item: dict[str, Any]) -> dict[str, Any]:
    """Return an object; an autoscaler's times are a tenth of what they were, and nothing else of it is another."""
    if item["kind"] == "HorizontalPodAutoscaler":
        for rules in item["spec"]["behavior"].values():
            rules["stabilizationWindowSeconds"] //= FASTER
            for policy in rules["policies"]:
                policy["periodSeconds"] //= FASTER
    return item
