"""What kubectl tells of a cluster, and of the objects that a folder of manifests renders to."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hone.errors import HoneError, UnavailableError
from hone.processes import output_of


class Cluster:
    """Reads a cluster through kubectl.

    Args:
        arguments: of kubectl, that name the cluster; none: as it is configured.

    Raises:
        UnavailableError: kubectl is not installed.
    """

    def __init__(self, arguments: tuple[str, ...] = ()) -> None:
        _require_kubectl()
        self._command = ["kubectl", *arguments, "--request-timeout=10s"]

    def get(self, path: str) -> dict[str, Any]:
        """Return an API object.

        Raises:
            LookupError: it isn't there.
            PermissionError: this user may not see it.
            HoneError: the cluster doesn't answer.
        """
        try:
            return dict(json.loads(output_of([*self._command, "get", "--raw", path], "kubectl")))
        except HoneError as error:
            text = str(error)
        if "NotFound" in text or "not found" in text or "could not find" in text:
            raise LookupError(path)
        if "Forbidden" in text or "forbidden" in text:
            raise PermissionError(path)
        raise HoneError(f"the cluster doesn't answer: {text}")


def manifests(overlay: Path) -> list[dict[str, Any]]:
    """Return the objects that a kustomize folder renders to.

    Raises:
        HoneError: it doesn't render.
        UnavailableError: kubectl is not installed.
    """
    _require_kubectl()
    try:
        text = output_of(["kubectl", "kustomize", overlay], "kubectl kustomize")
    except HoneError as error:
        raise HoneError(f"{overlay}: doesn't render: {error}") from None
    return [item for item in yaml.safe_load_all(text) if item]


def containers(item: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the containers of an object's pods; none where it makes none."""
    if item["kind"] not in ("Deployment", "StatefulSet", "DaemonSet"):
        return []
    return list(item["spec"]["template"]["spec"].get("containers", []))


def _require_kubectl() -> None:
    if shutil.which("kubectl") is None:
        raise UnavailableError("kubectl is not installed", "kubernetes.io/docs/tasks/tools")
