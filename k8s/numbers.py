"""The numbers of manifests, each from a measurement, and the page that says which from what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hone.capacity import Capacity
from hone.errors import HoneError

from .autoscaler.hpa.flags import Flags, Release
from .autoscaler.hpa.quantities import from_milli
from .autoscaler.hpa.spec import parse_autoscaler
from .autoscaler.pod import pod_of
from .autoscaler.reaction import reaction
from .autoscaler.sight import IN_FLIGHT, Scraping, is_known

K8S = Path(__file__).parent
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
REFUSED = "; rows that are refused for want of room count like others, so overload shows"

SPARE_PODS = 1
"""Of those that hold a load, one may be lost: with its node, or while a successor starts."""

KEDA = ("keda", "scheduled-peaks")
"""Components whose autoscaler is KEDA's."""

METRICS = ("in-flight-hpa", "memory-hpa")
"""Components that add a metric to the plain autoscaler."""

Object = dict[str, Any]

TOLERANCE_UP = "0.05"
"""Share above the target at which more pods are wanted, in place of a tenth: late costs requests, early a pod."""

TOLERANCE_ON: Release = (1, 35)
"""The release from which on a tolerance of one's own needs no feature gate; servers drop it where the gate is off."""


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
        memory_target: percent of its memory at which another pod is wanted, with `components/memory-hpa`.
        in_flight: rows in flight of a pod at which another one is wanted.
        startup_failures: probes, two seconds apart, that a pod may miss while it starts.
        minimum, maximum: pods.
        sources: where each is from, in words.
    """

    cpu: int
    memory_mib: int
    cpu_target: int
    memory_target: int
    in_flight: float
    startup_failures: int
    minimum: int
    maximum: int
    sources: tuple[Number, ...]


def _plan_number(capacity: Capacity) -> Number:
    if capacity.plan is None:
        return Number(
            "plan", "none", "each pod measures how it runs: measure again, with a service that tells its plan"
        )
    return Number("plan", "pinned", f"{PLAN}: {capacity.plan.describe()}")


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
    cpu, memory = cores_of(trial.cpu_cores), memory_of(trial.rss_mb)
    target = max(10, min(90, round(100 * HEADROOM * trial.cpu_cores / cpu)))
    in_use = trial.rss_mb / memory
    memory_target = min(95, round(100 * (1 + in_use) / 2))
    in_flight = max(0.1, round(HEADROOM * capacity.in_flight_rows, 2))
    startup = max(15, math.ceil(3 * capacity.ready_s / 2))
    maximum, most = _most_pods(capacity, peak)
    at = f"at the measured {trial.rate:g} requests/s"
    bound = "" if capacity.limited_by == "service" else " (the generator's limit: the service may hold more)"
    sources = (
        Number("cpu", str(cpu), f"{trial.cpu_cores:g} cores busy {at}, in whole cores{bound}"),
        Number("memory", f"{memory}Mi", f"{trial.rss_mb:g} MiB {at} x {MEMORY_ROOM:g} + {RUN_MIB} MiB of tmpfs"),
        Number("cpu utilization target", f"{target} %", f"{HEADROOM:g} x {trial.cpu_cores:g} of {cpu} cores"),
        Number(
            "memory utilization target",
            f"{memory_target} %",
            f"the middle between {in_use:.0%} in use {at} and all of it; for components/memory-hpa",
        ),
        Number("rows in flight target", f"{in_flight:g}", f"{HEADROOM:g} x {capacity.in_flight_rows:g} {at}{REFUSED}"),
        Number("startup probe", f"{startup} x 2 s", f"3 x {capacity.ready_s:g} s from start to ready"),
        Number("minReplicas", str(FEWEST_PODS), "one may be lost while the other serves"),
        Number("maxReplicas", str(maximum), most),
    )
    return Numbers(cpu, memory, target, memory_target, in_flight, startup, FEWEST_PODS, maximum, sources)


def cores_of(busy: float) -> int:
    """Return the whole cores of a pod that keeps so many busy."""
    return max(1, math.ceil(busy))


def memory_of(resident_mib: float) -> int:
    """Return the memory of a pod, in MiB, whose processes were seen to hold so much at most."""
    return _round_up(resident_mib * MEMORY_ROOM + RUN_MIB, 64)


def pods_for(capacity: Capacity, rate: float, spare: int = SPARE_PODS) -> int:
    """Return the pods that hold a rate, in requests/s, with the headroom of the autoscaler and some to spare.

    Raises:
        HoneError: the capacity holds no rate.
    """
    if capacity.safe_rate <= 0:
        raise HoneError(f"{capacity.model}: held no rate with {capacity.slo.words}, so no number of pods does")
    return max(FEWEST_PODS, math.ceil(rate / (HEADROOM * capacity.safe_rate)) + spare)


def _most_pods(capacity: Capacity, peak: float | None) -> tuple[int, str]:
    """Return maxReplicas for the requests per second that are expected at most, and where it is from."""
    if peak is None:
        return 10, "the base's; not measured, give --peak"
    if peak <= 0:
        raise HoneError("--peak: give the requests per second that are expected at most")
    pods = max(FEWEST_PODS + 1, pods_for(capacity, peak))
    return (
        pods,
        f"{peak:g} requests/s expected / ({HEADROOM:g} x {capacity.safe_rate:g} a pod) + 1 for a pod that is lost",
    )


def _round_up(value: float, step: int) -> int:
    return step * math.ceil(value / step)


def autoscaler_of(numbers: Numbers | None, components: tuple[str, ...] = (), release: Release | None = None) -> Object:
    """Return the autoscaler that a rendered folder holds, or with KEDA the one that KEDA makes of it.

    Args:
        numbers: measured; None for the base's.
        components: of `components/`, that are included.
        release: of the cluster's Kubernetes, where it is known.
    """
    import yaml

    item: Object = yaml.safe_load((K8S / "base" / "hpa.yaml").read_text())
    spec = item["spec"]
    with_keda = uses_keda(components)
    for name in ("in-flight-hpa",) if with_keda else metrics_of(components):
        (patch,) = yaml.safe_load((K8S / "components" / name / "kustomization.yaml").read_text())["patches"]
        spec["metrics"].append(yaml.safe_load(patch["patch"])[0]["value"])
    if with_keda:
        scaled = yaml.safe_load((K8S / "components" / "keda" / "scaledobject.yaml").read_text())["spec"]
        spec["behavior"] = scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        spec["metrics"][1] = {"type": "External", "external": spec["metrics"][1]["pods"]}
    elif release is not None and release >= TOLERANCE_ON:
        spec["behavior"]["scaleUp"]["tolerance"] = TOLERANCE_UP
    if numbers is None:
        return item
    spec["minReplicas"], spec["maxReplicas"] = numbers.minimum, numbers.maximum
    spec["metrics"][0]["resource"]["target"]["averageUtilization"] = numbers.cpu_target
    for metric in spec["metrics"][1:]:
        target = metric[metric["type"].lower()]["target"]
        if metric["type"] == "Resource":
            target["averageUtilization"] = numbers.memory_target
        else:
            target["averageValue"] = from_milli(round(1000 * numbers.in_flight))
    return item


def uses_keda(components: Iterable[str]) -> bool:
    """True when the autoscaler is one that KEDA makes."""
    return bool(set(components) & set(KEDA))


def metrics_of(components: Iterable[str]) -> tuple[str, ...]:
    """Return the components that add a metric to the plain autoscaler, in the order of the metrics after the first."""
    return tuple(name for name in components if name in METRICS)


def with_autoscaler(numbers: Numbers, item: Mapping[str, Any], file: Path) -> Numbers:
    """Return numbers whose bounds and targets are those of an autoscaler, such as `hone k8s simulate` found."""
    autoscaler = parse_autoscaler(item, str(file))
    changed = {"minReplicas": str(autoscaler.minimum), "maxReplicas": str(autoscaler.maximum)}
    for metric in autoscaler.metrics:
        if metric.form == "Utilization":
            changed[f"{metric.name} utilization target"] = f"{metric.target} %"
        elif metric.name == IN_FLIGHT:
            changed["rows in flight target"] = f"{metric.target / 1000:g}"
    sources = tuple(
        Number(number.field, changed[number.field], f"{file.name}, given with --autoscaler")
        if number.field in changed
        else number
        for number in numbers.sources
    )
    return replace(numbers, minimum=autoscaler.minimum, maximum=autoscaler.maximum, sources=sources)


def reaction_lines(capacity: Capacity, file: Path, item: Mapping[str, Any], release: Release | None) -> list[str]:
    """Return the chapter on how fast the autoscaler reacts."""
    flags = Flags() if release is None else Flags(release=release)
    autoscaler = parse_autoscaler(item, "the rendered autoscaler")
    known = tuple(metric for metric in autoscaler.metrics if is_known(metric))
    left_out = ", ".join(metric.name for metric in autoscaler.metrics if not is_known(metric))
    head = ["", "## How fast it reacts", ""]
    if not known:
        return [*head, f"Not simulated: how {left_out} follows the load isn't known."]
    links = reaction(pod_of(capacity, file), replace(autoscaler, metrics=known), flags, Scraping())
    return [
        *head,
        "From a change in load to pods that hold it, with the defaults of the controller and of the scrapes.",
        "",
        "| link | takes | |",
        "|---|---|---|",
        *(f"| {link.name} | {link.value} | {link.why} |" for link in links),
        *(["", f"Without {left_out}, of which it isn't known how it follows the load."] if left_out else []),
    ]


def to_markdown(numbers: Numbers, capacity: Capacity, remarks: tuple[str, ...], reacts: list[str]) -> str:
    """Return the table of numbers and their origins, and how fast the autoscaler reacts."""
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
        *(
            f"| {number.field} | {number.value} | {number.origin} |"
            for number in (*numbers.sources, _plan_number(capacity))
        ),
        *reacts,
    ]
    return "\n".join(lines) + "\n"
