"""Manifests with measured numbers: `hone k8s render`.

Every number that depends on the model comes from its measured capacity (`hone bench capacity`), and says so beside it.
A number that was never measured is not made up: the command refuses.
"""

from __future__ import annotations

import json
import re
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from hone.capacity import Capacity, read_capacity
from hone.errors import HoneError
from hone.files import atomic_directory
from hone.plan import VARIABLE

from ..autoscaler.hpa.flags import Release
from ..autoscaler.hpa.spec import parse_autoscaler, read_autoscaler
from ..numbers import (
    FEWEST_PODS,
    K8S,
    KEDA,
    PLAN,
    Numbers,
    Object,
    autoscaler_of,
    numbers_of,
    reaction_lines,
    to_markdown,
    uses_keda,
    with_autoscaler,
)
from ..planning.schedule import schedule_of, schedule_patches, schedule_remarks
from .image_record import parsed_image
from .kserve.objects import NAMES as KSERVE_NAMES
from .kserve.objects import check_components
from .kserve.objects import written as kserve_objects
from .measured.patches import autoscaler_patches, deployment_patch
from .rollouts.gateway import CANARY_IMAGE
from .rollouts.kinds import Rollout


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
    autoscaler: Path | None = None,
    release: Release | None = None,
    forecast: Path | None = None,
    rollout: Rollout | None = None,
    kserve: str = "",
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
        autoscaler: a file whose bounds, metrics and behavior to use in place of the measured ones.
        release: of the cluster's Kubernetes, where it is known: from 1.35 on more pods are wanted at 5 % above target.
        forecast: of `hone capacity forecast`, whose peaks pods are there for beforehand, by KEDA's cron scaler.
        rollout: how a new version gets its requests.
        kserve: its mode, where KServe makes the pods.

    Raises:
        HoneError: the capacity is of another model or lacks a measurement, or an argument is wrong.
    """
    match, components = parsed_image(image), _checked(components, forecast, rollout, kserve)
    capacity = _measured(capacity_file, tag, digest)
    peak, scheduled, remarks = _scheduled(forecast, capacity, peak, remarks)
    item, numbers = _autoscaler(autoscaler, components, numbers_of(capacity, tag, capacity_file, peak), release)
    with _new_folder(out) as folder:
        _copy(folder, components, capacity_file, capacity)
        patches = autoscaler_patches(folder, components, numbers, item if autoscaler else None, release) + scheduled
        pods = _workload(folder, numbers, capacity, kserve)
        _write_kustomization(folder, model, match, components, patches, capacity, rollout, pods)
        text = to_markdown(numbers, capacity, remarks, reaction_lines(capacity, capacity_file, item, release))
        (folder / "numbers.md").write_text(text)
    return numbers


def _measured(file: Path, tag: str, digest: str | None) -> Capacity:
    capacity = read_capacity(file)
    capacity.require(tag, digest, file)
    return capacity


def _new_folder(out: Path) -> AbstractContextManager[Path]:
    if out.exists():
        raise HoneError(f"{out} exists; give a new folder, or remove it")
    return atomic_directory(out)


def _workload(folder: Path, numbers: Numbers, capacity: Capacity, kserve: str) -> tuple[list[str], list[str]]:
    """Write who makes the pods, by the numbers; return lines of resources and of patches."""
    if kserve:
        return kserve_objects(folder, capacity, numbers, kserve)
    (folder / "measured-deployment.yaml").write_text(deployment_patch(numbers, capacity))
    return [], []


def _scheduled(
    forecast: Path | None, capacity: Capacity, peak: float | None, remarks: tuple[str, ...]
) -> tuple[float | None, list[str], tuple[str, ...]]:
    """Return the most requests/s, the lines of a kustomization and the remarks, with those of a forecast."""
    if forecast is None:
        return peak, [], remarks
    schedule = schedule_of(forecast, capacity, FEWEST_PODS)
    return schedule.highest(peak), schedule_patches(schedule), (*remarks, *schedule_remarks(schedule))


def _copy(folder: Path, components: tuple[str, ...], capacity_file: Path, capacity: Capacity) -> None:
    """Put into a folder what stays as it is: the base, the components, the measurement and its plan."""
    shutil.copytree(K8S / "base", folder / "base")
    needed = ("keda",) if "scheduled-peaks" in components else ()
    for name in (*components, *needed):
        shutil.copytree(K8S / "components" / name, folder / "components" / name)
    shutil.copyfile(capacity_file, folder / "capacity.json")
    if capacity.plan is not None:
        (folder / PLAN).write_text(capacity.plan.model_dump_json(indent=2) + "\n")


def _checked(
    components: tuple[str, ...], forecast: Path | None, rollout: Rollout | None, kserve: str
) -> tuple[str, ...]:
    """Return the components to include: the one of a forecast brings KEDA's, a rollout what it needs."""
    known = sorted(path.name for path in (K8S / "components").iterdir() if path.is_dir())
    for name in components:
        if name not in known:
            raise HoneError(f"--component: no '{name}'; there are {', '.join(known)}")
    if "scheduled-peaks" in components and forecast is None:
        raise HoneError("--component scheduled-peaks: its times come from a forecast; give --forecast")
    if forecast is not None:
        components = (*(name for name in components if name not in KEDA), "scheduled-peaks")
    if "memory-hpa" in components and uses_keda(components):
        raise HoneError("--component memory-hpa: with KEDA the autoscaler is KEDA's; leave one of them out")
    if kserve and rollout is not None:
        raise HoneError("--kserve: KServe makes the pods; leave --rollout out")
    if kserve:
        check_components(components, kserve)
    return components if rollout is None else rollout.components(components)


