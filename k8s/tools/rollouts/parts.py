"""What rollouts of every kind are made of: objects of the base, labels, and patches that concern all pods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from ...numbers import K8S, Object


@dataclass(frozen=True)
class Added:
    """What a kind of rollout adds to a kustomization.

    Attributes:
        resources: objects.
        patches: lines under `patches`.
    """

    resources: list[Object]
    patches: tuple[str, ...] = ()


def documents(path: str) -> list[Any]:
    """Return the objects in a file of `k8s`."""
    return list(yaml.safe_load_all((K8S / path).read_text()))


def selected(component: str) -> dict[str, str]:
    """Return the labels by which the pods of a component are chosen."""
    return {"app.kubernetes.io/name": "hone", "app.kubernetes.io/component": component}


def labels(component: str) -> dict[str, str]:
    """Return the labels of a component's objects."""
    more = {"app.kubernetes.io/part-of": "hone", "app.kubernetes.io/managed-by": "kustomize"}
    return {**selected(component), **more}


def everywhere(components: str) -> tuple[str, ...]:
    """Return patches that let callers and Prometheus reach the pods of both versions."""
    how, _, names = components.partition(" ")
    selector = (
        "        value:",
        "          matchLabels: {app.kubernetes.io/part-of: hone}",
        "          matchExpressions:",
        f"            - {{key: app.kubernetes.io/component, operator: {how}, values: {names}}}",
    )
    return tuple(
        line
        for kind, field in (("NetworkPolicy", "podSelector"), ("PodMonitor", "selector"))
        for line in (
            f"  - target: {{kind: {kind}, name: ^hone$}}",
            "    patch: |-",
            "      - op: replace",
            f"        path: /spec/{field}",
            *selector,
        )
    )
