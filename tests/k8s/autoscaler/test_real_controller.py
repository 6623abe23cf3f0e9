"""The simulation beside the real HorizontalPodAutoscaler, Deployment and ReplicaSet controllers and scheduler.

Both see pods through the same samples. What is the controller's own is compared: the number of replicas, turn by turn.
All times are short ones, as the controller's flags allow: turns of 2 s, a start of 3 s, windows of 20 s.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hone.k8s.autoscaler.fleet import Cohort, Load
from hone.k8s.autoscaler.hpa.calculator import Sample
from hone.k8s.autoscaler.hpa.flags import Flags
from hone.k8s.autoscaler.hpa.spec import Autoscaler, parse_autoscaler
from hone.k8s.autoscaler.pod import Pod
from hone.k8s.autoscaler.sight import IN_FLIGHT, Scraping, Sight
from hone.k8s.autoscaler.simulate import Setting, at_rest, simulate
from hone.k8s.autoscaler.trace import SHAPES, Trace
from tests import cluster
from tests.cluster import ControlPlane, Nodes, for_server

from .metrics_api import metrics_api

NAMESPACE = "autoscaled"
POD = Pod(capacity_rps=100, latency_s=0.05, cpu_cores=0.8, start_s=3)
FLAGS = Flags(sync_s=2, initialization_s=20, readiness_s=5, downscale_window_s=20, release=(1, 20))
SCRAPING = Scraping(every_s=2, offset_s=1, window_s=8)
DURATION_S, LEAD_S, TICK_S = 100, 60, 0.1
LOWEST, FACTOR = 130.0, 4.0
LONG_AGO, NOT_YET = -1e9, 1e9

PREFIX = "--horizontal-pod-autoscaler"
MANAGER = " ".join(
    (
        f"{PREFIX}-sync-period={FLAGS.sync_s}s", f"{PREFIX}-cpu-initialization-period={FLAGS.initialization_s}s",
        f"{PREFIX}-initial-readiness-delay={FLAGS.readiness_s}s", "--kube-api-qps=500", "--kube-api-burst=1000",
        f"{PREFIX}-downscale-stabilization={FLAGS.downscale_window_s}s",
    )
)  # fmt: skip

TARGETS: dict[str, dict[str, Any]] = {
    "cpu": {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 45}},
    },
    "rows": {
        "type": "Pods",
        "pods": {"metric": {"name": IN_FLIGHT}, "target": {"type": "AverageValue", "averageValue": "2500m"}},
    },
}  # fmt: skip


def autoscaler_object(name: str, metric: str) -> dict[str, Any]:
    """Return the base's autoscaler with a metric, its times shortened like all others."""
    rules = {"stabilizationWindowSeconds": 0, "selectPolicy": "Max"}
    up = [{"type": "Percent", "value": 100, "periodSeconds": 4}, {"type": "Pods", "value": 2, "periodSeconds": 4}]
    down = [{"type": "Percent", "value": 20, "periodSeconds": 8}]
    return {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": 2, "maxReplicas": 12, "metrics": [TARGETS[metric]],
            "behavior": {
                "scaleUp": {**rules, "policies": up},
                "scaleDown": {**rules, "stabilizationWindowSeconds": 20, "selectPolicy": "Min", "policies": down},
            },
        },
    }  # fmt: skip


def deployment(name: str, replicas: int) -> dict[str, Any]:
    container = {"name": "model", "image": "none", "resources": {"requests": {"cpu": "1"}}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}},
        },
    }  # fmt: skip


@dataclass
class App:
    """One Deployment, its load, and what was seen of it; times are in seconds after the load's begin.

    Attributes:
        turns: when the controller asked for its metric.
        wanted: (time, replicas) whenever looked at.
        starts: from a change of the wanted replicas until a pod was ready.
    """

    name: str
    autoscaler: Autoscaler
    trace: Trace
    load: Load
    pods: dict[str, Cohort] = field(default_factory=dict)
    tick: int = 0
    turns: list[float] = field(default_factory=list)
    wanted: list[tuple[float, int]] = field(default_factory=list)
    starts: list[float] = field(default_factory=list)

    def work(self, now: float) -> None:
        """Let the pods that are ready work until now."""
        until = min(int((now + LEAD_S) / TICK_S), len(self.load.arrivals))
        self.load.advance(self.tick, until, sum(pod.ready_at <= now for pod in self.pods.values()), POD)
        self.tick = max(self.tick, until)

    def changed(self, now: float, replicas: int) -> None:
        if not self.wanted or self.wanted[-1][1] != replicas:
            self.wanted.append((now, replicas))


