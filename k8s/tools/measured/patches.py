"""Patches that put measured numbers into the Deployment and the autoscaler, each number with where it is from."""

from __future__ import annotations

from pathlib import Path

from hone.capacity import Capacity

from ...autoscaler.hpa.flags import Release
from ...numbers import TOLERANCE_ON, TOLERANCE_UP, Numbers, Object, metrics_of, uses_keda


def autoscaler_patches(
    folder: Path, components: tuple[str, ...], numbers: Numbers, given: Object | None, release: Release | None
) -> list[str]:
    """Write the patch of the autoscaler, if one is left, and return the lines that make kustomize use it."""
    if uses_keda(components):
        return _scaled_object_patches(numbers)
    text = _autoscaler_patch(numbers, release) if given is None else _given_autoscaler(given)
    (folder / "measured-autoscaler.yaml").write_text(text)
    return _metric_patches(components, numbers) if given is None else GIVEN


def deployment_patch(numbers: Numbers, capacity: Capacity) -> str:
    why = {number.field: number.origin for number in numbers.sources}
    slo = capacity.slo
    return f"""# From capacity.json: {capacity.command}, {capacity.created}.
# Limit: {slo.percentile.removesuffix("_ms")} <= {slo.limit_ms:g} ms, errors <= {slo.errors:.2%}.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: hone
spec:
  template:
    spec:
      containers:
        - name: model
          resources:
            requests: &measured
              cpu: "{numbers.cpu}"  # {why["cpu"]}
              memory: {numbers.memory_mib}Mi  # {why["memory"]}
              ephemeral-storage: 256Mi
            limits: *measured
          startupProbe:
            failureThreshold: {numbers.startup_failures}  # {why["startup probe"]}
"""


def _autoscaler_patch(numbers: Numbers, release: Release | None) -> str:
    why = {number.field: number.origin for number in numbers.sources}
    sooner = f"""  behavior:
    scaleUp:
      tolerance: "{TOLERANCE_UP}"
"""
    return f"""apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: hone
spec:
  minReplicas: {numbers.minimum}  # {why["minReplicas"]}
  maxReplicas: {numbers.maximum}  # {why["maxReplicas"]}
{sooner if release is not None and release >= TOLERANCE_ON else ""}"""


def _given_autoscaler(item: Object) -> str:
    """Return a patch that leaves nothing of the base's bounds, metrics and behavior."""
    import yaml

    spec = item["spec"]
    fields = {"minReplicas": spec.get("minReplicas", 1), "maxReplicas": spec["maxReplicas"], "metrics": spec["metrics"]}
    changes: list[Object] = [
        {"op": "replace", "path": f"/spec/{name}", "value": value} for name, value in fields.items()
    ]
    behavior = spec.get("behavior")
    if behavior:
        changes.append({"op": "replace", "path": "/spec/behavior", "value": behavior})
    else:
        changes.append({"op": "remove", "path": "/spec/behavior"})
    text: str = yaml.safe_dump(changes, sort_keys=False)
    return f"# The autoscaler that was given with --autoscaler.\n{text}"


GIVEN = ["  - path: measured-autoscaler.yaml", "    target: {kind: HorizontalPodAutoscaler, name: hone}"]


def _scaled_object_patches(numbers: Numbers) -> list[str]:
    """Return the patches of KEDA's object; the plain autoscaler is gone with it."""
    return [
        "  - target: {kind: ScaledObject, name: hone}",
        "    patch: |-",
        f"      - {{op: replace, path: /spec/minReplicaCount, value: {numbers.minimum}}}",
        f"      - {{op: replace, path: /spec/maxReplicaCount, value: {numbers.maximum}}}",
        f'      - {{op: replace, path: /spec/triggers/0/metadata/threshold, value: "{numbers.in_flight:g}"}}',
        f'      - {{op: replace, path: /spec/triggers/1/metadata/value, value: "{numbers.cpu_target}"}}',
    ]


def _metric_patches(components: tuple[str, ...], numbers: Numbers) -> list[str]:
    lines = [
        "  - path: measured-autoscaler.yaml",
        "  - target: {kind: HorizontalPodAutoscaler, name: hone}",
        "    patch: |-",
        "      - op: replace",
        "        path: /spec/metrics/0/resource/target/averageUtilization",
        f"        value: {numbers.cpu_target}",
    ]
    # A quantity: thousandths are written with m.
    values = {
        "in-flight-hpa": ("pods/target/averageValue", f'"{round(numbers.in_flight * 1000)}m"'),
        "memory-hpa": ("resource/target/averageUtilization", numbers.memory_target),
    }
    for at, name in enumerate(metrics_of(components), 1):
        path, value = values[name]
        lines += ["      - op: replace", f"        path: /spec/metrics/{at}/{path}", f"        value: {value}"]
    return lines
