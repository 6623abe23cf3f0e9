"""Manifests with measured numbers: `hone k8s render`.

Every number that depends on the model comes from its measured capacity (`hone bench capacity`), and says so beside it.
A number that was never measured is not made up: the command refuses.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from hone.capacity import Capacity, read_capacity
from hone.errors import HoneError
from hone.files import atomic_directory
from hone.plan import VARIABLE

from .image_record import parsed_image

K8S = Path(__file__).parent.parent
HEADROOM = 0.7
"""Share of the capacity at which another replica is wanted: a new pod takes its time, and load doesn't wait."""

PLAN = "plan.json"
NOISY = 0.5
"""Spread of the repeats above which the numbers come with a warning."""

MEMORY_ROOM = 1.35
"""Over the most that was seen, for larger requests than those of the trials."""

RUN_MIB = 64
"""The service's tmpfs, which counts as its memory."""

FEWEST_PODS = 2


@dataclass(frozen=True)
class Number:
    """A value in a manifest and where it is from."""

    field: str
    value: str
    origin: str


@dataclass(frozen=True)
class Numbers:
    """What `render` puts into the manifests.

    Attributes:
        cpu: whole cores of a pod.
        memory_mib: of a pod.
        cpu_target: percent of its cores at which another pod is wanted.
        in_flight: rows in flight of a pod at which another one is wanted.
        startup_failures: probes, two seconds apart, that a pod may miss while it starts.
        minimum, maximum: pods.
        sources: where each is from, in words.
    """

    cpu: int
    memory_mib: int
    cpu_target: int
    in_flight: float
    startup_failures: int
    minimum: int
    maximum: int
    sources: tuple[Number, ...]


def render(
    model: str,
    tag: str,
    image: str,
    capacity_file: Path,
    out: Path,
    *,
    peak: float | None,
    components: tuple[str, ...],
    remarks: tuple[str, ...] = (),
    digest: str | None = None,
) -> Numbers:
    """Write a kustomize folder of its own: base, components and an overlay with measured numbers.

    Args:
        model: as the user named it.
        tag: the stored artifact that it means.
        image: of `hone containerize`; by tag or digest.
        capacity_file: of `hone bench capacity`, for the same artifact.
        out: a new folder.
        peak: requests per second that are expected at most; None keeps the base's bounds.
        components: of `components/`, to include.
        remarks: lines for numbers.md, such as what is known of the image.
        digest: of the stored artifact; None isn't compared.

    Raises:
        HoneError: the capacity is of another model or lacks a measurement, or an argument is wrong.
    """
    match = parsed_image(image)
    _check_components(components)
    capacity = read_capacity(capacity_file)
    capacity.require(tag, digest, capacity_file)
    numbers = numbers_of(capacity, tag, capacity_file, peak)
    if out.exists():
        raise HoneError(f"{out} exists; give a new folder, or remove it")
    with atomic_directory(out) as folder:
        shutil.copytree(K8S / "base", folder / "base")
        for name in components:
            shutil.copytree(K8S / "components" / name, folder / "components" / name)
        shutil.copyfile(capacity_file, folder / "capacity.json")
        (folder / "measured-deployment.yaml").write_text(_deployment_patch(numbers, capacity))
        if "keda" not in components:
            (folder / "measured-autoscaler.yaml").write_text(_autoscaler_patch(numbers))
        if capacity.plan is not None:
            (folder / PLAN).write_text(capacity.plan.model_dump_json(indent=2) + "\n")
        (folder / "kustomization.yaml").write_text(_kustomization(model, match, components, numbers, capacity))
        (folder / "numbers.md").write_text(to_markdown(numbers, capacity, remarks))
    return numbers


def _plan_number(capacity: Capacity) -> Number:
    if capacity.plan is None:
        return Number(
            "plan", "none", "each pod measures how it runs: measure again, with a service that tells its plan"
        )
    return Number("plan", "pinned", f"{PLAN}: {capacity.plan.describe()}")


def _check_components(names: tuple[str, ...]) -> None:
    known = sorted(path.name for path in (K8S / "components").iterdir() if path.is_dir())
    for name in names:
        if name not in known:
            raise HoneError(f"--component: no '{name}'; there are {', '.join(known)}")


def numbers_of(capacity: Capacity, tag: str, file: Path, peak: float | None = None) -> Numbers:
    """Return the numbers that a capacity gives.

    Raises:
        HoneError: it was measured for another artifact, or lacks what is needed; or the peak is no rate.
    """
    capacity.require(tag, None, file)
    trial = capacity.at_capacity
    if trial.cpu_cores is None or trial.rss_mb is None or capacity.ready_s is None:
        raise HoneError(
            f"{file}: processor, memory and start were not measured, because the service ran elsewhere; "
            "run hone bench capacity without --url on such a host as the pods will get"
        )
    cpu = max(1, math.ceil(trial.cpu_cores))
    memory = _round_up(trial.rss_mb * MEMORY_ROOM + RUN_MIB, 64)
    target = max(10, min(90, round(100 * HEADROOM * trial.cpu_cores / cpu)))
    in_flight = max(0.1, round(HEADROOM * capacity.in_flight_rows, 2))
    startup = max(15, math.ceil(3 * capacity.ready_s / 2))
    maximum, most = _most_pods(capacity, peak)
    at = f"at the measured {capacity.rate:g} requests/s"
    bound = "" if capacity.limited_by == "service" else " (the generator's limit: the service may hold more)"
    sources = (
        _plan_number(capacity),
        Number("cpu", str(cpu), f"{trial.cpu_cores:g} cores busy {at}, in whole cores{bound}"),
        Number("memory", f"{memory}Mi", f"{trial.rss_mb:g} MiB {at} x {MEMORY_ROOM:g} + {RUN_MIB} MiB of tmpfs"),
        Number("cpu utilization target", f"{target} %", f"{HEADROOM:g} x {trial.cpu_cores:g} of {cpu} cores"),
        Number("rows in flight target", f"{in_flight:g}", f"{HEADROOM:g} x {capacity.in_flight_rows:g} {at}"),
        Number("startup probe", f"{startup} x 2 s", f"3 x {capacity.ready_s:g} s from start to ready"),
        Number("minReplicas", str(FEWEST_PODS), "one may be lost while the other serves"),
        Number("maxReplicas", str(maximum), most),
    )
    return Numbers(cpu, memory, target, in_flight, startup, FEWEST_PODS, maximum, sources)


