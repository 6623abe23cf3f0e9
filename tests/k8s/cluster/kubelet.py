"""A kubelet for tests: pods that the scheduler bound are real processes on this machine.

There are no namespaces of the kernel: every pod listens on a port of its own at 127.0.0.1, which stands for its
address in the cluster, and what its environment says of mounted paths is said of the pod's own folder.
"""

from __future__ import annotations

import base64
import json
import os
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.files import atomic_write
from hone.services.launch import free_port
from tests.cluster import ControlPlane, Nodes

from .container import Container
from .image import Image

Object = dict[str, Any]
TARGETS = "targets.json"
"""In the kubelet's folder: the pods that run, as Prometheus discovers targets by a file."""


class Kubelet(Nodes):
    """Runs the pods of one namespace.

    Args:
        images: by the names that manifests give.
        folder: of the pods' files.

    Attributes:
        ends: (pod, exit status, killed) of each container that was told to go.
        lives: the containers by the pods' names, of those that are there.
    """

    look_s = 0.5

    def __init__(self, cluster: ControlPlane, namespace: str, images: Mapping[str, Image], folder: Path) -> None:
        super().__init__(cluster, namespace, "server")
        self._namespace = namespace
        self._told = ""
        folder.mkdir()
        self._core = f"/api/v1/namespaces/{namespace}"
        self._images = images
        self._folder = folder
        self._numbers = 0
        self._addresses: dict[str, str] = {}
        self._ready_since: dict[str, tuple[bool, float]] = {}
        self._lock = threading.Lock()
        self.lives: dict[str, Container] = {}
        self.ends: list[tuple[str, int, bool]] = []

    def port_of(self, address: str) -> int | None:
        """Return the port on this machine that stands for a pod's address."""
        with self._lock:
            name = self._addresses.get(address, "")
            return self.lives[name].port if name in self.lives else None

    def name_of(self, address: str) -> str:
        with self._lock:
            return self._addresses[address]

    def __exit__(self, *problem: object) -> None:
        try:
            super().__exit__(*problem)
        finally:
            for life in self.lives.values():
                life.finish()

    def _look(self) -> None:
        ready = there = 0
        for pod in self._call("GET", self._pods)["items"]:
            name, going = pod["metadata"]["name"], "deletionTimestamp" in pod["metadata"]
            life = self.lives.get(name)
            if going:
                self._let_go(name, life)
            elif life is not None:
                ready, there = ready + life.ready, there + 1
            elif pod["spec"].get("nodeName"):
                self._start(pod)
                there += 1
        self.seen.append((ready, there))
        self._tell()

    def _tell(self) -> None:
        """Write down where the pods are, and how a cluster's discovery would label them."""
        targets = [
            {"targets": [f"127.0.0.1:{life.port}"], "labels": {"namespace": self._namespace, "pod": name}}
            for name, life in self.lives.items()
        ]
        text = json.dumps(targets)
        if text != self._told:
            atomic_write(self._folder / TARGETS, text)
            self._told = text

    def _let_go(self, name: str, life: Container | None) -> None:
        if life is not None:
            life.go()
            if life.ended is None:
                return
            self.ends.append((name, *life.ended))
        self._call("DELETE", f"{self._pods}/{name}", {"gracePeriodSeconds": 0})
        with self._lock:
            self.lives.pop(name, None)

    def _start(self, pod: Object) -> None:
        name, spec = pod["metadata"]["name"], pod["spec"]
        (container,) = spec["containers"]
        image = self._images[container["image"]]
        folder = self._folder / name
        mounts = {mount["mountPath"]: folder / mount["name"] for mount in container["volumeMounts"]}
        for volume in spec["volumes"]:
            self._mount(volume, folder / volume["name"])
        port = free_port()
        self._numbers += 1
        address = f"10.244.{self._numbers // 250}.{self._numbers % 250 + 1}"
        outer = {key: value for key, value in os.environ.items() if not key.startswith("HONE_")}
        said = {key: _inside(value, mounts) for key, value in self._variables(container).items()}
        environment = {**outer, **image.environment, "TMPDIR": str(mounts["/tmp"]), **said}
        command = [part.format(port=port) for part in image.command]

        def report() -> None:
            self._patch(f"{self._pods}/{name}/status", {"status": self._status(name, address, container)})

        life = Container(spec, command, environment, image.root, port, folder / "log", report)
        with self._lock:
            self.lives[name], self._addresses[address] = life, name
        report()

    def _variables(self, container: Object) -> dict[str, str]:
        """Return what `envFrom` and `env` say; a ConfigMap is read when the container starts."""
        found: dict[str, str] = {}
        for source in container.get("envFrom", []):
            found |= self._call("GET", f"{self._core}/configmaps/{source['configMapRef']['name']}")["data"]
        return found | {entry["name"]: entry["value"] for entry in container.get("env", [])}

    def _mount(self, volume: Object, folder: Path) -> None:
        folder.mkdir(parents=True)
        if "secret" in volume:
            secret = self._call("GET", f"{self._core}/secrets/{volume['secret']['secretName']}")
            for name, content in secret["data"].items():
                (folder / name).write_bytes(base64.b64decode(content))
        else:
            assert "emptyDir" in volume, volume

    def _status(self, name: str, address: str, container: Object) -> Object:
        life = self.lives[name]
        before = self._ready_since.get(name)
        if before is None or before[0] != life.ready:
            before = self._ready_since[name] = (life.ready, time.time())
        started, changed = _text(life.started_at), _text(before[1])
        ready = str(life.ready)
        conditions = {
            "PodScheduled": ("True", started), "Initialized": ("True", started),
            "ContainersReady": (ready, changed), "Ready": (ready, changed),
        }  # fmt: skip
        told = {
            "name": container["name"], "image": container["image"], "imageID": "", "ready": life.ready, "started": True,
            "restartCount": life.restarts, "state": {"running": {"startedAt": started}},
        }  # fmt: skip
        return {
            "phase": "Running", "startTime": started, "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [
                {"type": kind, "status": value, "lastTransitionTime": since}
                for kind, (value, since) in conditions.items()
            ],
            "containerStatuses": [told],
        }  # fmt: skip


def _inside(value: str, mounts: Mapping[str, Path]) -> str:
    """Return a variable whose paths in volumes are those of the pod's folder."""
    for path, folder in mounts.items():
        if value == path or value.startswith(f"{path}/"):
            return f"{folder}{value[len(path) :]}"
    return value


def _text(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
