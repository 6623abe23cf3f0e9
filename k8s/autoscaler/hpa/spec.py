"""An `autoscaling/v2` object as the simulation takes it: bounds, metrics and behavior, with the defaults of the API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from hone.errors import HoneError

from .quantities import to_milli

Select = Literal["Max", "Min", "Disabled"]
Kind = Literal["Resource", "ContainerResource", "Pods", "Object", "External"]


@dataclass(frozen=True)
class Policy:
    """At most so many pods, or so many percent of them, are added or taken away in a period."""

    kind: Literal["Pods", "Percent"]
    value: int
    period_s: int


@dataclass(frozen=True)
class Rules:
    """What holds for one direction.

    Attributes:
        window_s: of stabilization; None for the controller's own (`Flags.downscale_window_s`).
        select: which policy counts when there are several.
        tolerance: share of the target by which a metric may differ; None for the controller's own.
    """

    window_s: int | None
    select: Select
    policies: tuple[Policy, ...]
    tolerance: float | None = None


LONGEST_PERIOD_S, LONGEST_WINDOW_S = 1800, 3600
"""Of a policy, and of a stabilization; the API server takes no more."""

DEFAULT_UP = Rules(0, "Max", (Policy("Pods", 4, 15), Policy("Percent", 100, 15)))
DEFAULT_DOWN = Rules(None, "Max", (Policy("Percent", 100, 15),))


@dataclass(frozen=True)
class Metric:
    """One metric and its target.

    Attributes:
        kind: where it comes from; Object and External are one number for all pods.
        name: of the resource or metric.
        target: in percent of the request for `Utilization`, otherwise in thousandths.
        form: what the target is: of the request, of the value for each pod, or of the value itself.
        container: of a ContainerResource.
    """

    kind: Kind
    name: str
    target: int
    form: Literal["Utilization", "AverageValue", "Value"]
    container: str = ""


@dataclass(frozen=True)
class Autoscaler:
    """A HorizontalPodAutoscaler's spec; `up` and `down` are None without any `behavior`: older rules hold then."""

    minimum: int
    maximum: int
    metrics: tuple[Metric, ...]
    up: Rules | None = None
    down: Rules | None = None