def _most_pods(capacity: Capacity, peak: float | None) -> tuple[int, str]:
    """Return maxReplicas for the requests per second that are expected at most, and where it is from."""
    if peak is None:
        return 10, "the base's; not measured, give --peak"
    if peak <= 0:
        raise HoneError("--peak: give the requests per second that are expected at most")
    pods = max(FEWEST_PODS + 1, math.ceil(peak / (HEADROOM * capacity.rate)) + 1)
    return pods, f"{peak:g} requests/s expected / ({HEADROOM:g} x {capacity.rate:g} a pod) + 1 for a pod that is lost"


def _round_up(value: float, step: int) -> int:
    return step * math.ceil(value / step)


def _deployment_patch(numbers: Numbers, capacity: Capacity) -> str:
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


def _autoscaler_patch(numbers: Numbers) -> str:
    why = {number.field: number.origin for number in numbers.sources}
    return f"""apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: hone
spec:
  minReplicas: {numbers.minimum}  # {why["minReplicas"]}
  maxReplicas: {numbers.maximum}  # {why["maxReplicas"]}
"""


def _kustomization(
    model: str, image: re.Match[str], components: tuple[str, ...], numbers: Numbers, capacity: Capacity
) -> str:
    version = [f"    newTag: {json.dumps(image['tag'][1:])}"] if image["tag"] else []
    version += [f"    digest: {image['digest'][1:]}"] if image["digest"] else []
    lines = [
        f"# {model}, with the numbers of capacity.json; numbers.md says where each is from.",
        "apiVersion: kustomize.config.k8s.io/v1beta1",
        "kind: Kustomization",
        "namespace: hone",
        "resources:",
        "  - base",
    ]
    if components:
        lines += ["components:", *(f"  - components/{name}" for name in components)]
    # The pods run what was measured.
    lines += ["configMapGenerator:", "  - name: hone-settings", "    behavior: merge"]
    lines += [f"    literals: [HONE_WORKERS={capacity.workers}]"]
    lines += [f"    files: [{VARIABLE}={PLAN}]"] if capacity.plan is not None else []
    lines += ["images:", "  - name: hone-model", f"    newName: {image['name']}", *version]
    lines += ["patches:", "  - path: measured-deployment.yaml"]
    if "keda" not in components:
        lines += ["  - path: measured-autoscaler.yaml", *_metric_patches(components, numbers)]
        return "\n".join(lines) + "\n"
    # The plain autoscaler is gone then; its numbers go to KEDA's.
    lines += [
        "  - target: {kind: ScaledObject, name: hone}",
        "    patch: |-",
        f"      - {{op: replace, path: /spec/minReplicaCount, value: {numbers.minimum}}}",
        f"      - {{op: replace, path: /spec/maxReplicaCount, value: {numbers.maximum}}}",
        f'      - {{op: replace, path: /spec/triggers/0/metadata/threshold, value: "{numbers.in_flight:g}"}}',
        f'      - {{op: replace, path: /spec/triggers/1/metadata/value, value: "{numbers.cpu_target}"}}',
    ]
    return "\n".join(lines) + "\n"


def _metric_patches(components: tuple[str, ...], numbers: Numbers) -> list[str]:
    lines = [
        "  - target: {kind: HorizontalPodAutoscaler, name: hone}",
        "    patch: |-",
        "      - op: replace",
        "        path: /spec/metrics/0/resource/target/averageUtilization",
        f"        value: {numbers.cpu_target}",
    ]
    if "in-flight-hpa" in components:
        lines += [
            "      - op: replace",
            "        path: /spec/metrics/1/pods/target/averageValue",
            # A quantity: thousandths are written with m.
            f'        value: "{round(numbers.in_flight * 1000)}m"',
        ]
    return lines


def to_markdown(numbers: Numbers, capacity: Capacity, remarks: tuple[str, ...] = ()) -> str:
    """Return the table of numbers and their origins."""
    trial = capacity.at_capacity
    noise = ["", "**The repeats differ much: measure again on a quieter host before you rely on these numbers.**"]
    lines = [
        f"# Numbers of {capacity.model}",
        "",
        f"`{capacity.command}`, {capacity.created}, on {capacity.host.get('cpu')}, {capacity.host.get('cores')} cores: "
        f"{capacity.rate:g} requests/s of {capacity.rows} row(s) with {capacity.slo.percentile.removesuffix('_ms')} "
        f"{getattr(trial, capacity.slo.percentile):g} ms (limit {capacity.slo.limit_ms:g} ms); "
        f"{sum(t.passed for t in capacity.repeats)} of {len(capacity.repeats)} repeats met it, "
        f"spread {capacity.spread:.0%}.",
        *(noise if capacity.spread > NOISY else []),
        *(line for remark in remarks for line in ("", remark)),
        "",
        "| number | value | from |",
        "|---|---|---|",
        *(f"| {number.field} | {number.value} | {number.origin} |" for number in numbers.sources),
    ]
    return "\n".join(lines) + "\n"
