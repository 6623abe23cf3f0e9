"""Argo Rollouts: pods made from the Deployment, and the metrics of both versions looked at after each step."""

from __future__ import annotations

from ...numbers import Object
from .parts import Added, labels
from .queries import PROMETHEUS, WEIGHTS, difference, questions

KNOWN = "len(result) > 0"
"""No figures are neither a success nor a failure."""

_HASHES = [
    {"name": "canary-hash", "valueFrom": {"podTemplateHashValue": "Latest"}},
    {"name": "stable-hash", "valueFrom": {"podTemplateHashValue": "Stable"}},
]


def argo(limit_s: float, window_s: float) -> Added:
    """Return a Rollout, and what it is judged by.

    Args:
        limit_s: a slower answer is a slow one.
        window_s: that each step takes.
    """
    window = f"{window_s:g}s"
    judged = {"analysis": {"templates": [{"templateName": "hone-canary"}], "args": _HASHES}}
    steps = [step for weight in WEIGHTS for step in ({"setWeight": weight}, {"pause": {"duration": window}}, judged)]
    rollout = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "hone", "labels": labels("server")},
        "spec": {
            "revisionHistoryLimit": 5,
            "minReadySeconds": 5,
            "progressDeadlineSeconds": 600,
            # The pods are those of the Deployment, which ends up without any.
            "workloadRef": {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "name": "hone",
                "scaleDown": "progressively",
            },
            "strategy": {"canary": {"maxSurge": 1, "maxUnavailable": 0, "steps": steps}},
        },
    }
    turned_over = (
        "  - target: {kind: HorizontalPodAutoscaler, name: hone}",
        "    patch: |-",
        "      - op: replace",
        "        path: /spec/scaleTargetRef",
        "        value: {apiVersion: argoproj.io/v1alpha1, kind: Rollout, name: hone}",
    )
    return Added([rollout, _template(limit_s, window)], turned_over)


def _template(limit_s: float, window: str) -> Object:
    """Return what is asked of Prometheus after each step."""
    pods = {"canary": "hone-{{args.canary-hash}}-.*", "stable": "hone-{{args.stable-hash}}-.*"}
    metrics = []
    for name, events, allowed in questions(limit_s, window):
        worse, better = (difference(events, pods, window, side=side) for side in (-1, 1))
        # Worse beyond doubt ends the rollout, good beyond doubt lets it go on, neither, or no figures, pauses it.
        metrics += [
            _analysis(f"{name}-not-worse", worse, f"{KNOWN} && result[0] <= 0", f"{KNOWN} && result[0] > 0"),
            _analysis(f"{name}-proven", better, f"{KNOWN} && result[0] <= {allowed:g}", "false"),
        ]
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "AnalysisTemplate",
        "metadata": {"name": "hone-canary"},
        "spec": {"args": [{"name": "canary-hash"}, {"name": "stable-hash"}], "metrics": metrics},
    }


def _analysis(name: str, query: str, success: str, failure: str) -> Object:
    return {
        "name": name,
        "count": 1,
        "successCondition": success,
        "failureCondition": failure,
        "provider": {"prometheus": {"address": PROMETHEUS, "query": query}},
    }
