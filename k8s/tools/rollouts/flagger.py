"""Flagger: what serves runs in a Deployment that Flagger makes, and Flagger sets the weights of the route."""

from __future__ import annotations

from ...numbers import Object
from .parts import Added, documents, everywhere
from .queries import PROMETHEUS, WEIGHTS, difference, questions

_GENERATED = (("Service", "v1"), ("HTTPRoute", "gateway.networking.k8s.io/v1"))


def flagger(limit_s: float, window_s: float) -> Added:
    """Return a Canary, and what it is judged by; arguments are as `argo` takes them."""
    window = f"{window_s:g}s"
    pods = {"canary": "hone-[0-9a-zA-Z]+(-[0-9a-zA-Z]+)", "stable": "hone-primary-.*"}
    templates, metrics = [], []
    for name, events, _ in questions(limit_s, window):
        query = difference(events, pods, window, side=-1)
        spec = {"provider": {"type": "prometheus", "address": PROMETHEUS}, "query": query}
        templates.append(
            {
                "apiVersion": "flagger.app/v1beta1",
                "kind": "MetricTemplate",
                "metadata": {"name": f"hone-{name}"},
                "spec": spec,
            }
        )
        # The lower bound of the difference: over zero, the new version is worse beyond doubt. No figure fails, too.
        metrics.append(
            {
                "name": f"more {name}",
                "templateRef": {"name": f"hone-{name}"},
                "thresholdRange": {"max": 0},
                "interval": window,
            }
        )
    route = next(item for item in documents("components/gateway/gateway.yaml") if item["kind"] == "HTTPRoute")["spec"]
    service = {
        "port": 80, "portName": "http", "targetPort": "http", "appProtocol": "http", "timeout": "30s",
        "hosts": route["hostnames"], "gatewayRefs": [{"name": "hone", "namespace": "hone"}], "match": _match(route),
    }  # fmt: skip
    canary = {
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "hone"},
        "spec": {
            "provider": "gatewayapi:v1",
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "hone"},
            # Flagger makes hone-primary a copy of it: each version has an autoscaler of its own.
            "autoscalerRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "hone"},
            "progressDeadlineSeconds": 600,
            "service": service,
            "analysis": {"interval": window, "threshold": 1, "stepWeights": list(WEIGHTS), "metrics": metrics},
        },
    }
    # Flagger writes the Service and the route itself; its copy of the pods has another app.kubernetes.io/name.
    gone = tuple(line for kind, of in _GENERATED for line in _deleted(kind, of))
    return Added([canary, *templates], (*gone, *everywhere("In [server]")))


def _deleted(kind: str, version: str) -> tuple[str, ...]:
    return (
        "  - patch: |-",
        "      $patch: delete",
        f"      apiVersion: {version}",
        f"      kind: {kind}",
        "      metadata: {name: hone}",
    )


def _match(route: Object) -> list[Object]:
    """Return the paths that a route lets in, as Flagger writes them."""
    paths = [one["path"] for one in route["rules"][0]["matches"]]
    return [{"uri": {"exact" if path["type"] == "Exact" else "prefix": path["value"]}} for path in paths]