def _autoscaler(
    file: Path | None, components: tuple[str, ...], numbers: Numbers, release: Release | None
) -> tuple[Object, Numbers]:
    """Return the autoscaler: that of the numbers, or one of the user's and the numbers that it changes."""
    if file is None:
        return autoscaler_of(numbers, components, release), numbers
    if uses_keda(components):
        raise HoneError("--autoscaler: with --component keda the autoscaler is KEDA's; leave one of them out")
    item = read_autoscaler(file)
    _check_provided(item, file)
    return item, with_autoscaler(numbers, item, file)


def _check_provided(item: Object, file: Path) -> None:
    """Refuse a metric of pods that nothing gives the controller: it would scale on nothing, without a word."""
    import yaml

    adapter = yaml.safe_load((K8S / ADAPTER).read_text())
    provided = [rule["name"]["as"] for rule in adapter["rules"]["custom"]]
    for at, metric in enumerate(parse_autoscaler(item, str(file)).metrics):
        if metric.kind == "Pods" and metric.name not in provided:
            raise HoneError(
                f"{file}: spec.metrics[{at}].pods: nothing provides '{metric.name}', so it would never scale; take "
                f"{', '.join(provided)}, or add a rule for it to k8s/{ADAPTER}"
            )


ADAPTER = "monitoring/prometheus-adapter.yaml"


def _write_kustomization(
    folder: Path,
    model: str,
    image: re.Match[str],
    components: tuple[str, ...],
    patches: list[str],
    capacity: Capacity,
    rollout: Rollout | None,
    workload: tuple[list[str], list[str]],
) -> None:
    resources, gone = workload
    patches = patches + rollout.written(folder, capacity, patches) if rollout else patches
    lines = [
        f"# {model}, with the numbers of capacity.json; numbers.md says where each is from.",
        "apiVersion: kustomize.config.k8s.io/v1beta1",
        "kind: Kustomization",
        "namespace: hone",
        "resources:",
        "  - base",
        *(["  - rollout.yaml"] if rollout else []),
        *resources,
    ]
    if components:
        lines += ["components:", *(f"  - components/{name}" for name in components)]
    # The pods run what was measured.
    lines += ["configMapGenerator:", "  - name: hone-settings", "    behavior: merge"]
    lines += [f"    literals: [HONE_WORKERS={capacity.workers}]"]
    lines += [f"    files: [{VARIABLE}={PLAN}]"] if capacity.plan is not None else []
    lines += ["images:", *_image("hone-model", image)]
    lines += _image(CANARY_IMAGE, parsed_image(rollout.canary) if rollout.canary else image) if rollout else []
    lines += ["configurations:", f"  - {KSERVE_NAMES}"] if resources else []
    lines += ["patches:", *([] if resources else ["  - path: measured-deployment.yaml"]), *patches, *gone]
    (folder / "kustomization.yaml").write_text("\n".join(lines) + "\n")


def _image(placeholder: str, image: re.Match[str]) -> list[str]:
    version = [f"    newTag: {json.dumps(image['tag'][1:])}"] if image["tag"] else []
    version += [f"    digest: {image['digest'][1:]}"] if image["digest"] else []
    return [f"  - name: {placeholder}", f"    newName: {image['name']}", *version]
