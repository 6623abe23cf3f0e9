"""Nothing but the Gateway API: a second Deployment with an autoscaler of its own, and weights in the route."""

from __future__ import annotations

import copy

from ...numbers import Object
from .parts import Added, documents, everywhere, labels, selected

CANARY_IMAGE = "hone-model-canary"


def gateway() -> Added:
    """Return a second of everything that has to do with pods, and a route that knows both."""
    kinds = ("deployment", "hpa", "service", "pdb")
    copies = [_canary_of(item) for kind in kinds for item in documents(f"base/{kind}.yaml")]
    weighed = (
        "  - target: {kind: HTTPRoute, name: hone}",
        "    patch: |-",
        "      # Change the weights to give the canary more: 95 and 5, 75 and 25, and so on.",
        "      - op: replace",
        "        path: /spec/rules/0/backendRefs",
        "        value:",
        "          - {name: hone, port: 80, weight: 100}",
        "          - {name: hone-canary, port: 80, weight: 0}",
    )
    return Added(copies, (*weighed, *everywhere("In [server, canary]")))


def _canary_of(item: Object) -> Object:
    """Return a copy of one of the base's objects for a second version, with pods that the first one's don't match."""
    made = copy.deepcopy(item)
    made["metadata"]["name"] = "hone-canary"
    made["metadata"]["labels"] = labels("canary")
    spec = made["spec"]
    if item["kind"] == "Service":
        spec["selector"] = selected("canary")
    elif item["kind"] == "HorizontalPodAutoscaler":
        spec["scaleTargetRef"]["name"] = "hone-canary"
        spec["minReplicas"] = 1
    else:
        spec["selector"] = {"matchLabels": selected("canary")}
    if item["kind"] == "Deployment":
        template = spec["template"]
        template["metadata"]["labels"] = labels("canary")
        for spread in template["spec"]["topologySpreadConstraints"]:
            spread["labelSelector"] = {"matchLabels": selected("canary")}
        template["spec"]["containers"][0]["image"] = CANARY_IMAGE
    return made


def for_canary(patches: list[str]) -> tuple[str, ...]:
    """Return the patches that give the measured numbers to the second Deployment and its autoscaler."""
    of_deployment = ("  - path: measured-deployment.yaml", "    target: {kind: Deployment, name: hone-canary}")
    if patches[:1] != ["  - path: measured-autoscaler.yaml"]:
        return of_deployment
    named, rest = "    target: {kind: HorizontalPodAutoscaler, name: hone-canary}", patches[1:]
    rest = rest[1:] if rest[:1] == ["    target: {kind: HorizontalPodAutoscaler, name: hone}"] else rest
    again = (
        line.replace("HorizontalPodAutoscaler, name: hone}", "HorizontalPodAutoscaler, name: hone-canary}")
        for line in rest
    )
    return (*of_deployment, patches[0], named, *again)