class World(Nodes):
    """The kubelets: a pod is started when it was bound to a node, ready after its start, and gone when told to go."""

    def __init__(self, plane: ControlPlane, apps: dict[str, App]) -> None:
        super().__init__(plane, NAMESPACE, "")
        self.apps = apps
        self.begin = 0.0
        self._begun: dict[str, float] = {}
        self._lock = threading.Lock()

    def samples(self, labels: Mapping[str, str], metric: str, now: float) -> Mapping[str, Sample]:
        """Return what metrics-server and the adapter would say of an application's pods."""
        if not self.begin:
            return {}
        with self._lock:
            app, t = self.apps[labels["app"]], now - self.begin
            app.work(t)
            app.turns.append(t)
            sight = Sight(app.load, POD, SCRAPING, LEAD_S)
            fleet: Any = SimpleNamespace(cohorts=list(app.pods.values()))
            (wanted,) = app.autoscaler.metrics
            assert wanted.name == metric
            said: Any = sight.seen((wanted,), fleet, t)[wanted]
            known = {name: pods.sample for name, pods in zip(app.pods, said, strict=True) if pods.sample}
            return {name: replace(sample, at=sample.at + self.begin) for name, sample in known.items()}

    def _look(self) -> None:
        names = self._deployments()
        now = time.time()
        found = self._call("GET", self._pods)["items"]
        with self._lock:
            t = now - self.begin if self.begin else -LEAD_S
            for app in self.apps.values():
                if self.begin:
                    app.work(t)
                    app.changed(t, names[app.name])
            going = [pod for pod in found if "deletionTimestamp" in pod["metadata"]]
            for pod in going:
                self.apps[pod["metadata"]["labels"]["app"]].pods.pop(pod["metadata"]["name"], None)
        for pod in going:
            self._call("DELETE", f"{self._pods}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
        for pod in found:
            if pod not in going and pod["spec"].get("nodeName"):
                self._lead(pod, now)

    def _deployments(self) -> dict[str, int]:
        path = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
        return {item["metadata"]["name"]: item["spec"]["replicas"] for item in self._call("GET", path)["items"]}

    def _lead(self, pod: dict[str, Any], now: float) -> None:
        """Start a pod, or make it ready when its time has come."""
        name, app = pod["metadata"]["name"], self.apps[pod["metadata"]["labels"]["app"]]
        if name not in self._begun:
            self._begun[name] = now
            self._patch(f"{self._pods}/{name}/status", {"status": status(now, False, now)})
            if self.begin:
                with self._lock:
                    app.pods[name] = Cohort(1, now - self.begin, NOT_YET)
        elif name in app.pods and app.pods[name].ready_at < NOT_YET:
            return
        elif now >= self._begun[name] + (POD.start_s if self.begin else 0):
            self._patch(f"{self._pods}/{name}/status", {"status": status(self._begun[name], True, now)})
            ready_at = time.time() - self.begin
            with self._lock:
                if not self.begin:
                    app.pods[name] = Cohort(1, LONG_AGO, LONG_AGO)
                    return
                app.work(ready_at)
                app.pods[name].ready_at = ready_at
                app.starts.append(ready_at - app.wanted[-1][0])


def status(started: float, ready: bool, changed: float) -> dict[str, Any]:
    def text(seconds: float) -> str:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

    condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": text(changed)}
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": text(started)}
    return {"phase": "Running", "startTime": text(started), "conditions": [placed, condition]}


def app_of(shape: str, metric: str) -> App:
    name = f"{shape}-{metric}"
    at = np.arange(DURATION_S) / DURATION_S
    trace = Trace(0.0, 1.0, LOWEST * SHAPES[shape][0](at, FACTOR))
    load = Load.of(np.concatenate((np.full(int(LEAD_S / TICK_S), trace.rates[0]), trace.ticks(TICK_S))), TICK_S)
    return App(name, parse_autoscaler(autoscaler_object(name, metric), name), trace, load)


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, App]]:
    """Let all applications run side by side, each with its own autoscaler."""
    if reason := cluster.missing():
        pytest.skip(reason)
    apps = {
        app.name: app
        for shape in ("step", "ramp", "burst", "day")
        for app in (app_of(shape, "cpu"), app_of(shape, "rows"))
    }
    folder: Path = tmp_path_factory.mktemp("autoscaled")
    with cluster.control_plane(folder / "plane", MANAGER) as plane:
        world = World(plane, apps)
        with metrics_api(plane, folder, world.samples), world:
            run(plane, world)
        yield apps


def run(plane: ControlPlane, world: World) -> None:
    plane.kubectl("create", "namespace", NAMESPACE)
    for number in range(3):
        world.add(f"node-{number}")
    first = {app.name: at_rest(POD, app.autoscaler, float(app.trace.rates[0])) for app in world.apps.values()}
    plane.apply([deployment(name, replicas) for name, replicas in first.items()])
    plane.wait("ready pods", lambda: all(len(app.pods) == first[app.name] for app in world.apps.values()), 60)
    # A sample has to be younger than the pod by a window, or the pod isn't counted yet.
    time.sleep(2 * SCRAPING.every_s)
    for app in world.apps.values():
        app.work(0.0)
    world.begin = time.time()
    objects = [autoscaler_object(app.name, app.name.split("-")[1]) for app in world.apps.values()]
    plane.apply(for_server(objects))
    time.sleep(max(0.0, world.begin + DURATION_S - time.time()))


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("metric", ["cpu", "rows"])
@pytest.mark.parametrize("shape", ["step", "ramp", "burst", "day"])
def test_trajectory_is_that_of_the_real_controller(seen: dict[str, App], shape: str, metric: str) -> None:
    """Within one pod at 95 % of the turns; the simulation is told when these were, and how long starts took."""
    app = seen[f"{shape}-{metric}"]
    turns = [t for t in app.turns if t < DURATION_S - FLAGS.sync_s]
    assert len(turns) > 0.8 * DURATION_S / FLAGS.sync_s
    start_s = float(np.median(app.starts))
    setting = Setting(
        POD.model_copy(update={"start_s": start_s}), app.autoscaler, FLAGS, SCRAPING,
        replicas=app.wanted[0][1], turns=turns, tick_s=TICK_S,
    )  # fmt: skip
    steps = simulate(setting, app.trace).steps
    real = [max(moment for moment in app.wanted if moment[0] <= until)[1] for until in (*turns[1:], DURATION_S)]
    near = [abs(step.desired - wanted) <= 1 for step, wanted in zip(steps, real, strict=True)]
    assert max(real) >= 2 * real[0] - 1, "nothing happened"
    assert np.mean(near) >= 0.95, f"{[step.desired for step in steps]} and really {real}, start {start_s:.2f} s"