def read_autoscaler(file: Path) -> dict[str, Any]:
    """Read the one autoscaler of a YAML file, as it stands there.

    Raises:
        HoneError: it can't be read, or holds none or several.
    """
    import yaml

    try:
        found = [item for item in yaml.safe_load_all(file.read_text()) if item is not None]
    except OSError as error:
        raise HoneError(f"{file}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HoneError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    autoscalers = [item for item in found if isinstance(item, dict) and item.get("kind") == "HorizontalPodAutoscaler"]
    if len(autoscalers) != 1:
        raise HoneError(f"{file}: holds {len(autoscalers) or 'no'} HorizontalPodAutoscaler(s); give a file with one")
    parse_autoscaler(autoscalers[0], str(file))
    return autoscalers[0]


def parse_autoscaler(item: Mapping[str, Any], where: str) -> Autoscaler:
    """Return what an object says.

    Args:
        item: the object.
        where: it is from, for messages.

    Raises:
        HoneError: a field is missing or wrong; the message names it.
    """
    version = item.get("apiVersion")
    if version not in ("autoscaling/v2", "autoscaling/v2beta2"):
        raise HoneError(f"{where}: apiVersion is '{version}'; only autoscaling/v2 is known")
    spec = _mapping(item.get("spec"), f"{where}: spec")
    minimum = _whole(spec.get("minReplicas", 1), f"{where}: spec.minReplicas", 0)
    maximum = _whole(spec.get("maxReplicas"), f"{where}: spec.maxReplicas", 1)
    if minimum > maximum:
        raise HoneError(f"{where}: spec.minReplicas {minimum} is more than maxReplicas {maximum}")
    metrics = spec.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        raise HoneError(f"{where}: spec.metrics: no metrics, so nothing would be scaled on; give one, such as cpu")
    parsed = tuple(_metric(entry, f"{where}: spec.metrics[{at}]") for at, entry in enumerate(metrics))
    behavior = spec.get("behavior")
    if behavior is None:
        return Autoscaler(minimum, maximum, parsed)
    behavior = _mapping(behavior, f"{where}: spec.behavior")
    up = _rules(behavior.get("scaleUp"), DEFAULT_UP, f"{where}: spec.behavior.scaleUp")
    down = _rules(behavior.get("scaleDown"), DEFAULT_DOWN, f"{where}: spec.behavior.scaleDown")
    return Autoscaler(minimum, maximum, parsed, up, down)


def _mapping(value: object, field: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise HoneError(f"{field}: has to be a mapping, not '{value}'")
    return value


def _whole(value: object, field: str, least: int, most: int | None = None) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise HoneError(f"{field}: has to be a whole number of at least {least}, not '{value}'")
    if most is not None and value > most:
        raise HoneError(f"{field}: is {value:,}; Kubernetes takes {most:,} at most: give so many, or fewer")
    return value


def _metric(entry: object, field: str) -> Metric:
    entry = _mapping(entry, field)
    sources = {
        "Resource": "resource", "ContainerResource": "containerResource", "Pods": "pods", "Object": "object",
        "External": "external",
    }  # fmt: skip
    kind = entry.get("type")
    if kind not in sources:
        raise HoneError(f"{field}.type: '{kind}' is not one of {', '.join(sources)}")
    field = f"{field}.{sources[kind]}"
    source = _mapping(entry.get(sources[kind]), field)
    target = _mapping(source.get("target"), f"{field}.target")
    if kind in ("Resource", "ContainerResource"):
        name = source.get("name")
        if "averageUtilization" in target:
            share = _whole(target["averageUtilization"], f"{field}.target.averageUtilization", 1)
            return Metric(kind, str(name), share, "Utilization", str(source.get("container", "")))
    else:
        name = _mapping(source.get("metric"), f"{field}.metric").get("name")
    if "averageValue" in target:
        form: Literal["AverageValue", "Value"] = "AverageValue"
        value = to_milli(target["averageValue"], f"{field}.target.averageValue")
    elif "value" in target and kind in ("Object", "External"):
        form, value = "Value", to_milli(target["value"], f"{field}.target.value")
    else:
        raise HoneError(f"{field}.target: has no value that a {kind} metric can be held against")
    if value <= 0:
        raise HoneError(f"{field}.target: has to be more than 0")
    return Metric(kind, str(name), value, form, str(source.get("container", "")))


def _rules(entry: object, default: Rules, field: str) -> Rules:
    if entry is None:
        return default
    entry = _mapping(entry, field)
    window = entry.get("stabilizationWindowSeconds")
    select: Select = entry.get("selectPolicy") or "Max"
    if select not in ("Max", "Min", "Disabled"):
        raise HoneError(f"{field}.selectPolicy: '{select}' is not one of Max, Min, Disabled")
    policies = entry.get("policies") or []
    if not isinstance(policies, list):
        raise HoneError(f"{field}.policies: has to be a list, not '{policies}'")
    tolerance = entry.get("tolerance")
    return Rules(
        default.window_s
        if window is None
        else _whole(window, f"{field}.stabilizationWindowSeconds", 0, LONGEST_WINDOW_S),
        select,
        tuple(_policy(each, f"{field}.policies[{at}]") for at, each in enumerate(policies)) or default.policies,
        None if tolerance is None else to_milli(tolerance, f"{field}.tolerance") / 1000,
    )


def _policy(entry: object, field: str) -> Policy:
    entry = _mapping(entry, field)
    kind = entry.get("type")
    if kind not in ("Pods", "Percent"):
        raise HoneError(f"{field}.type: '{kind}' is not one of Pods, Percent")
    value = _whole(entry.get("value"), f"{field}.value", 1)
    return Policy(kind, value, _whole(entry.get("periodSeconds"), f"{field}.periodSeconds", 1, LONGEST_PERIOD_S))
